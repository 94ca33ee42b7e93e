"""Texts of the domain without labels: read as labelled rows are, or one a line from a .txt file, and cleaned alike.

What also stands in the validation or test part is removed whatever the recipe says: a scheme that learns from these
texts would otherwise be judged on texts that it has seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgetune.serve.codecs import stripped
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.columns import require_column
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.encoding import decode, encoding_finding
from edgetune.tune.data.reading import read_bytes
from edgetune.tune.data.rows import Input, Parts, Rows, key
from edgetune.tune.data.sources import read_source

Texts = tuple[str, ...]
NOUN = "unlabeled row"


def read_unlabeled(source: str, options: FileOptions, text_column: str, *, noun: str = NOUN) -> tuple[Texts, Texts]:
    """The texts of `source` and what there is to say about how they were read.

    Args:
        source: a .txt file with a text a line, or whatever labelled rows are read from.
        options: how files are written, by the user's word.
        text_column: the labelled rows' text column; a source with a single column may name it otherwise.
        noun: what a row is called.

    Raises:
        DataError: the source cannot be read, or has no such column.
    """
    path = Path(source).expanduser()
    if path.suffix.lower() == ".txt" and not path.is_dir():
        decoded = decode(read_bytes(path), options.encoding, str(path))
        # Not splitlines, which also splits at separators that stand inside texts, such as U+2028.
        texts = tuple(decoded.text.replace("\r\n", "\n").removesuffix("\n").split("\n"))
        return texts, (_read(texts, path.name, noun), *encoding_finding(decoded, path.name))
    table = read_source(source, options).train
    column = next(iter(table.columns)) if len(table.columns) == 1 else text_column
    require_column(table, column, "text")
    texts = table.columns[column]
    return texts, (_read(texts, f"{table.source}, column {column!r}", noun), *table.findings)


def clean_unlabeled(
    texts: Texts, parts: Parts, *, normalize: bool, deduplicate: bool, noun: str = NOUN
) -> tuple[Texts, Texts]:
    """Tidy the texts; drop empty ones, those of the held-out parts, and (`deduplicate`) those that stand twice.

    Returns:
        The texts in their order, and a finding for each reason that any was dropped for.
    """
    if normalize:
        texts = tuple(map(stripped, texts))
    filled = tuple(text for text in texts if text.strip())
    held_out = {name: _keys(getattr(parts, name)) for name in ("validation", "test")}
    unseen = tuple(text for text in filled if not any(key(text) in keys for keys in held_out.values()))
    kept = _without_duplicates(unseen, _keys(parts.train)) if deduplicate else unseen
    dropped = (
        (len(texts) - len(filled), "Dropped {} without text."),
        (len(filled) - len(unseen), "Removed {} that also stand in the validation or test part."),
        (len(unseen) - len(kept), "Removed {} that stand twice or in the training data."),
    )
    return kept, tuple(line.format(counted(count, noun)) for count, line in dropped if count)


def _read(texts: Texts, source: str, noun: str) -> str:
    return f"Read {counted(len(texts), noun)} from {source}."


def _keys(rows: Rows | None) -> set[Input]:
    return set() if rows is None else set(map(key, rows.texts))


def _without_duplicates(texts: Iterable[str], seen: set[Input]) -> Texts:
    kept = []
    for text in texts:
        if key(text) not in seen:
            seen.add(key(text))
            kept.append(text)
    return tuple(kept)
