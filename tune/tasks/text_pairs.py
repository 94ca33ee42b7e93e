"""Pairs of texts (entailment, duplicates, relevance, similarity): a label or a number for each pair.

Only the input differs from the tasks on one text: two columns are read, and the base's own encoding of pairs is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from edgetune.serve.codecs.text_pair import usual_pair
from edgetune.serve.errors import DataError
from edgetune.tune.data.columns import Columns, require_column
from edgetune.tune.tasks.regression import TextRegression
from edgetune.tune.tasks.task import Guess, Task
from edgetune.tune.tasks.text_classification import TextClassification

if TYPE_CHECKING:
    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.data.reading import Table
    from edgetune.tune.data.rows import Input


class _Pairs(Task):
    """What pairs add to a task: two columns in, and their encoding."""

    codec: ClassVar[str] = "text-pair"

    def recognises(self, columns: Mapping[str, Sequence[Any]], section: Mapping[str, Any]) -> Guess:
        """Two columns that are named, or have the usual names of a pair, beside a target."""
        named = section.get("text"), section.get("text_pair")
        pair = named if all(named) else usual_pair(list(columns))
        if pair is None or any(given and given not in pair for given in named):
            return Guess()
        rest = {name: cells for name, cells in columns.items() if name not in pair}
        inner = super().recognises(rest, section)
        words = f"the columns {pair[0]!r} and {pair[1]!r} are a pair of texts"
        more = f", and {inner.reason}" if inner.reason else ""
        return Guess(min(1.0, inner.strength + 0.5), words + more) if rest and inner.strength else Guess()

    def choose_columns(self, table: Table, recipe: DataRecipe) -> Columns:
        self._refuse_keys(recipe, "separator", "image")
        first, second = recipe.text, recipe.text_pair
        guessed = usual_pair(list(table.columns)) if first is None or second is None else None
        if guessed and first in (None, guessed[0]) and second in (None, guessed[1]):
            first, second = guessed
        if first is None or second is None:
            raise DataError(
                f"The two text columns of {table.source} cannot be told. Its columns are "
                f"{', '.join(map(repr, table.columns))}.",
                expected="two columns of texts and one of labels or numbers.",
                action="name them: --set data.text=... --set data.text_pair=... --set data.label=...",
            )
        for name, field in ((first, "text"), (second, "text_pair")):
            require_column(table, name, field)
        rest = {name: cells for name, cells in table.columns.items() if name != second}
        single = super().choose_columns(
            replace(table, columns=rest), recipe.model_copy(update={"text": first, "text_pair": None})
        )
        notes = (f"Text columns {first!r} and {second!r} were guessed.",) if guessed else ()
        return Columns((first, second), single.labels, (*notes, *single.findings))

    def read_inputs(self, table: Table, columns: Columns) -> tuple[Input, ...]:
        return tuple(zip(table.columns[columns.texts[0]], table.columns[columns.texts[1]], strict=True))

    def encode(
        self,
        tokenizer: Any,
        inputs: Sequence[Input],
        max_tokens: int,
        *,
        padding: bool = False,
        tensors: str | None = None,
    ) -> Any:
        first, second = [pair[0] for pair in inputs], [pair[1] for pair in inputs]
        return tokenizer(first, second, truncation=True, max_length=max_tokens, padding=padding, return_tensors=tensors)


class TextPairClassification(_Pairs, TextClassification):
    """A label for a pair of texts."""

    name: ClassVar[str] = "text-pair-classification"
    kind: ClassVar[str] = ""
    alone: ClassVar[str] = "pairs are read otherwise than single texts"
    summary: ClassVar[str] = "A label for a pair of texts."


class TextPairRegression(_Pairs, TextRegression):
    """A number for a pair of texts."""

    name: ClassVar[str] = "text-pair-regression"
    kind: ClassVar[str] = ""
    alone: ClassVar[str] = "pairs are read otherwise than single texts"
    summary: ClassVar[str] = "A number for a pair of texts."
