"""Whether to ship a bundle: a table of rules, each a pure function of the report, with its figures in a clause.

The gate asks what was lost from tuning to the bundle. It cannot see that the tuned model itself was not worth having:
the rules below hold it against the base, a linear n-gram model and one constant answer, row by row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edgetune.serve.report import Report
from edgetune.serve.verdict import LINEAR, MAJORITY, Comparison, Decision, Reason
from edgetune.tune.data.dataset import NO_TEST_ROWS, NO_VALIDATION_ROWS
from edgetune.tune.metrics import is_error, is_percent, title_of

# Shares from which a rule speaks: of tokens that the base does not know, of texts that are cut, of answers that change
# in batches; and half the width of an interval that says little.
MANY_UNKNOWN, MANY_CUT, MANY_CHANGED, WIDE = 0.05, 0.2, 0.01, 0.05
# Rows of a class from which it is a fault that none of them is answered rightly.
FEW_ROWS = 5


@dataclass(frozen=True)
class Rule:
    """One reason not to ship, to ship with care, or to do the next build otherwise.

    Attributes:
        name: as scripts know it.
        ship: what the decision is at best where it applies; "yes" for what says nothing against the bundle.
        clause: why, with its figures; "" where the rule does not apply.
    """

    name: str
    ship: Literal["no", "with care", "yes"]
    clause: Callable[[Report], str]


def decide(report: Report, over_budget: str = "") -> Decision:
    """The decision on a report, whose reasons stand in the order of `RULES`.

    Args:
        over_budget: what of the bundle does not meet the budget, as `choice.over_budget` has it.
    """
    reasons = [(str(rule.ship), Reason(rule=rule.name, sentence=rule.clause(report))) for rule in RULES]
    if over_budget:
        reasons.insert(1, ("no", Reason(rule="over-budget", sentence=f"it is over budget: {over_budget}")))
    if not report.chosen:  # what is not there needs no care
        reasons = [(ship, reason) for ship, reason in reasons if ship == "no"]
    given = [(ship, reason) for ship, reason in reasons if reason.sentence]
    least = min((ship for ship, _ in given), key=("no", "with care", "yes").index, default="yes")
    return Decision(ship=least, reasons=[reason for _, reason in given])


def nothing_packed(report: Report) -> str:
    """No candidate passed."""
    if report.chosen:
        return ""
    reasons = [f"{one.scheme}: {one.reason}" for one in report.candidates]
    return "no candidate may be packed" + (f" ({'; '.join(reasons)})" if reasons else "")


def worse_than_linear(report: Report) -> str:
    """The linear model is proven to be better than the bundle."""
    pair = _against(report, LINEAR)
    if pair is None or pair.drop_interval[0] <= 0:
        return ""
    return f"a linear n-gram model is better: {_versus(report, pair)}; {_linear(report)}"


def constant(report: Report) -> str:
    """One constant answer is as good by the metric that judges."""
    pair = _against(report, MAJORITY)
    if pair is None or pair.drop < 0:
        return ""
    return f"one constant answer is as good: {_versus(report, pair)}"


def worse_than_base(report: Report) -> str:
    """Tuning is proven to have made the model worse."""
    pair = report.comparison("base", "tuned")
    if pair is None or pair.drop_interval[0] <= 0:
        return ""
    return f"tuning made the model worse than its base with a head alone: {_versus(report, pair)}; {_PROBE}"


def inconclusive(report: Report) -> str:
    """The gate could not prove the loss to be within the limit."""
    if report.proof is None or report.proof.gate != "inconclusive":
        return ""
    return f"the gate could not prove that the bundle keeps the tuned model's quality: {report.proof.reason}"


def nearly_constant(report: Report) -> str:
    """Nearly all rows get the same answer."""
    pair = _against(report, MAJORITY)
    return "" if pair is not None and pair.drop >= 0 else report.quality.warning.rstrip(".")


def constant_unproven(report: Report) -> str:
    """The rows do not prove that the bundle is better than one constant answer."""
    pair = _against(report, MAJORITY)
    if pair is None or pair.drop >= 0 or pair.drop_interval[1] < 0:
        return ""
    return f"it is not proven to be better than one constant answer: {_versus(report, pair)}"


def linear_as_good(report: Report) -> str:
    """The rows do not prove that the bundle is better than the linear model."""
    pair = _against(report, LINEAR)
    if pair is None or pair.drop_interval[0] > 0 or pair.drop_interval[1] < 0:
        return ""
    return f"a linear n-gram model may be as good: {_versus(report, pair)}; {_linear(report)}"


def tuning_unproven(report: Report) -> str:
    """The rows do not prove that tuning gained anything."""
    pair = report.comparison("base", "tuned")
    if pair is None or report.training.handed_on == "probe" or pair.drop_interval[0] > 0 or pair.drop_interval[1] < 0:
        return ""
    return f"tuning is not proven to have gained anything over a head alone: {_versus(report, pair)}; {_PROBE}"


def unknown_language(report: Report) -> str:
    """The base's tokenizer does not know the texts."""
    share = report.data.unknown_share
    if share < MANY_UNKNOWN:
        return ""
    return f"{share:.0%} of the tokens are unknown to the base: choose one that was trained on this language"


def cut_texts(report: Report) -> str:
    """Many texts are longer than the model reads."""
    rows = sum(report.data.rows.values())
    share = report.data.truncated / max(1, rows)
    return "" if share < MANY_CUT else f"{share:.0%} of the texts are longer than the model reads and are cut"


def few_test_rows(report: Report) -> str:
    """The test part says little of the metric itself."""
    stage, metric = report.stage(report.chosen), report.quality.metric
    if stage is None or is_error(metric) or stage.ci95[1] - stage.ci95[0] <= 2 * WIDE:
        return ""
    low, high = (_score(bound, metric) for bound in stage.ci95)
    return f"{report.quality.n:,} test rows say little: its {title_of(metric)} lies between {low} and {high}"


def chosen_by_test(report: Report) -> str:
    """The rows that judge have chosen the model as well."""
    flattered = {NO_VALIDATION_ROWS, NO_TEST_ROWS} & set(report.data.findings)
    return "the rows that judge it have chosen it as well, so that its figures flatter it" if flattered else ""


def never_right(report: Report) -> str:
    """Classes of which no row is answered rightly."""
    lost = [one for one in report.quality.classes if one.f1 == 0 and one.rows >= FEW_ROWS]
    if not lost:
        return ""
    names = ", ".join(repr(one.label) for one in lost[:5]) + ", ..." * (len(lost) > 5)
    return f"no test row of {len(lost):,} of {len(report.quality.classes):,} classes is answered rightly: {names}"


def depends_on_batch(report: Report) -> str:
    """Answers change in batches."""
    batched = report.quality.batched
    if batched is None or batched.changed <= MANY_CHANGED:
        return ""
    return (
        f"in batches of {batched.batch_size} it answers {batched.changed:.1%} of the test inputs otherwise than one by "
        "one, as it was judged"
    )


def untimed(report: Report) -> str:
    """Speed could not be judged."""
    if report.timing_valid:
        return ""
    return f"its speed could not be judged: {report.timing_remark.rstrip('.') or 'the machine was too busy'}"


def slower(report: Report) -> str:
    """The bundle is slower than the base in PyTorch."""
    speedup = report.latency_ms.speedup if report.latency_ms and report.timing_valid else None
    if speedup is None or speedup.ci95 is None or speedup.ci95[1] >= 1:
        return ""
    return f"it is slower than the base in PyTorch: p50 {speedup.p50:.2f} times as fast"


RULES = (
    Rule("nothing-packed", "no", nothing_packed),
    Rule("worse-than-linear", "no", worse_than_linear),
    Rule("constant", "no", constant),
    Rule("worse-than-base", "no", worse_than_base),
    Rule("nearly-constant", "with care", nearly_constant),
    Rule("gate-inconclusive", "with care", inconclusive),
    Rule("constant-unproven", "with care", constant_unproven),
    Rule("linear-as-good", "with care", linear_as_good),
    Rule("unknown-language", "with care", unknown_language),
    Rule("chosen-by-test", "with care", chosen_by_test),
    Rule("few-test-rows", "with care", few_test_rows),
    Rule("never-right", "with care", never_right),
    Rule("cut-texts", "with care", cut_texts),
    Rule("depends-on-batch", "with care", depends_on_batch),
    Rule("slower", "with care", slower),
    Rule("untimed", "with care", untimed),
    Rule("tuning-unproven", "yes", tuning_unproven),
)

_PROBE = "tune.method=probe would have done"


def _against(report: Report, reference: str) -> Comparison | None:
    """What was packed against a model of the floor; None where either was not measured, or they are the same."""
    return None if report.chosen.split("+")[-1] == reference else report.comparison(reference, report.chosen)


def _versus(report: Report, pair: Comparison) -> str:
    """Both values, their difference and its interval: of a score in points, of an error in percent."""
    metric = report.quality.metric
    reference = report.floor(pair.reference) or report.stage(pair.reference)
    candidate = report.stage(pair.candidate)
    assert reference is not None  # both were compared
    assert candidate is not None
    before, after = _score(reference.value, metric), _score(candidate.value, metric)
    sign, unit = (1, "%") if is_error(metric) else (-1, " points")
    moved = 100 * sign * pair.drop + 0.0
    low, high = sorted(100 * sign * bound + 0.0 for bound in pair.drop_interval)
    interval = f"paired 95% interval {low:+.2f} to {high:+.2f}"
    return f"{title_of(metric)} {after} against {before}, {moved:+.2f}{unit} ({interval})"


def _linear(report: Report) -> str:
    """What to do about it, and what the linear model costs."""
    floor = report.floor(LINEAR)
    tried = any(candidate.scheme == LINEAR for candidate in report.candidates)
    means = "by the scheme linear, or scikit-learn alone" if tried else "with scikit-learn alone"
    return f"it takes {floor.cpu_seconds:.1f} CPU seconds {means}" if floor else ""


def _score(value: float, metric: str) -> str:
    return f"{100 * value:.2f}%" if is_percent(metric) else f"{value:.4g}"
