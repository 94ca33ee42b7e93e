"""Why a scheme won and why others were not tried, in the words of a report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edgetune.benchmarks.stepwise.choice import Schemes, skipped_schemes, why_chosen
from edgetune.benchmarks.stepwise.ladder import Climbed
from edgetune.compress.gptq.schemes import LADDER
from edgetune.serve.stepwise.report import LanguageCandidate

NOT_NAMED = "the recipe's compress.schemes does not name it"
ALL = {"int4_g128": 0.2, "int4": 0.1, "int4_head8": 0.1, "mixed": 0.06, "int8": 0.05, "fp32": 0.0}


def climbed(**rises: float) -> Climbed:
    """What was tried, in order, with its rise: accepted up to two percent."""
    candidates = tuple(
        LanguageCandidate(
            scheme=name, size_bytes=1, dtypes={}, quantized=1.0, value=4.0, rise=rise, rise_interval=[rise, rise],
            kl=0.0, agreement=0.975, gate="pass" if rise <= 0.02 else "fail", accepted=rise <= 0.02, reason="",
        )
        for name, rise in rises.items()
    )  # fmt: skip
    return Climbed(Path("nowhere"), candidates, tuple(one.scheme for one in candidates if one.accepted), {})


@pytest.mark.parametrize(
    ("rises", "schemes", "said"),
    [
        ({"int4": 0.01}, "auto", "int4 won: schemes are tried smallest first, and the gate let the first one through."),
        (
            {"int4": 0.036, "int4_head8": 0.021, "int8": 0.001},
            "auto",
            "int8 won: schemes are tried smallest first, and before it int4 (rise +3.60%, agreement 97.5%) and "
            "int4_head8 (rise +2.10%, agreement 97.5%) were refused.",
        ),
        (
            {"int4": 0.2, "int4_head8": 0.1, "int8": 0.05, "fp32": 0.0},
            "auto",
            "fp32 won: schemes are tried smallest first, and before it int4 (rise +20.00%, agreement 97.5%), "
            "int4_head8 (rise +10.00%, agreement 97.5%) and int8 (rise +5.00%, agreement 97.5%) were refused.",
        ),
        ({"int8": 0.0}, ["int8"], "int8 won: no other scheme was asked for, and the gate let it through."),
        (
            {"int8": 0.03, "fp32": 0.0},
            ["int8", "fp32"],
            "fp32 won: schemes are tried in the order of the recipe, and before it int8 (rise +3.00%, agreement 97.5%) "
            "was refused.",
        ),
    ],
)
def test_why_the_chosen_scheme_won(rises: dict[str, float], schemes: Schemes, said: str) -> None:
    found = climbed(**rises)
    assert why_chosen(found, found.order[0], {}, schemes) == said


def test_what_fell_on_the_test_part_is_told_as_such() -> None:
    found = climbed(int4=0.01, int8=0.0)
    assert why_chosen(found, "int8", {"int4": "perplexity 9 instead of 4"}, "auto") == (
        "int8 won: schemes are tried smallest first, and before it int4 (on the test part) was refused."
    )
    assert why_chosen(found, "", {"int4": "", "int8": ""}, "auto") == ""


def test_a_scheme_that_failed_is_told_with_its_reason() -> None:
    found = replace(climbed(int4_head8=0.01), failed={"int4_g128": "no block fits", "int4": "not finite"})
    assert why_chosen(found, "int4_head8", {}, "auto") == (
        "int4_head8 won: schemes are tried smallest first, and before it int4_g128 (it failed) and int4 (it failed) "
        "were refused."
    )
    assert skipped_schemes(found, "auto") == {
        "int4_g128": "no block fits",
        "int4": "not finite",
        **dict.fromkeys(("mixed", "int8", "fp32"), "int4_head8, which is smaller, passed the gate"),
    }


@pytest.mark.parametrize(
    ("rises", "schemes", "skipped"),
    [
        (
            {"int4_g128": 0.06, "int4": 0.05, "int4_head8": 0.01},
            "auto",
            dict.fromkeys(("mixed", "int8", "fp32"), "int4_head8, which is smaller, passed the gate"),
        ),
        (ALL, "auto", {}),
        (
            {"int8": 0.01},
            ["int8", "int4"],
            {
                "int4": "int8, which stands before it in compress.schemes, passed the gate",
                **dict.fromkeys(("int4_g128", "int4_head8", "mixed", "fp32"), NOT_NAMED),
            },
        ),
        (
            {"int4": 0.05},
            ["int4"],
            dict.fromkeys(("int4_g128", "int4_head8", "mixed", "int8", "fp32"), NOT_NAMED),
        ),
    ],
)
def test_what_was_not_tried_has_its_reason(rises: dict[str, float], schemes: Schemes, skipped: dict[str, str]) -> None:
    found = skipped_schemes(climbed(**rises), schemes)
    assert found == skipped
    assert set(found) | set(rises) == {scheme.name for scheme in LADDER}
