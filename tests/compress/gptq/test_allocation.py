"""Bits by what matrices lose: settings that are not worth their bytes, and the order in which bytes are spent."""

from __future__ import annotations

from edgetune.compress.gptq.allocation import allocate, lower_hull
from edgetune.compress.gptq.quantization import Choice
from edgetune.compress.gptq.sensitivity import Sensitivities, Setting

SMALL, LOSSY, GOOD = Setting(4, 128, 100, 8.0), Setting(4, 32, 110, 7.9), Setting(8, 128, 200, 0.1)
BEST = Setting(8, 32, 210, 0.05)


def table(**factors: float) -> Sensitivities:
    """Matrices of the four settings, their losses times a factor."""
    settings = (SMALL, LOSSY, GOOD, BEST)
    return Sensitivities(
        {
            name: [Setting(one.bits, one.block, one.stored_bytes, one.nats * by) for one in settings]
            for name, by in factors.items()
        }
    )


def test_a_setting_that_saves_less_a_byte_than_a_larger_one_is_none():
    assert lower_hull([BEST, LOSSY, GOOD, SMALL]) == [SMALL, GOOD, BEST]
    assert lower_hull([SMALL, Setting(8, 128, 200, 9.0)]) == [SMALL]
    assert lower_hull([GOOD, Setting(4, 16, 200, 5.0)]) == [GOOD]


def test_bytes_go_to_the_matrix_that_loses_most_until_the_sum_is_allowed():
    small, good, best = (Choice(4, 128, "gptq"), Choice(8, 128, "rtn"), Choice(8, 32, "rtn"))
    matrices = table(head=10.0, middle=1.0, other=0.1)
    assert allocate(matrices, 100) == {"head": small, "middle": small, "other": small}
    assert allocate(matrices, 88) == {"head": good, "middle": small, "other": small}
    assert allocate(matrices, 2) == {"head": good, "middle": good, "other": small}
    # The last tenth of a nat of the head is worth its ten bytes more than what `other` loses is worth a hundred.
    assert allocate(matrices, 1.5) == {"head": best, "middle": good, "other": small}


def test_a_limit_that_nothing_reaches_takes_the_best_of_each():
    assert set(allocate(table(head=1.0, other=2.0), 0.0).values()) == {Choice(8, 32, "rtn")}
