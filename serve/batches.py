"""Tables that are answered batch by batch, column in and columns out: for Ray Data's `map_batches` and its like.

An object of `BatchAnswers` opens its bundle where it is used, once for each process. Needs neither Ray nor pandas.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs import json_input
from edgetune.serve.errors import InputError
from edgetune.serve.loading import load

Batch = Mapping[str, NDArray[Any] | Sequence[Any]]


class BatchAnswers:
    """Adds a bundle's answers to batches of columns.

    Attributes:
        predictor: what answers.
        columns: the columns that texts are read from, one for each text of an input.
    """

    def __init__(
        self,
        bundle: str,
        *,
        columns: Sequence[str] = (),
        prefix: str = "predicted_",
        threads: int | None = 1,
        provider: str = "auto",
    ) -> None:
        """Open the bundle.

        Args:
            bundle: its folder, which every machine that answers can read.
            columns: where the texts are; none takes those of the training data that the bundle names.
            prefix: begins the names of the columns that are added, so that a column of true labels stays.
            threads: of one run; one where a cluster counts a processor for each process.
            provider: as for `load`.

        Raises:
            InputError: another number of columns than an input has texts, or none where the bundle names none.
            BundleError, ProviderError, MissingDependency: as `load` does.
        """
        self.predictor = load(bundle, threads=threads, provider=provider)
        parts = self.predictor.codec.parts
        named = [columns] if isinstance(columns, str) else list(columns)
        self.columns = tuple(named or self.predictor.bundle.manifest.columns)
        if len(self.columns) != len(parts):
            raise InputError(
                f"{len(self.columns)} columns are named for {' and '.join(parts)}.",
                expected=f"one for each of {len(parts)}",
                action="name them: BatchAnswers(bundle, columns=[...])",
            )
        self._prefix = prefix
        self._members = [name for name in self.predictor.head.blank if name != "scores"]
        self._members += [] if self.predictor.small is None else ["answered_by"]

    def __call__(self, batch: Batch) -> dict[str, Any]:
        """The batch with a column for each member of an answer: label and score, labels, or value; truncated; and of a
        cascade answered_by.

        Rows of which a text is missing or blank get None.

        Args:
            batch: columns by name, each (rows,).

        Raises:
            InputError: a column is not there, one to be added is there already, or a text is no text.
        """
        added = [self._prefix + name for name in self._members]
        if missing := [name for name in self.columns if name not in batch]:
            raise InputError(
                f"The batch has no column {missing[0]!r}; its columns are {', '.join(map(repr, batch))}.",
                action="name the right ones: BatchAnswers(bundle, columns=[...])",
            )
        if taken := [name for name in added if name in batch]:
            raise InputError(
                f"The batch has a column {taken[0]!r} already.",
                action="choose another: BatchAnswers(bundle, prefix=...)",
            )
        rows = list(zip(*(_cells(batch[name]) for name in self.columns), strict=True))
        asked = [place for place, texts in enumerate(rows) if all(map(_is_filled, texts))]
        answers = self.predictor.predict([json_input(rows[place]) for place in asked]) if asked else []
        plain: list[Mapping[str, object]] = [{}] * len(rows)
        for place, answer in zip(asked, answers, strict=True):
            plain[place] = self.predictor.head.as_json(answer, None)
        values = {name: _objects([row.get(name) for row in plain]) for name in self._members}
        return {**batch, **{self._prefix + name: values[name] for name in self._members}}


def _cells(column: NDArray[Any] | Sequence[Any]) -> list[Any]:
    return column.tolist() if isinstance(column, np.ndarray) else list(column)


def _is_filled(cell: object) -> bool:
    """Whether a cell holds something to answer; what is no text is refused by the codec, which names it."""
    missing = cell is None or cell != cell or type(cell).__name__ == "NAType"  # NaN alone differs from itself
    return not missing and not (isinstance(cell, str) and not cell.strip())


def _objects(values: Sequence[object]) -> NDArray[np.object_]:
    """Values as an array (rows,) of objects, lists among them whole."""
    array = np.empty(len(values), dtype=object)
    for place, value in enumerate(values):  # a slice would take lists of one length for a matrix
        array[place] = value
    return array
