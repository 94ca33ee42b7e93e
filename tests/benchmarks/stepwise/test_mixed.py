"""The aim of a mixture of bits, corrected by what was measured: candidates by hand, nothing is quantized."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from edgetune.benchmarks.stepwise.mixed import AIM, MOST_TRIES, smallest_within
from edgetune.compress.gptq.quantization import Choice
from edgetune.compress.gptq.sensitivity import Sensitivities, Setting
from edgetune.serve.stepwise.report import LanguageCandidate

LIMIT = 0.02
TABLE = Sensitivities({f"m{number}": [Setting(4, 32, 100, 0.001), Setting(8, 32, 200, 0.0)] for number in range(100)})


def candidates(
    truth: float, least: float = 0.0
) -> tuple[list[int], Callable[[int, Mapping[str, Choice]], LanguageCandidate]]:
    """How many matrices of each try have 4 bits, and who judges: the rise is `truth` times the table's, and `least`."""
    tries: list[int] = []

    def judged(number: int, choices: Mapping[str, Choice]) -> LanguageCandidate:
        assert number == len(tries) + 1
        few = sum(choice.bits == 4 for choice in choices.values())
        tries.append(few)
        rise = least + truth * 0.001 * few
        return LanguageCandidate(
            scheme="mixed", size_bytes=100 * few + 200 * (100 - few), dtypes={}, quantized=1.0, value=1.0, rise=rise,
            rise_interval=[rise, rise], kl=rise, agreement=1.0, gate="pass", accepted=rise <= LIMIT, reason="",
            made_by="",
        )  # fmt: skip

    return tries, judged


def test_what_was_foretold_rightly_is_made_once():
    tries, judged = candidates(1.0)
    number, best = smallest_within(TABLE, LIMIT, judged)
    assert (number, tries) == (1, [int(AIM * LIMIT / 0.001 - 0.1)])
    assert best.accepted


@pytest.mark.parametrize("truth", [0.3, 3.0])
def test_the_aim_follows_the_measured_rise(truth):
    tries, judged = candidates(truth)
    number, best = smallest_within(TABLE, LIMIT, judged)
    assert (number, len(tries)) == (2, 2)
    assert 0.7 * LIMIT < best.rise < 0.9 * LIMIT
    assert (tries[1] > tries[0]) == (truth < 1)


def test_where_nothing_passes_the_nearest_is_told():
    tries, judged = candidates(1.0, least=0.05)
    _, best = smallest_within(TABLE, LIMIT, judged)
    assert len(tries) == MOST_TRIES
    assert not best.accepted
    assert best.rise == 0.05 + min(tries) * 0.001
    assert tries == sorted(tries, reverse=True)


def test_the_same_choice_is_not_made_twice():
    alone = Sensitivities({"head": [Setting(8, 32, 200, 0.1)]})
    tries, judged = candidates(1000.0)
    smallest_within(alone, LIMIT, judged)
    assert tries == [0]
