"""Two models that answer by one run, judged on the same labelled rows: metrics in pairs, agreement, speed and size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edgetune.benchmarks.compare.rows import JudgedRows, read_rows, task_of_head
from edgetune.benchmarks.compare.side import BundleSide, Side, known_labels, open_side
from edgetune.benchmarks.compare.speed import Speed, timed
from edgetune.benchmarks.compare.verdict import Gain, gain_of
from edgetune.serve.errors import InputError
from edgetune.tune.data.rows import as_line

if TYPE_CHECKING:
    from edgetune.serve.json_types import JsonObject
    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.training.progress import Progress

MOST_EXAMPLES = 10


@dataclass(frozen=True)
class ComparisonRequest:
    """What two sides are compared by.

    Attributes:
        task: of bundles of several tasks, the one to compare; "" for that of both.
        metric: "" for the task's own.
        rows: at most; more are drawn by the seed.
        seed: of that draw and of bootstraps.
        confidence: of the paired intervals.
        calls: timed calls of each side; 0 times nothing.
        key: for addresses.
    """

    task: str = ""
    metric: str = ""
    rows: int = 2_000
    seed: int = 0
    confidence: float = 0.95
    calls: int = 200
    key: str | None = None


@dataclass(frozen=True)
class Example:
    """A row on which the two sides differ, by what each answered."""

    input: str
    expected: str
    a: str
    b: str


@dataclass(frozen=True)
class Compared:
    """What a comparison of two sides showed.

    Attributes:
        a, b: names of the sides.
        task: of both.
        rows: that judged.
        gains: each metric, the first of which gives the verdict.
        agreement: share of rows that both answer alike, 0 to 1; of numbers and vectors their likeness.
        a_bytes, b_bytes: of the bundles; None of an address.
        speed: None where it was not timed.
        findings: sentences on rows and answers.
        examples: the first rows on which the sides differ.
    """

    a: str
    b: str
    task: str
    rows: int
    gains: tuple[Gain, ...]
    agreement: float | None
    a_bytes: int | None
    b_bytes: int | None
    speed: Speed | None
    findings: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()

    @property
    def gain(self) -> Gain:
        """The metric that gives the verdict."""
        return self.gains[0]

    @property
    def verdict(self) -> str:
        """A sentence."""
        gain = self.gain
        low, high = (f"{100 * end:+.2f}" for end in gain.gain_ci)
        interval = f"{100 * gain.gain:+.2f} ({low} to {high}) {points_of(gain.metric)}, {self.rows:,} rows"
        if gain.outcome != "undecided":
            return f"B is {gain.outcome} than A by {gain.metric}: {interval}."
        more = f"; about {gain.rows_needed:,} rows would settle it" if gain.rows_needed else ""
        return f"No difference is shown by {gain.metric}: {interval}{more}."

    def as_json(self) -> JsonObject:
        """As a JSON object, with the verdict."""
        return {"verdict": self.verdict, "outcome": self.gain.outcome, **asdict(self)}


def points_of(metric: str) -> str:
    """In what a gain of a metric is told: points of a score, or percent that an error fell by."""
    from edgetune.tune.metrics import is_error

    return "% less" if is_error(metric) else "points"


def compare_answers(
    names: tuple[str, str], recipe: DataRecipe, request: ComparisonRequest, progress: Progress
) -> Compared:
    """Judge two sides, a bundle at least, on the labelled rows that a recipe names.

    Raises:
        DataError, RecipeError: the rows or the metric do not fit the task.
        InputError: the sides cannot be compared.
        EdgetuneError: a bundle or an address does not answer.
    """
    sides = open_sides(names, request)
    try:
        return _compared(names, sides, recipe, request, progress)
    finally:
        for side in sides:
            side.close()


def open_sides(names: tuple[str, str], request: ComparisonRequest) -> tuple[Side, Side]:
    """Both sides, the bundle first, which tells what an address is asked.

    Raises:
        InputError: neither is a bundle, or they answer different tasks.
    """
    from edgetune.benchmarks.compare.address import is_address

    if is_address(names[0]):
        second = open_side(names[1], request.task, None, request.key)
        return open_side(names[0], request.task, _bundle(second), request.key), second
    first = open_side(names[0], request.task, None, request.key)
    second = open_side(names[1], request.task, _bundle(first), request.key)
    if isinstance(second, BundleSide):
        bundles = (_bundle(first), second)
        kinds = [side.head.kind for side in bundles]
        codecs = [len(side.predictor.codec.parts) for side in bundles]
        if kinds[0] != kinds[1] or codecs[0] != codecs[1]:
            raise InputError(
                f"{names[0]} answers with a {kinds[0]} and {names[1]} with a {kinds[1]}, or they read other inputs.",
                expected="two bundles of the same task",
            )
    return first, second


def _bundle(side: Side) -> BundleSide:
    assert isinstance(side, BundleSide)
    return side


def _compared(
    names: tuple[str, str], sides: tuple[Side, Side], recipe: DataRecipe, request: ComparisonRequest, progress: Progress
) -> Compared:
    bundle = next(_bundle(side) for side in sides if isinstance(side, BundleSide))
    manifest = bundle.predictor.bundle.manifest
    task = task_of_head(manifest.task, bundle.head)
    if bundle.head.kind == "embedding" and bundle.head.prompts:
        recipe = recipe.model_copy(update={"prompts": dict(bundle.head.prompts)})
    rows = read_rows(recipe, task, bundle.head.kind, manifest.columns, request.rows, request.seed)
    judged = rows.judged(request.metric, known_labels(sides))
    answers = [_answered(side, judged, progress, label) for side, label in zip(sides, "AB", strict=True)]
    a, b = (judged.decisions(given, side=name) for given, name in zip(answers, names, strict=True))
    metrics = judged.objective.metrics(task.metrics)
    ordered = sorted(metrics, key=lambda metric: metric != judged.objective.metric)
    gains = tuple(
        gain_of(metric, judged.expected, a, b, confidence=request.confidence, seed=request.seed) for metric in ordered
    )
    alike = a.shape == b.shape
    return Compared(
        a=names[0],
        b=names[1],
        task=task.name,
        rows=len(rows.inputs),
        gains=gains,
        agreement=judged.objective.agreement(a, b) if alike else None,
        a_bytes=sides[0].size_bytes,
        b_bytes=sides[1].size_bytes,
        speed=timed([side.answer for side in sides], judged.inputs, request.calls) if request.calls else None,
        findings=judged.findings,
        examples=_examples(judged, answers) if rows.kind not in ("embedding", "number") else (),
    )


def _answered(side: Side, judged: JudgedRows, progress: Progress, label: str) -> list[Any]:
    answers = []
    for done, given in enumerate(judged.inputs, start=1):
        answers.append(side.answer(given))
        progress.advance(done, len(judged.inputs), f"answers of {label}")
    return answers


def _examples(judged: JudgedRows, answers: Sequence[Sequence[Any]]) -> tuple[Example, ...]:
    differing = [place for place, pair in enumerate(zip(*answers, strict=True)) if pair[0] != pair[1]]
    return tuple(
        Example(as_line(judged.inputs[place]), judged.rows.words[place], str(answers[0][place]), str(answers[1][place]))
        for place in differing[:MOST_EXAMPLES]
    )
