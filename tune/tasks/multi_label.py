"""Multi-label classification: any number of labels for each text, each by a sigmoid and a threshold of its own."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import DataError
from edgetune.tune.data.classes import check_unseen, ordered_labels
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.columns import Columns, choose_columns, require_column
from edgetune.tune.data.dialect import NUMBER
from edgetune.tune.data.list_cells import are_lists_of_one, list_of
from edgetune.tune.data.rows import Target
from edgetune.tune.metrics import LABEL_MACRO_F1, LABEL_MICRO_F1, SUBSET_ACCURACY, Metric
from edgetune.tune.tasks.objective import FloatArray, Head, HeldOut, LabelObjective, label_qualities, support_vectors
from edgetune.tune.tasks.task import Guess, Summary, Task, describe_labels, possible_targets

if TYPE_CHECKING:
    import torch

    from edgetune.serve.report import ClassQuality
    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.data.reading import Table
    from edgetune.tune.data.rows import Parts

SEPARATORS = ("|", ";", ",")  # in the order in which they are looked for
COLUMN_NAMES = ("labels", "tags", "categories", "topics", "genres", "emotions")
# A threshold chosen on fewer rows of a label than this says more of the rows than of the label: it stays at a half.
FEWEST_ROWS = 8
# The most frequent labels that are tried as one constant answer, beside all labels.
MOST_CONSTANT = 16
# The logit of a label that all training rows have, and minus that of one that none has.
ALWAYS = 10.0
_FLAGS = {"0": False, "1": True, "false": False, "true": True, "": False}


@dataclass(frozen=True)
class SeveralLabels(LabelObjective):
    """Any of the labels for each row; targets are their numbers, ascending."""

    problem_type: ClassVar[str] = "multi_label_classification"

    def expected(self, targets: Sequence[Target]) -> NDArray[np.bool_]:
        hot = np.zeros((len(targets), self.width), dtype=bool)
        for row, places in enumerate(targets):
            hot[row, list(places)] = True  # type: ignore[arg-type]
        return hot

    def learnt(self, targets: Sequence[Target]) -> NDArray[np.float32]:
        return self.expected(targets).astype(np.float32)

    def restored(self, learnt: NDArray[Any]) -> NDArray[np.bool_]:
        return np.asarray(learnt > 0.5)

    def answers(self, logits: FloatArray) -> NDArray[np.bool_]:
        """While a model learns, every label from a probability of a half."""
        return np.asarray(logits >= 0)

    def constants(self, expected: NDArray[Any]) -> NDArray[np.bool_]:
        """The most frequent set of labels, the few most frequent labels together, and all labels."""
        sets, counts = np.unique(expected, axis=0, return_counts=True)
        ranked = np.argsort(-expected.sum(axis=0), kind="stable")
        sizes = [*range(1, min(MOST_CONSTANT, self.width) + 1), self.width]
        together = np.zeros((len(sizes), self.width), dtype=bool)
        for row, size in enumerate(sizes):
            together[row, ranked[:size]] = True
        return np.concatenate([sets[[counts.argmax()]], together])

    def weights(self, targets: Sequence[Target]) -> tuple[float, ...]:
        """Of the rows that have a label: those that have not, as a share of them, between 1 and 100."""
        with_label = self.expected(targets).sum(axis=0)
        weights: list[float] = np.clip((len(targets) - with_label) / np.maximum(with_label, 1), 1, 100).tolist()
        return tuple(weights)

    def loss(self, logits: torch.Tensor, learnt: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        from torch.nn import functional

        total = functional.binary_cross_entropy_with_logits(logits, learnt, pos_weight=weights, reduction="sum")
        return total / self.width

    def imitation(self, logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        """Divergence of the softened probabilities of each label, summed over the labels, times temperature squared."""
        from torch.nn import functional

        wanted = (teacher / temperature).sigmoid()
        cross = functional.binary_cross_entropy_with_logits(logits / temperature, wanted, reduction="none")
        own = functional.binary_cross_entropy_with_logits(teacher / temperature, wanted, reduction="none")
        return (cross - own).sum(dim=-1).mean() * temperature**2

    def solver(self, *, balanced: bool) -> OneVersusRest:
        return OneVersusRest(self.width, balanced=balanced)

    def linear_head(self, features: Any, learnt: NDArray[Any]) -> Head:
        weight = np.zeros((self.width, features.shape[1]), dtype=np.float32)
        bias = np.where(learnt.mean(axis=0) > 0.5, ALWAYS, -ALWAYS).astype(np.float32)
        for place in range(self.width):
            head = support_vectors(features, learnt[:, place] > 0.5)
            if len(head.bias):  # some rows have the label and some have not
                weight[place], bias[place] = head.weight[0], head.bias[0]
        return Head(weight, bias)

    def head_spec(self, held_out: HeldOut) -> HeadSpec:
        """Each label's threshold is the probability that gives it the highest F1 on the held-out rows."""
        expected, logits = held_out()
        probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
        thresholds = [best_threshold(expected[:, place], probabilities[:, place]) for place in range(self.width)]
        return HeadSpec(kind="labels", labels=list(self.labels), thresholds=thresholds)

    def classes(self, expected: NDArray[Any], answers: NDArray[Any]) -> list[ClassQuality]:
        return label_qualities(expected, answers, self.labels)


def best_threshold(expected: NDArray[np.bool_], probabilities: NDArray[np.float64]) -> float:
    """The probability from which a label is best given: the highest F1, at a tie the nearest to a half.

    Args:
        expected: whether each row has the label, (rows,) bool.
        probabilities: (rows,) float64.

    Returns:
        A number in the middle between two rows' probabilities; 0.5 where fewer than `FEWEST_ROWS` rows have the label.
    """
    if expected.sum() < FEWEST_ROWS:
        return 0.5
    order = np.argsort(-probabilities, kind="stable")
    ranked, right = probabilities[order], np.cumsum(expected[order])
    given = np.arange(1, len(order) + 1)
    f1 = 2 * right / (given + expected.sum())
    below = np.append(ranked[1:], 0.0)
    cuts = (ranked + below) / 2
    possible = np.flatnonzero(ranked > below)  # rows of the same probability are given together
    best = possible[f1[possible] >= f1[possible].max() - 1e-12]
    return round(float(cuts[best[np.argmin(np.abs(cuts[best] - 0.5))]]), 6)


class OneVersusRest:
    """A logistic regression a label, all solved at once by L-BFGS (Byrd et al. 1995), warm from fit to fit."""

    def __init__(self, width: int, *, balanced: bool) -> None:
        self._width, self._balanced = width, balanced
        self._before: NDArray[np.float64] | None = None

    def solve(self, features: FloatArray, learnt: NDArray[Any], strength: float) -> Head:
        """The head that minimizes strength times the sum of cross-entropies plus half the weights' squared norm."""
        from scipy.optimize import minimize

        inputs = np.concatenate([features, np.ones((len(features), 1), dtype=np.float32)], axis=1)
        weights = np.ones_like(learnt)
        if self._balanced:
            share = np.clip(learnt.mean(axis=0), 1e-3, 1 - 1e-3)
            weights = np.where(learnt > 0, 0.5 / share, 0.5 / (1 - share)).astype(np.float32)

        def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            weight = flat.reshape(self._width, -1)
            logits = inputs @ weight.T.astype(np.float32)
            away = (1 / (1 + np.exp(-logits)) - learnt) * weights
            cross = ((np.logaddexp(0, logits) - learnt * logits) * weights).sum(dtype=np.float64)
            gradient = strength * (away.T @ inputs).astype(np.float64)
            gradient[:, :-1] += weight[:, :-1]
            return strength * float(cross) + 0.5 * float(np.square(weight[:, :-1]).sum()), gradient.ravel()

        start = self._before if self._before is not None else np.zeros(self._width * inputs.shape[1])
        self._before = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 300}).x
        solved = self._before.reshape(self._width, -1)
        return Head(solved[:, :-1].astype(np.float32), solved[:, -1].astype(np.float32))


class MultiLabelClassification(Task):
    """Any number of labels for a text; in clean rows a word is the JSON list of a row's labels."""

    name: ClassVar[str] = "multi-label-classification"
    kind: ClassVar[str] = "labels"
    summary: ClassVar[str] = "Any number of labels for a text."
    stratum: ClassVar[str] = "rarest label"
    one_label: ClassVar[bool] = False
    metrics: ClassVar[tuple[Metric, ...]] = (LABEL_MICRO_F1, LABEL_MACRO_F1, SUBSET_ACCURACY)

    def recognises(self, columns: Mapping[str, Sequence[Any]], section: Mapping[str, Any]) -> Guess:
        """Lists in a column's cells, separators in one that is called labels or tags, or several columns of 0 and 1."""
        for key in ("separator", "label"):
            if isinstance(section.get(key), list if key == "label" else str):
                return Guess(1.0, f"data.{key} speaks of several labels")
        targets = possible_targets(columns, section)
        for name, cells in targets.items():
            if _are_lists(cells) and not are_lists_of_one(cells):
                return Guess(0.9, f"the column {name!r} holds lists of labels")
            if name.casefold() in COLUMN_NAMES and (separator := _separator_of(cells)):
                return Guess(0.8, f"the column {name!r} holds labels with {separator!r} between them")
        flags = _flag_columns(targets)
        return Guess(0.8, f"the columns {_listed(flags)} hold 0 and 1 alone") if flags else Guess()

    def choose_columns(self, table: Table, recipe: DataRecipe) -> Columns:
        self._refuse_keys(recipe, "text_pair", "image")
        if isinstance(recipe.label, list):
            for name in recipe.label:
                require_column(table, name, "label")
            rest = replace(table, columns={n: c for n, c in table.columns.items() if n not in recipe.label[1:]})
            columns = choose_columns(rest, recipe.text, recipe.label[0])
            return replace(columns, labels=tuple(recipe.label))
        usual = {name.casefold(): name for name in table.columns if name != recipe.text}
        if recipe.label is None and (flags := _flag_columns(possible_targets(table.columns, {"text": recipe.text}))):
            columns = self.choose_columns(table, recipe.model_copy(update={"label": list(flags)}))
            note = f"The columns {_listed(flags)} were taken for labels: they hold 0 and 1 alone."
            return replace(columns, findings=(*columns.findings, note))
        label = recipe.label or next((usual[name] for name in COLUMN_NAMES if name in usual), None)
        columns = choose_columns(table, recipe.text, label)
        if recipe.label is None:
            columns = replace(columns, findings=(*columns.findings, f"Labels are read from {columns.labels[0]!r}."))
        return self._with_separator(columns, table, recipe)

    def _with_separator(self, columns: Columns, table: Table, recipe: DataRecipe) -> Columns:
        cells = table.columns[columns.labels[0]]
        if blank := sum(not cell.strip() for cell in cells):
            note = f"{counted(blank, 'row')} with nothing in the column {columns.labels[0]!r}: taken for no label."
            columns = replace(columns, findings=(*columns.findings, note))
        if recipe.separator is not None or any(list_of(cell) for cell in cells):
            return replace(columns, separator=recipe.separator or "")
        separator = _separator_of(cells)
        if not separator:
            return columns
        note = f"Labels in the column {columns.labels[0]!r} are separated by {separator!r}: guessed (data.separator)."
        return replace(columns, separator=separator, findings=(*columns.findings, note))

    def read_words(self, table: Table, columns: Columns) -> tuple[str, ...]:
        if len(columns.labels) > 1:
            return tuple(_flagged(table, columns.labels))
        cells = table.columns[columns.labels[0]]
        _check_lists(table, columns.labels[0])
        return tuple(json.dumps(sorted(set(_labels_of(cell, columns.separator))), ensure_ascii=False) for cell in cells)

    def labels(self, parts: Parts, source: str, order: Sequence[str] | None) -> tuple[str, ...]:
        counts = Counter(label for word in parts.train.labels for label in _labels_of(word, ""))
        if not counts:
            raise DataError(
                f"None of the {counted(len(parts.train), 'row')} of {source} has a label.",
                expected='rows with a list of labels, such as ["billing", "refund"] or billing|refund.',
                action="name the label column with --set data.label=...",
            )
        for name in ("validation", "test"):
            if rows := parts.given.get(name):
                check_unseen(name, (label for word in rows.labels for label in _labels_of(word, "")), counts)
        few = sorted(label for label, count in counts.items() if count < 2)
        if 2 * len(few) > len(counts) and not (parts.validation and parts.test):
            raise DataError(
                f"{counted(len(few), 'label')} of the {len(counts):,} of {source} with fewer than two rows: "
                f"{', '.join(map(repr, few[:10]))}.",
                expected="at least two different rows for half of the labels: one to learn from, one to judge by.",
                action="add rows of these labels, or remove the labels.",
            )
        return ordered_labels(set(counts), order)

    def target(self, word: str, labels: Mapping[str, int]) -> tuple[int, ...]:
        return tuple(sorted(labels[label] for label in _labels_of(word, "")))

    def strata(self, targets: Sequence[Target]) -> list[Hashable]:
        """Each row counts as its rarest label, so that every part gets rows of rare labels; without labels as -1."""
        counts = Counter(place for places in targets for place in places)  # type: ignore[union-attr]
        return [min(places, key=lambda place: (counts[place], place), default=-1) for places in targets]  # type: ignore[arg-type]

    def describe(self, labels: Sequence[str], targets: Sequence[Target]) -> Summary:
        counts = Counter(labels[place] for target in targets for place in self.places(target))
        summary = describe_labels(counts, "labels")
        mean, without = sum(counts.values()) / len(targets), sum(not places for places in targets)
        more = f" A row has {mean:.2f} of them on average; {counted(without, 'row')} without any."
        return Summary(summary.finding + more, {**summary.facts, "labels_per_row": mean, "rows_without": without})

    def objective(self, labels: Sequence[str], metric: str, targets: Sequence[Target]) -> SeveralLabels:
        return SeveralLabels(tuple(labels), self.metric(metric))


def _labels_of(cell: str, separator: str) -> list[str]:
    """The labels in a cell: a list, or words between separators."""
    listed = list_of(cell)
    if listed is not None:
        return [str(label).strip() for label in listed if str(label).strip()]
    parts = re.split(re.escape(separator), cell) if separator else [cell]
    return [part.strip() for part in parts if part.strip()]


def _check_lists(table: Table, name: str) -> None:
    """Refuse a column in which a list is broken, or holds anything but labels.

    Raises:
        DataError: naming the first such row.
    """
    cells = table.columns[name]
    lists = [list_of(cell) for cell in cells]
    are_lists = any(listed is not None for listed in lists)
    for row, (cell, listed) in enumerate(zip(cells, lists, strict=True), start=1):
        text = cell.strip()
        broken = listed is None and text.startswith("[") and (are_lists or text.endswith("]"))
        if broken or any(not isinstance(label, (str, int, float)) for label in listed or ()):
            raise DataError(
                f"{table.source}, row {row}: the column {name!r} holds {cell!r:.60}.",
                expected='a list of labels, such as ["billing", "refund"].',
                action="mend the row, or write the labels with a separator between them: billing|refund.",
            )


def _separator_of(cells: Sequence[Any]) -> str:
    """What stands between labels that come again and again; "" where nothing does."""
    words = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    for mark in SEPARATORS:
        parts = Counter(part.strip() for word in words for part in word.split(mark))
        if any(mark in word for word in words) and 2 * len(parts) <= max(sum(parts.values()), 4):
            return mark
    return ""


def _are_lists(cells: Sequence[Any]) -> bool:
    """Whether most cells are lists of labels, in JSON or read from it."""
    lists = [cell for cell in cells if isinstance(cell, list) or list_of(str(cell)) is not None]
    return len(lists) * 2 > len(cells) and all(_is_word_list(cell) for cell in lists)


def _is_word_list(cell: Any) -> bool:
    listed = cell if isinstance(cell, list) else list_of(cell)
    return listed is not None and all(isinstance(label, (str, int)) for label in listed)


def _flag_columns(columns: Mapping[str, Sequence[Any]]) -> tuple[str, ...]:
    """The columns of flags, one a label; none where fewer than two hold both 0 and 1 and nothing else, or where they
    stand beside a column of words that come again, which is rather the label."""
    kinds = {name: {str(cell).strip().casefold() for cell in cells} for name, cells in columns.items()}
    flags = tuple(name for name, values in kinds.items() if values in ({"0", "1"}, {"false", "true"}))
    repeating = [name for name, values in kinds.items() if 2 <= len(values) <= len(columns[name]) // 2]
    words = [name for name in repeating if not all(NUMBER.fullmatch(value) for value in kinds[name])]
    return flags if len(flags) > 1 and set(words) <= set(flags) else ()


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:5]))
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _flagged(table: Table, names: Sequence[str]) -> Iterator[str]:
    """The labels of each row, of columns of flags, one a label."""
    for row in range(len(table)):
        labels = []
        for name in names:
            cell = table.columns[name][row].strip().casefold()
            if cell not in _FLAGS:
                raise DataError(
                    f"{table.source}, row {row + 1}: the column {name!r} holds {table.columns[name][row]!r:.60}.",
                    expected="0 or 1 in every column that stands for a label.",
                    action="name only columns of 0 and 1 in data.label.",
                )
            labels += [name] if _FLAGS[cell] else []
        yield json.dumps(sorted(labels), ensure_ascii=False)
