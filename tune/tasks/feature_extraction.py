"""Embeddings: a vector for each text, near those of texts that belong to it.

Learnt from pairs (anchor, positive), triplets with a negative, pairs with a score, or texts with labels. Records stay
whole while they are read, cleaned and split; then each of their texts is a row of its own, so that everything else of a
build meets single texts, as they are served.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from edgetune.serve.codecs.text_pair import usual_pair
from edgetune.serve.errors import DataError, RecipeError
from edgetune.tune.data.classes import ordered_labels
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.columns import Columns, choose_columns, require_column
from edgetune.tune.data.dialect import NUMBER
from edgetune.tune.data.list_cells import single_labels
from edgetune.tune.data.rows import Input, Rows, Target, key, shortened
from edgetune.tune.data.text_groups import joined_groups
from edgetune.tune.metrics import Metric
from edgetune.tune.retrieval import (
    DOCUMENT,
    EQUAL,
    KEY,
    MRR,
    NEGATIVE,
    QUERY,
    ROLE,
    SCORED,
    SPEARMAN,
    is_scored,
)
from edgetune.tune.tasks.regression import TextRegression
from edgetune.tune.tasks.task import Guess, Summary, Task, describe_labels
from edgetune.tune.tasks.vectors import METRICS, Vectors

if TYPE_CHECKING:
    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.data.reading import Table
    from edgetune.tune.data.rows import Parts

ANCHORS = ("anchor", "query", "question", "search_query")
POSITIVES = ("positive", "pos", "positive_passage", "document", "passage", "answer", "duplicate")
NEGATIVES = ("negative", "neg", "hard_negative", "negative_passage")
SCORES = ("score", "similarity", "similarity_score", "relevance", "label", "is_duplicate")
PAIR = "pair"  # the target of a record without a score, in words
MILLION = 1_000_000
_NUMBERS = TextRegression()


class FeatureExtraction(Task):
    """A vector for a text."""

    name: ClassVar[str] = "feature-extraction"
    alone: ClassVar[str] = "vectors are the encoder's own states"
    summary: ClassVar[str] = "A vector for a text, near those of texts that belong to it."
    has_labels: ClassVar[bool] = False
    one_label: ClassVar[bool] = False
    has_head: ClassVar[bool] = False
    stratum: ClassVar[str] = "group"
    metrics: ClassVar[tuple[Metric, ...]] = METRICS

    def recognises(self, columns: Mapping[str, Sequence[Any]], section: Mapping[str, Any]) -> Guess:
        """A column called positive beside one of anchors; pairs by other names may as well be another task's."""
        names = {name.casefold(): name for name in columns}
        given = [key for key in ("negative", "prompts") if section.get(key) is not None]
        if given:
            return Guess(1.0, f"data.{given[0]} is of embeddings alone")
        anchor, positive = _named(names, ANCHORS), _named(names, ("positive", "pos"))
        if anchor is None or positive is None or section.get("label") is not None:
            return Guess()
        return Guess(0.95, f"the columns {anchor!r} and {positive!r} are texts that belong together")

    # Rows

    def choose_columns(self, table: Table, recipe: DataRecipe) -> Columns:
        self._refuse_keys(recipe, "separator")
        names = {name.casefold(): name for name in table.columns}
        for name, field in ((recipe.text, "text"), (recipe.text_pair, "text_pair"), (recipe.negative, "negative")):
            if name is not None:
                require_column(table, name, field)
        pair = self._pair_columns(names, recipe)
        if pair is None:
            return self._with_labels(table, recipe)
        negative = recipe.negative or _named(names, NEGATIVES)
        label = self._one_column(recipe) or (None if negative else _score_column(table, pair))
        guessed = [name for name in (*pair, negative, label) if name and name not in _given(recipe)]
        findings = (f"{_listed(guessed)} taken as {_meaning(negative, label)}: guessed.",) if guessed else ()
        if label is not None:
            require_column(table, label, "label")
        if negative and label:
            raise DataError(
                f"{table.source} has a column of negatives, {negative!r}, and one of scores, {label!r}.",
                expected="triplets (anchor, positive, negative), or pairs with a score.",
                action="leave one of them out: --set data.negative=... or --set data.label=...",
            )
        texts = (*pair, negative) if negative else pair
        _refuse_lists(table, texts)
        return Columns(texts, (label,) if label else (), findings)

    def _pair_columns(self, names: Mapping[str, str], recipe: DataRecipe) -> tuple[str, str] | None:
        """Anchor and positive; None where texts have labels."""
        if recipe.text is not None and recipe.text_pair is not None:
            return recipe.text, recipe.text_pair
        anchor, positive = recipe.text or _named(names, ANCHORS), recipe.text_pair or _named(names, POSITIVES)
        if anchor and positive and recipe.text in (None, anchor):
            return anchor, positive
        pair = usual_pair(list(names.values())) if recipe.text is None else None
        if pair is None and recipe.negative is not None:
            raise DataError(
                f"data.negative is {recipe.negative!r}, and the columns of anchors and positives are not clear.",
                expected="columns named anchor and positive, or their names.",
                action="name them: --set data.text=... --set data.text_pair=...",
            )
        return pair

    def _with_labels(self, table: Table, recipe: DataRecipe) -> Columns:
        try:
            columns = choose_columns(table, recipe.text, self._one_column(recipe))
        except DataError as error:
            raise DataError(
                f"{table.source} has no columns of pairs (anchor, positive), nor clear ones of a text and a label. "
                f"{error.found}",
                expected="anchor and positive, with or without negative; two texts and a score; or a text and a label.",
                action="name them: --set data.text=... --set data.text_pair=... (and data.negative or data.label).",
            ) from error
        return columns

    def input_columns(self, columns: Columns) -> tuple[str, ...]:
        """Of records none: what is served is one text."""
        return columns.texts if len(columns.texts) == 1 else ()

    def read_inputs(self, table: Table, columns: Columns) -> tuple[Input, ...]:
        cells = [table.columns[name] for name in columns.texts]
        return cells[0] if len(cells) == 1 else tuple(zip(*cells, strict=True))

    def read_words(self, table: Table, columns: Columns) -> tuple[str, ...]:
        if not columns.labels:
            return (PAIR,) * len(table)
        name = columns.labels[0]
        return single_labels(table, name) if len(columns.texts) == 1 else table.columns[name]

    def labels(self, parts: Parts, source: str, order: Sequence[str] | None) -> tuple[str, ...]:
        rows = parts.train
        if isinstance(rows.texts[0], str):
            _check_labels(rows, source)
            return ordered_labels({label for part in parts.given.values() for label in part.labels}, order)
        _check_records(rows, source)
        return () if rows.labels[0] == PAIR else _NUMBERS.labels(parts, source, None)

    def target(self, word: str, labels: Mapping[str, int]) -> Target:
        if labels:
            return labels[word]
        return 0 if word == PAIR else _NUMBERS.target(word, {})

    def strata(self, targets: Sequence[Target]) -> list[Hashable]:
        if isinstance(targets[0], float):
            return _NUMBERS.strata(targets)
        return list(targets)

    def units(self, rows: Rows) -> Sequence[int] | None:
        """Of pairs the group: a text of the training part is in no other part."""
        if isinstance(rows.texts[0], str) or rows.labels[0] != PAIR:
            return None
        return joined_groups(rows.texts).tolist()

    def unrolled(
        self, texts: Sequence[Input], targets: Sequence[Target], recipe: DataRecipe, *, part: str
    ) -> tuple[tuple[Input, ...], tuple[Target, ...]]:
        rows = _texts_of(texts, targets, recipe.prompts or {}, learns=part == "train") if texts else []
        if part != "train" and not Vectors((), MRR).judging([target for _, target in rows]):
            raise DataError(
                f"The {part} part has {counted(len(texts), 'row')} and no two texts that belong together.",
                expected="pairs, or labels with two rows or more in every part.",
                action=f"add rows, or name a file of them with --set data.{part}=...",
            )
        return tuple(text for text, _ in rows), tuple(target for _, target in rows)

    def describe(self, labels: Sequence[str], targets: Sequence[Target]) -> Summary:
        expected = np.asarray(targets, dtype=np.int64)
        if labels:
            return describe_labels(Counter(labels[place] for place in expected[:, KEY].tolist()), "labels")
        if is_scored(expected):
            return Summary(f"{counted(len(expected) // 2, 'scored pair')}.", {"pairs": len(expected) // 2})
        asked, given, negative = (int((expected[:, ROLE] == role).sum()) for role in (QUERY, DOCUMENT, NEGATIVE))
        sentence = f"{asked:,} anchors, {given:,} texts that belong to them and {negative:,} that do not."
        return Summary(sentence, {"anchors": asked, "positives": given, "negatives": negative})

    def objective(self, labels: Sequence[str], metric: str, targets: Sequence[Target]) -> Vectors:
        expected = np.asarray(targets, dtype=np.int64).reshape(-1, 3)
        scored = is_scored(expected)
        chosen = self.metric(metric) if metric else SPEARMAN if scored else MRR
        if (chosen == SPEARMAN) is not scored:
            raise RecipeError(
                f"gate.metric is {chosen.name!r}, and the rows are {'scored pairs' if scored else 'groups of texts'}.",
                expected=SPEARMAN.name if scored else " or ".join(m.name for m in self.metrics if m != SPEARMAN),
            )
        together = 1
        if len(expected) > 1 and expected[0, ROLE] != EQUAL:
            together = 3 if len(expected) > 2 and expected[2, ROLE] == NEGATIVE else 2
        return Vectors((), chosen, together)


def _texts_of(
    inputs: Sequence[Input], targets: Sequence[Target], prompts: Mapping[str, str], *, learns: bool
) -> list[tuple[str, tuple[int, int, int]]]:
    """Texts, with their prompts, and (group, role, mark) of each.

    What learns keeps its records whole, one behind the other; what judges has each text of a group once, and as a
    negative none that is a find elsewhere.
    """
    ask, offer = prompts.get("query", ""), prompts.get("document", "")
    marks: dict[object, int] = {}

    def mark(text: str) -> int:
        return marks.setdefault(key(text), len(marks))

    if isinstance(inputs[0], str):
        texts = zip(inputs, targets, strict=True)
        return [(ask + str(text), (int(label), EQUAL, mark(str(text)))) for text, label in texts]  # type: ignore[arg-type]
    if isinstance(targets[0], float):
        scores = [(place, SCORED, round(MILLION * float(score))) for place, score in enumerate(targets)]  # type: ignore[arg-type]
        return [(ask + text, score) for pair, score in zip(inputs, scores, strict=True) for text in pair]
    roles, starts = (QUERY, DOCUMENT, NEGATIVE), (ask, offer, offer)
    groups = joined_groups(inputs).tolist()
    rows = [
        (start + text, (group, role, mark(text)))
        for record, group in zip(inputs, groups, strict=True)
        for text, role, start in zip(record, roles, starts, strict=False)
    ]
    if learns:
        return rows
    finds = {target[2] for _, target in rows if target[1] == DOCUMENT}
    once = dict.fromkeys(row for row in rows if row[1][1] != NEGATIVE)
    seen: set[int] = set()
    for row in rows:
        if row[1][1] == NEGATIVE and row[1][2] not in finds | seen:
            seen.add(row[1][2])
            once[row] = None
    return list(once)


def _check_labels(rows: Rows, source: str) -> None:
    counts = Counter(rows.labels)
    several = sum(count > 1 for count in counts.values())
    if len(counts) < 2 or not several:
        what = f"the one label {rows.labels[0]!r}" if len(counts) < 2 else "a label of its own"
        raise DataError(
            f"{'All' if len(counts) < 2 else 'Each'} of {counted(len(rows), 'row')} of {source} "
            f"{'have' if len(counts) < 2 else 'has'} {what}.",
            expected="two labels or more, with several texts each: texts of one label belong together.",
            action="name the label column with --set data.label=..., or write pairs as anchor and positive.",
        )


def _check_records(rows: Rows, source: str) -> None:
    """Refuse pairs of which nothing can be learnt: each a text with itself, or all with one text."""
    same = [place for place, record in enumerate(rows.texts) if key(record[0]) == key(record[1])]
    if 2 * len(same) > len(rows):
        raise DataError(
            f"{counted(len(same), 'row')} of {len(rows):,} of {source} pair a text with itself, such as row "
            f"{same[0] + 1}, {shortened(rows.texts[same[0]][0])!r}.",
            expected="two different texts that belong together.",
            action="name the columns: --set data.text=... --set data.text_pair=...",
        )
    if rows.labels[0] != PAIR:
        return
    groups = set(joined_groups(rows.texts).tolist())
    if len(groups) < 2:
        raise DataError(
            f"All {counted(len(rows), 'pair')} of {source} hang together by texts that they share, such as "
            f"{shortened(rows.texts[0][1])!r}: there is nothing to tell them from.",
            expected="pairs of several groups.",
            action="name the columns: --set data.text=... --set data.text_pair=...",
        )


def _named(names: Mapping[str, str], usual: Sequence[str]) -> str | None:
    """The first of the usual names that there is."""
    return next((names[name] for name in usual if name in names), None)


def _score_column(table: Table, pair: Sequence[str]) -> str | None:
    """The column with the usual name of a score, beside a pair; beside one that is called positive of numbers alone.

    Of two sentences with words as their label nobody knows whether they belong together: those words are refused.
    """
    names = {name.casefold(): name for name in table.columns if name not in pair}
    usual = next((names[name] for name in SCORES if name in names), None)
    sure = pair[1].casefold() in POSITIVES
    if usual is None or (sure and not all(map(NUMBER.fullmatch, filter(None, table.columns[usual])))):
        return None
    return usual


def _refuse_lists(table: Table, names: Sequence[str]) -> None:
    for name in names:
        rows = [place for place, cell in enumerate(table.columns[name]) if _is_list(cell)]
        if rows:
            raise DataError(
                f"{counted(len(rows), 'row')} of {table.source} with a list of texts in the column {name!r}, the first "
                f"is row {rows[0] + 1}.",
                expected="one text in each cell.",
                action="write a row for each text of the list, with the anchor in each.",
            )


def _is_list(cell: str) -> bool:
    if not cell.startswith("["):
        return False
    try:
        return isinstance(json.loads(cell), list)
    except ValueError:
        return False


def _given(recipe: DataRecipe) -> set[str | None]:
    return {recipe.text, recipe.text_pair, recipe.negative, recipe.label if isinstance(recipe.label, str) else None}


def _listed(names: Sequence[str]) -> str:
    return f"Column{'s' * (len(names) > 1)} {', '.join(map(repr, names))}"


def _meaning(negative: str | None, label: str | None) -> str:
    if negative:
        return "anchor, positive and negative"
    return "two texts and how alike they are" if label else "anchor and positive"
