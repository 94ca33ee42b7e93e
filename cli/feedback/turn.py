"""One turn of the loop: people's corrections join the data, a bundle is built, and takes the old one's place if better.

Both bundles answer the same held-out rows, one by one as they are served; the verdict is paired. Nothing is replaced
before the new bundle is whole, and the old one is kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edgetune.benchmarks.prove.statistics import paired_loss
from edgetune.feedback.held import TurnRows, earlier_corrections, keep_corrections, turn_rows
from edgetune.feedback.rows import labelled_rows
from edgetune.once.plan import load_data
from edgetune.once.recipe import OnceRecipe
from edgetune.pipeline import build
from edgetune.progress import StageLines
from edgetune.recipe import Recipe, read_recipe
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import GateError, InputError, RecipeError, WorkError
from edgetune.serve.feedback.reading import Feedback
from edgetune.serve.heads.label import Prediction
from edgetune.serve.predictor import Predictor
from edgetune.tune.data.rows import Input
from edgetune.tune.metrics import ACCURACY
from edgetune.tune.models.base import find_base
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.task import Task
from edgetune.writing import write_text

CONFIDENCE = 0.95
_KEPT_KEYS = (
    "clean",
    "unlabeled",
    "out_of_scope",
    "augment",
)  # of the recipe's data section; the rest says where rows are
REPLACED, KEPT, FAILED, NOTHING = "replaced", "kept", "gate not passed", "nothing new"


class Judgement(msgspec.Struct, frozen=True):
    """Both bundles on the same rows: accuracies, their difference with its 95% interval, and rows that only one has
    right."""

    rows: int
    old: float
    new: float
    gain: float
    ci95: tuple[float, float]
    only_old: int
    only_new: int


class TurnReport(msgspec.Struct, frozen=True):
    """What a turn did.

    Attributes:
        turn: its number, from 1.
        outcome: replaced, kept, gate not passed, or nothing new.
        reason: why, in a sentence.
        bundle: the folder of the bundle; `previous` that of the one that it replaced.
        corrections, new, relabelled, added: as `TurnRows` has them.
        judgement: of both bundles; None where none was built.
    """

    turn: int
    time: str
    outcome: str
    reason: str
    bundle: str
    previous: str | None
    corrections: int
    new: int
    relabelled: int
    added: int
    disputed: int
    judgement: Judgement | None = None


@dataclass(frozen=True)
class Place:
    """Where the bundle of a recipe is, and what the loop keeps beside it."""

    out: Path

    @property
    def folder(self) -> Path:
        """Rows, reports and builds of the turns."""
        return self.out.with_name(f"{self.out.name}.loop")

    @property
    def previous(self) -> Path:
        """The bundle that was replaced last."""
        return self.out.with_name(f"{self.out.name}.previous")

    @property
    def built(self) -> Path:
        """Where a turn builds: a bundle has the name of its folder."""
        return self.folder / self.out.name

    @property
    def turns(self) -> int:
        """How many turns there were."""
        return len(list(self.folder.glob("turn-*.json")))

    def recover(self) -> None:
        """Put the old bundle back that a turn was stopped from replacing, between the two renames."""
        if not self.out.exists() and self.previous.is_dir():
            self.previous.rename(self.out)

    def replace(self) -> None:
        """Put the bundle that was built in the place of the old one, which is kept.

        Raises:
            WorkError: the disk does not let it.
        """
        try:
            shutil.rmtree(self.previous, ignore_errors=True)
            self.out.rename(self.previous)
            self.built.rename(self.out)
        except OSError as error:
            self.recover()
            raise WorkError(
                f"{self.out} cannot be replaced: {error.strerror or error}.",
                expected="a folder that this user may write to",
                action=f"the new bundle is in {self.built}",
            ) from error


def take_turn(
    path: Path | None, overrides: Mapping[str, Any], feedback: Feedback, lines: StageLines, accept: str, command: str
) -> TurnReport:
    """Take one turn; its report is written to `<out>.loop/turn-N.json` too.

    Args:
        path: the recipe.
        overrides: values that lie over it, by dotted path.
        feedback: what people said.
        lines: where the stages of the build are shown.
        accept: "better", where the interval of the gain must lie above 0; or "not-worse", where it must not reach below
            minus the gate's `max_drop`.
        command: the command line, for the report of the build.

    Raises:
        InputError: the recipe has no bundle yet, or the feedback has no label.
        RecipeError: the recipe's task has no labels to correct.
        EdgetuneError: any that a build raises, but for a gate that was not passed, which the report tells.
    """
    recipe, _ = read_recipe(path, overrides)
    place = Place(Path(recipe.out))
    place.recover()
    recipe = _checked(recipe, place)
    given = labelled_rows(feedback)
    earlier = earlier_corrections(place.folder)
    dataset = load_data(recipe, find_base(recipe.base, allow_pickle=recipe.tune.allow_pickle))
    rows = turn_rows(dataset, earlier, given.rows)
    report = TurnReport(
        turn=place.turns + 1,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
        outcome=NOTHING,
        reason="No label was corrected since the last turn.",
        bundle=str(place.out),
        previous=None,
        corrections=len(rows.corrections),
        new=rows.new,
        relabelled=rows.relabelled,
        added=rows.added,
        disputed=given.disputed,
    )
    if not rows.new:
        return report
    report = _built(recipe, place, rows, report, lines, accept=accept, command=command)
    keep_corrections(place.folder, rows)
    write_text(
        place.folder / f"turn-{report.turn}.json",
        msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n",
        option="--out",
    )
    return report


def _built(
    recipe: OnceRecipe,
    place: Place,
    rows: TurnRows,
    report: TurnReport,
    lines: StageLines,
    *,
    accept: str,
    command: str,
) -> TurnReport:
    values = recipe.model_dump(mode="json", exclude_unset=True)
    data = {name: value for name, value in values["data"].items() if name in _KEPT_KEYS}
    values |= {"data": {**data, **rows.write(place.folder / "data")}, "out": str(place.built), "task": recipe.task}
    turned, _ = read_recipe(None, values)
    try:
        build(turned, lines, command=command)
    except GateError as error:
        return msgspec.structs.replace(report, outcome=FAILED, reason=str(error).replace("\n", " "))
    judgement = judge(place.out, place.built, rows)
    reason = _reason(judgement, accept, recipe.gate.max_drop)
    if reason:
        return msgspec.structs.replace(report, outcome=KEPT, reason=reason, judgement=judgement)
    place.replace()
    return msgspec.structs.replace(
        report,
        outcome=REPLACED,
        reason="The new bundle is better." if judgement.ci95[0] > 0 else "The new bundle is not worse.",
        previous=str(place.previous),
        judgement=judgement,
    )


def judge(old: Path, new: Path, rows: TurnRows) -> Judgement:
    """Both bundles on the test rows, or the validation rows where there are no test rows, one by one."""
    held = list(rows.parts["test"] or rows.parts["validation"])
    texts: list[Input] = [(row["text"], row["text_pair"]) if "text_pair" in row else row["text"] for row in held]
    expected = [row["label"] for row in held]
    right = {folder: _right(folder, texts, expected) for folder in (old, new)}
    ones = np.ones(len(held))
    statistics = {folder: np.stack([values, ones], axis=1) for folder, values in right.items()}
    paired = paired_loss(ACCURACY, statistics[old], statistics[new], CONFIDENCE)
    low, high = paired.interval
    return Judgement(
        rows=len(held),
        old=float(right[old].mean()),
        new=float(right[new].mean()),
        gain=-paired.loss,
        ci95=(-high, -low),
        only_old=int((right[old] > right[new]).sum()),
        only_new=int((right[new] > right[old]).sum()),
    )


def _right(folder: Path, texts: list[Input], expected: list[str]) -> Any:
    """Whether a bundle has each row right: (rows,) float64 of 0 and 1."""
    with Predictor(Bundle.open(folder)) as predictor:
        answers = [predictor.predict_one(text) for text in texts]
    labels = [answer.label if isinstance(answer, Prediction) else None for answer in answers]
    return np.array([label == right for label, right in zip(labels, expected, strict=True)], dtype=np.float64)


def _reason(judgement: Judgement, accept: str, max_drop: float) -> str:
    """Why the old bundle stays; empty where the new one takes its place."""
    low = judgement.ci95[0]
    if accept == "better" and low <= 0:
        return f"The new bundle is not proven to be better: its gain may be {100 * low:+.1f} points."
    if accept == "not-worse" and low < -max_drop:
        return f"The new bundle may be worse: its gain may be {100 * low:+.1f} points, below {-100 * max_drop:+.1f}."
    return ""


def _checked(recipe: Recipe, place: Place) -> OnceRecipe:
    if not isinstance(recipe, OnceRecipe) or not _is_corrected_by_labels(TASKS[recipe.task]):
        correctable = [name for name, task in TASKS.items() if _is_corrected_by_labels(task)]
        raise RecipeError(
            f"The recipe's task is {recipe.task}.",
            expected=f"one whose labels people correct: {', '.join(correctable)}",
            action="write its rows with edgetune feedback export, build with them, and compare the bundles",
        )
    if not place.out.is_dir():
        raise InputError(
            f"There is no bundle {place.out} to be better than.",
            expected="the bundle of this recipe, which was served",
            action="build it first: edgetune build RECIPE",
        )
    Bundle.open(place.out)
    return recipe


def _is_corrected_by_labels(task: Task) -> bool:
    """Whether a text has one label, which a person can put right."""
    return task.has_labels and task.one_label and task.reads_text and not task.per_token
