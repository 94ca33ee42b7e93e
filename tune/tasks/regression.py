"""Regression: a number for each text, learnt on standardized targets and answered in the user's own units."""

from __future__ import annotations

import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import counted, title
from edgetune.tune.data.column_names import is_side_name
from edgetune.tune.data.columns import Columns, choose_columns
from edgetune.tune.data.rows import Target
from edgetune.tune.metrics import MAE, RMSE, Metric
from edgetune.tune.tasks.objective import FloatArray, Head, HeldOut, Objective
from edgetune.tune.tasks.task import Guess, Summary, Task, possible_targets

if TYPE_CHECKING:
    import torch

    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.data.reading import Table
    from edgetune.tune.data.rows import Parts

# Ridge regression on features of unit variance: its penalty is the inverse of these.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
STRATA = 10  # parts get their share of rows from each tenth of the numbers' range
COLUMN_NAMES = ("score", "similarity", "similarity_score", "rating", "value", "stars", "target", "relevance", "grade")
_COMMA, _GROUPED = re.compile(r"[+-]?\d+,\d+"), re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
# Numbers with more kinds than this, most of them no whole ones, are no names of classes.
FEWEST_NUMBERS = 20


@dataclass(frozen=True)
class Number(Objective):
    """A number for each row.

    Attributes:
        mean, spread: of the training part; what is learnt is (number - mean) / spread.
    """

    mean: float
    spread: float

    @property
    def width(self) -> int:
        return 1

    def configure(self, config: Any) -> None:
        config.num_labels = 1
        config.id2label = {0: "LABEL_0"}
        config.label2id = {"LABEL_0": 0}
        config.problem_type = "regression"

    def expected(self, targets: Sequence[Target]) -> NDArray[np.float64]:
        return np.asarray(targets, dtype=np.float64)

    def constants(self, expected: NDArray[Any]) -> NDArray[np.float64]:
        """The median, which is best by MAE, and the mean, which is best by RMSE."""
        return np.asarray([np.median(expected), np.mean(expected)])

    def learnt(self, targets: Sequence[Target]) -> NDArray[np.float32]:
        return ((self.expected(targets) - self.mean) / self.spread).astype(np.float32)

    def restored(self, learnt: NDArray[Any]) -> NDArray[np.float64]:
        return learnt.astype(np.float64) * self.spread + self.mean

    def answers(self, logits: FloatArray) -> NDArray[np.float64]:
        return logits[:, 0].astype(np.float64) * self.spread + self.mean

    def loss(self, logits: torch.Tensor, learnt: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        from torch.nn import functional

        return functional.mse_loss(logits[:, 0], learnt, reduction="sum")

    def imitation(self, logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Mean squared difference in units of the training part's variance; a number has no temperature."""
        from torch.nn import functional

        return functional.mse_loss(logits, teacher) / self.spread**2

    @property
    def strengths(self) -> tuple[float, ...]:
        return STRENGTHS

    def solver(self, *, balanced: bool) -> RidgeSolver:
        return RidgeSolver()

    def linear_head(self, features: Any, learnt: NDArray[Any]) -> Head:
        """Ridge regression with scikit-learn's strength, 1."""
        from sklearn.linear_model import Ridge

        model = Ridge(alpha=1.0, solver="sparse_cg").fit(features, learnt)
        return Head(model.coef_.reshape(1, -1).astype(np.float32), np.atleast_1d(model.intercept_).astype(np.float32))

    def finish(self, head: torch.nn.Linear) -> None:
        import torch

        with torch.no_grad():
            head.weight.mul_(self.spread)
            head.bias.mul_(self.spread).add_(self.mean)

    def finished(self, head: Head) -> Head:
        return Head(head.weight * np.float32(self.spread), head.bias * np.float32(self.spread) + np.float32(self.mean))

    def unfinished(self, outputs: FloatArray) -> FloatArray:
        return (outputs - np.float32(self.mean)) / np.float32(self.spread)

    def in_units(self) -> Number:
        return Number(self.labels, self.metric, 0.0, 1.0)

    def head_spec(self, held_out: HeldOut) -> HeadSpec:
        return HeadSpec(kind="number")

    def agreement(self, answers: NDArray[Any], others: NDArray[Any]) -> float:
        """Of numbers, which are hardly ever equal: one minus the squared distance as a share of the variance."""
        variance = float(np.var(others))
        return max(0.0, 1 - float(np.mean(np.square(answers - others))) / variance) if variance else 0.0

    def figures(self, expected: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        """Spearman's rank correlation and the coefficient of determination; 0 for answers that are all the same."""
        from scipy import stats

        constant = np.ptp(answers) == 0 or np.ptp(expected) == 0
        rank = 0.0 if constant else float(stats.spearmanr(expected, answers).statistic)
        variance = float(np.var(expected))
        return {"spearman": rank, "r2": 1 - RMSE.of(expected, answers) ** 2 / variance if variance else 0.0}


class RidgeSolver:
    """Ridge regression in closed form (Hoerl and Kennard 1970)."""

    def solve(self, features: FloatArray, learnt: NDArray[Any], strength: float) -> Head:
        from sklearn.linear_model import Ridge

        model = Ridge(alpha=1 / strength).fit(features, learnt)
        return Head(model.coef_.reshape(1, -1), np.atleast_1d(model.intercept_))


class TextRegression(Task):
    """A number for a text."""

    name: ClassVar[str] = "text-regression"
    kind: ClassVar[str] = "number"
    summary: ClassVar[str] = "A number for a text."
    has_labels: ClassVar[bool] = False
    one_label: ClassVar[bool] = False
    stratum: ClassVar[str] = "tenths of the numbers"
    metrics: ClassVar[tuple[Metric, ...]] = (MAE, RMSE)

    def recognises(self, columns: Mapping[str, Sequence[Any]], section: Mapping[str, Any]) -> Guess:
        """A column of many different numbers, most of them with a fraction."""
        targets = possible_targets(columns, section)
        name = next((name for name, cells in targets.items() if _are_measures(cells)), None)
        return Guess(0.8, f"the column {name!r} holds numbers with a fraction") if name else Guess()

    def choose_columns(self, table: Table, recipe: DataRecipe) -> Columns:
        self._refuse_keys(recipe, "text_pair", "separator", "image")
        number = self._number_column(table, recipe)
        columns = choose_columns(table, recipe.text, number)
        if recipe.label is not None or number is None:
            return columns
        return replace(columns, findings=(*columns.findings, f"Number column {number!r} was guessed."))

    def _number_column(self, table: Table, recipe: DataRecipe) -> str | None:
        """The column that is named, else one with a usual name, else the only one of many different numbers."""
        if recipe.label is not None:
            return self._one_column(recipe)
        rest = {name: cells for name, cells in table.columns.items() if name not in (recipe.text, recipe.text_pair)}
        usual = {name.casefold(): name for name in rest}
        named = next((usual[name] for name in COLUMN_NAMES if name in usual), None)
        measures = [name for name, cells in rest.items() if _are_measures(cells)]
        measures = [name for name in measures if not is_side_name(name)] or measures
        return named or (measures[0] if len(measures) == 1 else None)

    def labels(self, parts: Parts, source: str, order: Sequence[str] | None) -> tuple[str, ...]:
        for name, rows in parts.given.items():
            wrong = [place for place, word in enumerate(rows.labels) if _number(word) is None]
            if wrong:
                raise DataError(
                    f"{counted(len(wrong), 'row')} of the {title(name)} of {source} with a target that is no finite "
                    f"number, such as {rows.labels[wrong[0]]!r:.60}.",
                    expected="a number such as 1500 or 0.5 in every row, without marks between thousands.",
                    action="mend or remove these rows, name another column with --set data.label=..., or choose "
                    "another --task.",
                )
        numbers = {_number(word) for word in parts.train.labels}
        if len(numbers) < 2:
            raise DataError(
                f"All {counted(len(parts.train), 'row')} of {source} have the same number.",
                expected="numbers that differ.",
                action="name the column of numbers with --set data.label=...",
            )
        return ()

    def target(self, word: str, labels: Mapping[str, int]) -> float:
        number = _number(word)
        assert number is not None  # `labels` has refused such rows
        return number

    def strata(self, targets: Sequence[Target]) -> list[Hashable]:
        numbers = np.asarray(targets, dtype=np.float64)
        ranges = min(STRATA, max(1, len(numbers) // 2))  # of one row each none could be held out
        edges = np.quantile(numbers, np.linspace(0, 1, ranges + 1)[1:-1])
        return [int(place) for place in np.searchsorted(np.unique(edges), numbers, side="right")]

    def describe(self, labels: Sequence[str], targets: Sequence[Target]) -> Summary:
        numbers = np.asarray(targets, dtype=np.float64)
        least, mean, most = (float(number) for number in (numbers.min(), numbers.mean(), numbers.max()))
        sentence = f"Numbers from {least:g} to {most:g}, {mean:.4g} on average."
        return Summary(sentence, {"numbers": {"least": least, "mean": mean, "most": most}})

    def objective(self, labels: Sequence[str], metric: str, targets: Sequence[Target]) -> Number:
        numbers = np.asarray(targets, dtype=np.float64)
        return Number((), self.metric(metric), float(numbers.mean()), float(numbers.std()) or 1.0)


def _are_measures(cells: Sequence[Any]) -> bool:
    """Whether cells are many different numbers, most of them with a fraction: no names of classes, and no row ids."""
    numbers = [_number(str(cell)) for cell in cells if cell not in (None, "")]
    valid = [number for number in numbers if number is not None]
    broken = sum(not number.is_integer() for number in valid)
    return len(valid) == len(numbers) and len(set(valid)) >= FEWEST_NUMBERS and broken * 2 > len(valid)


def _number(word: str) -> float | None:
    """The finite number that a word stands for, a decimal comma allowed; 1,500 may be two numbers and so is none."""
    text = word.strip()
    if _COMMA.fullmatch(text) and not _GROUPED.fullmatch(text):
        text = text.replace(",", ".")
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) and "_" not in text else None
