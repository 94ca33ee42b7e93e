"""Tables of words that are not lists yet: a word a row, or words and tags as texts with blanks between them.

Both are made into a row a sentence, of the lists that `spans.py` reads. Must not import torch.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from edgetune.serve.errors import DataError
from edgetune.tune.data.reading import Table

_TAG = re.compile(r"O|[BIMESLU]-\S+")
WORD_NAMES = ("word", "words", "token", "tokens", "text", "sentence")
# A column that numbers sentences; where its cell is empty, the row belongs to the sentence before.
SENTENCE_NAMES = ("sentence #", "sentence_id", "sentence", "sent_id", "sentence id", "sentence_idx", "doc_id", "id")
LOOKED_ROWS = 400
_FIT = 0.98


def with_lists(table: Table) -> Table:
    """The table with a row a sentence, where it has a word a row or tags in one text; else as it is."""
    looked = {name: cells[:LOOKED_ROWS] for name, cells in table.columns.items()}
    if sheet := word_columns(looked):
        return _gathered(table, *sheet)
    if texts := text_columns(looked):
        return _split(table, *texts)
    return table


def word_columns(columns: Mapping[str, Sequence[object]]) -> tuple[str, str, str] | None:
    """The columns of sentences, words and tags of a table with a word a row."""
    usual = {name.strip().casefold(): name for name in columns}
    tags = next((name for name, cells in columns.items() if _are_tags(cells)), None)
    word = next((usual[name] for name in WORD_NAMES if name in usual and usual[name] != tags), None)
    sentence = next((usual[name] for name in SENTENCE_NAMES if name in usual and usual[name] not in (tags, word)), None)
    return (sentence, word, tags) if tags and word and sentence else None


def text_columns(columns: Mapping[str, Sequence[object]]) -> tuple[str, str] | None:
    """The columns of texts and of their tags, where each text has as many words as tags."""
    usual = {name.strip().casefold(): name for name in columns}
    for tags, cells in columns.items():
        rows = [str(cell).split() for cell in cells]
        if not any(len(row) > 1 for row in rows) or not _are_tags([tag for row in rows for tag in row]):
            continue
        text = next((usual[name] for name in WORD_NAMES if name in usual and usual[name] != tags), None)
        if text is not None:
            return text, tags
    return None


def _are_tags(cells: Sequence[object]) -> bool:
    fitting = [cell for cell in cells if isinstance(cell, str) and _TAG.fullmatch(cell.strip())]
    return len(fitting) > 1 and len(fitting) >= _FIT * len(cells) and any(cell.strip() != "O" for cell in fitting)


def _gathered(table: Table, sentence: str, word: str, tags: str) -> Table:
    words: list[list[str]] = []
    labels: list[list[str]] = []
    before = ""
    rows = zip(table.columns[sentence], table.columns[word], table.columns[tags], strict=True)
    for number, (of, said, tag) in enumerate(rows, start=1):
        if not tag.strip():
            raise DataError(
                f"{table.source}, row {number}: the word {said!r:.40} has no tag.",
                expected="O for what is no entity.",
                action="mend or remove that row.",
            )
        if not words or (of.strip() and of != before):
            words.append([])
            labels.append([])
        before = of if of.strip() else before
        words[-1].append(said)
        labels[-1].append(tag.strip())
    note = f"Gathered {len(table):,} words of {table.source} into {len(words):,} sentences by the column {sentence!r}."
    columns = {word: _as_json(words), tags: _as_json(labels)}
    return replace(table, columns=columns, findings=(*table.findings, note))


def _split(table: Table, text: str, tags: str) -> Table:
    columns = {
        name: _as_json([cell.split() for cell in cells]) if name in (text, tags) else cells
        for name, cells in table.columns.items()
    }
    return replace(table, columns=columns)


def _as_json(rows: Sequence[Sequence[str]]) -> tuple[str, ...]:
    return tuple(json.dumps(row, ensure_ascii=False) for row in rows)
