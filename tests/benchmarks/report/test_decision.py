"""Whether to ship: each rule by itself, its figures, and the order of the reasons."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edgetune.benchmarks.report.decision import RULES, decide
from edgetune.serve.report import BatchedAnswers, ClassQuality, Proof, Report
from edgetune.serve.verdict import Comparison, FloorQuality
from edgetune.tune.data.dataset import NO_TEST_ROWS

SAMPLE = Path(__file__).parent.parent / "sample_report.json"
CHOSEN = "int8_dynamic"


@pytest.fixture(scope="module")
def sound() -> Report:
    """A report in which nothing is amiss: tuning gained, and neither constant nor linear model comes near."""
    full = Report.load(SAMPLE)
    quality = msgspec.structs.replace(
        full.quality,
        warning="",
        classes=[],
        stages=[*full.quality.stages[:2], msgspec.structs.replace(full.quality.stages[-1], stage=CHOSEN)],
        floor=[
            FloorQuality(stage="majority", value=0.013, ci95=[0.01, 0.02], described="'a' to all rows"),
            FloorQuality(stage="linear", value=0.911, ci95=[0.90, 0.92], described="words 1-2", cpu_seconds=5.4),
        ],
        comparisons=[
            compared("base", "tuned", -0.0062, -0.011, -0.001),
            compared("majority", CHOSEN, -0.9, -0.91, -0.89),
            compared("linear", CHOSEN, -0.018, -0.025, -0.011),
        ],
    )
    data = msgspec.structs.replace(full.data, unknown_share=0.0, truncated=0, findings=[])
    training = msgspec.structs.replace(full.training, handed_on="lora")
    return msgspec.structs.replace(full, chosen=CHOSEN, quality=quality, data=data, training=training)


def compared(reference, candidate, drop, low, high):
    return Comparison(reference=reference, candidate=candidate, drop=drop, drop_interval=[low, high], p_value=None)


def with_quality(report, **changes):
    return msgspec.structs.replace(report, quality=msgspec.structs.replace(report.quality, **changes))


def with_comparison(report, reference, candidate, drop, low, high):
    """The report with another result of one comparison."""
    others = [pair for pair in report.quality.comparisons if (pair.reference, pair.candidate) != (reference, candidate)]
    return with_quality(report, comparisons=[*others, compared(reference, candidate, drop, low, high)])


def with_data(report, **changes):
    return msgspec.structs.replace(report, data=msgspec.structs.replace(report.data, **changes))


def decided(report, **more):
    decision = decide(report, **more)
    return decision.ship, [reason.rule for reason in decision.reasons]


def test_a_sound_build_is_shipped(sound):
    assert decided(sound) == ("yes", [])
    assert decide(sound).sentence == "Ship."


def test_reports_without_comparisons_are_decided_by_what_they_have(sound):
    assert decided(with_quality(sound, floor=[], comparisons=[])) == ("yes", [])


def test_a_better_linear_model_forbids(sound):
    worse = with_comparison(sound, "linear", CHOSEN, 0.1269, 0.105, 0.149)
    decision = decide(worse)
    value = sound.stage(CHOSEN).value
    assert decision.sentence == (
        f"Do not ship, because a linear n-gram model is better: accuracy {100 * value:.2f}% against 91.10%, -12.69 "
        "points (paired 95% interval -14.90 to -10.50); it takes 5.4 CPU seconds with scikit-learn alone."
    )


def test_a_linear_model_that_may_be_as_good_asks_for_care(sound):
    assert decided(with_comparison(sound, "linear", CHOSEN, -0.002, -0.01, 0.006)) == ("with care", ["linear-as-good"])
    # A bundle that is the linear model is not held against itself.
    report = with_comparison(msgspec.structs.replace(sound, chosen="linear"), "linear", "linear", 0.0, 0.0, 0.0)
    assert "linear-as-good" not in decided(report)[1]


def test_a_constant_that_is_as_good_forbids_and_one_not_proven_worse_asks_for_care(sound):
    assert decided(with_comparison(sound, "majority", CHOSEN, 0.0, -0.02, 0.02)) == ("no", ["constant"])
    assert decided(with_comparison(sound, "majority", CHOSEN, -0.01, -0.03, 0.01)) == (
        "with care",
        ["constant-unproven"],
    )


def test_tuning_that_gained_nothing_is_told(sound):
    unproven = with_comparison(sound, "base", "tuned", 0.0016, -0.006, 0.009)
    decision = decide(unproven)
    assert (decision.ship, [reason.rule for reason in decision.reasons]) == ("yes", ["tuning-unproven"])
    assert decision.headline == "Ship; note that"
    assert decision.reasons[0].sentence == (
        "tuning is not proven to have gained anything over a head alone: accuracy 93.12% against 92.50%, -0.16 points "
        "(paired 95% interval -0.90 to +0.60); tune.method=probe would have done"
    )
    probe = msgspec.structs.replace(unproven, training=msgspec.structs.replace(sound.training, handed_on="probe"))
    assert decided(probe) == ("yes", [])  # nothing was tuned
    assert decided(with_comparison(sound, "base", "tuned", 0.02, 0.01, 0.03)) == ("no", ["worse-than-base"])


def test_the_gates_word_is_passed_on(sound):
    reason = "54 rows cannot settle it"
    proof = Proof(
        gate="inconclusive", value=0.9, reason=reason, rows=54, drop=0.0, drop_interval=[-0.1, 0.1], p_value=1.0
    )
    decision = decide(msgspec.structs.replace(sound, proof=proof))
    assert decision.sentence == (
        "Ship with care, because the gate could not prove that the bundle keeps the tuned model's quality: 54 rows "
        "cannot settle it."
    )


def test_nothing_packed_is_the_only_reason_but_for_others_that_forbid(sound):
    report = with_data(msgspec.structs.replace(sound, chosen="", proof=None), unknown_share=0.5)
    decision = decide(report)
    assert (decision.ship, [reason.rule for reason in decision.reasons]) == ("no", ["nothing-packed"])
    assert all(candidate.reason in decision.reasons[0].sentence for candidate in sound.candidates)


def test_a_budget_that_is_not_met_forbids(sound):
    assert decide(sound, "size_mb is 23.4, the budget 10").sentence == (
        "Do not ship, because it is over budget: size_mb is 23.4, the budget 10."
    )


@pytest.mark.parametrize(
    ("rule", "change", "words"),
    [
        ("unknown-language", lambda r: with_data(r, unknown_share=0.66), "66% of the tokens are unknown to the base"),
        ("cut-texts", lambda r: with_data(r, truncated=10**6), "are longer than the model reads and are cut"),
        ("chosen-by-test", lambda r: with_data(r, findings=[NO_TEST_ROWS]), "have chosen it as well"),
        (
            "nearly-constant",
            lambda r: with_quality(r, warning="It answers 'a' to 397 of 400 rows."),
            "It answers 'a' to 397 of 400 rows",
        ),
        (
            "never-right",
            lambda r: with_quality(
                r, classes=[ClassQuality(label=name, precision=0, recall=0, f1=f1, rows=9) for name, f1 in CLASSES]
            ),
            "no test row of 1 of 2 classes is answered rightly: 'b'",
        ),
        (
            "depends-on-batch",
            lambda r: with_quality(r, batched=BatchedAnswers(batch_size=32, n=100, changed=0.016, max_abs_diff=1.0)),
            "in batches of 32 it answers 1.6% of the test inputs otherwise",
        ),
        (
            "untimed",
            lambda r: msgspec.structs.replace(r, timing_valid=False, timing_remark="Busy."),
            "its speed could not be judged: Busy",
        ),
        (
            "few-test-rows",
            lambda r: with_quality(
                r, n=54, stages=[msgspec.structs.replace(one, ci95=[0.71, 0.92]) for one in r.quality.stages]
            ),
            "54 test rows say little: its accuracy lies between 71.00% and 92.00%",
        ),
    ],
)
def test_what_asks_for_care(sound, rule, change, words):
    decision = decide(change(sound))
    assert (decision.ship, [reason.rule for reason in decision.reasons]) == ("with care", [rule])
    assert words in decision.reasons[0].sentence


CLASSES = (("a", 0.9), ("b", 0.0))


def test_reasons_come_by_weight_and_those_that_forbid_first(sound):
    report = with_data(sound, unknown_share=0.6)
    report = with_comparison(report, "base", "tuned", 0.0, -0.01, 0.01)
    report = with_comparison(report, "linear", CHOSEN, 0.1, 0.08, 0.12)
    assert decided(report) == ("no", ["worse-than-linear", "unknown-language", "tuning-unproven"])
    weights = [("no", "with care", "yes").index(rule.ship) for rule in RULES]
    assert weights == sorted(weights)
    assert len({rule.name for rule in RULES}) == len(RULES)


def test_errors_are_told_in_percent(sound):
    floor = [FloorQuality(stage="linear", value=0.5, ci95=[0.4, 0.6], described="words 1-2", cpu_seconds=1.0)]
    stages = [msgspec.structs.replace(one, value=0.6) for one in sound.quality.stages]
    report = with_quality(sound, metric="mae", floor=floor, stages=stages, comparisons=[])
    report = with_comparison(report, "linear", CHOSEN, 0.2, 0.1, 0.3)
    assert "MAE 0.6 against 0.5, +20.00% (paired 95% interval +10.00 to +30.00)" in decide(report).sentence
