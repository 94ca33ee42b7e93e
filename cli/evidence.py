"""What speaks for one task or another where a recipe names none: the rows of its data, and its base.

A look at the base reads config.json alone, and nothing is fetched from a hub: of what is not on this machine nothing is
known. Must not import torch or transformers.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgetune.serve.errors import DataError, ModelError
from edgetune.serve.json_types import JsonObject
from edgetune.tune.data.column_names import LABEL_NAMES
from edgetune.tune.data.dialect import FileOptions
from edgetune.tune.data.picture_folders import sample_of_folder
from edgetune.tune.data.reading import read_table
from edgetune.tune.data.sources import Named, part_files
from edgetune.tune.data.spans import spans_in
from edgetune.tune.data.tagged_words import TAGGED_SUFFIXES, TAGS, WORDS
from edgetune.tune.models.base import DECODER_ENDINGS, PACKAGED, find_base
from edgetune.tune.stepwise.format_choice import PREFERENCES
from edgetune.tune.stepwise.formats import FORMATS
from edgetune.tune.stepwise.formats.format import Format
from edgetune.tune.stepwise.raw_parts import read_raw_parts
from edgetune.tune.stepwise.rows import ROW_SUFFIXES, RawRow
from edgetune.tune.tasks.task import Guess

SAMPLE_ROWS = 200
TABLE_SUFFIXES = (".csv", ".jsonl", ".ndjson")
# Formats of chats that no labelled texts are written in: a column that is named as labels are holds none there.
_PLAINLY_CHATS = ("messages", "prompt-completion-messages", "sharegpt", "turn-pairs")
_FASTTEXT = re.compile(r"__label__\S+ ")
# Dolly's rows have the kind of their instruction in a column of that name (Databricks 2023).
_DOLLY = {"instruction", "response", "category"}


@dataclass(frozen=True)
class Observation:
    """What one thing is, "" where that cannot be seen, and the words that say so.

    A base is a "decoder" or an "encoder"; rows are "labelled", "chats" or "texts".
    """

    kind: str = ""
    words: str = ""


@dataclass(frozen=True)
class Rows(Observation):
    """What the first rows are, with their cells by column, as they were read."""

    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What is known of a recipe's base and rows, and the values of its data section."""

    base: Observation
    rows: Rows
    section: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Evidence:
        """Look at what a recipe's values name; they were read, and not yet checked."""
        given = values.get("data")
        section = given if isinstance(given, dict) else {}
        return cls(look_at_base(values.get("base")), look_at_rows(section), section)

    def speaks_for(self, base: str, *rows: str) -> Guess:
        """Half a point for a base of the kind, half a point for rows of one of the kinds, with what says so."""
        speaking = [
            observation for observation, kinds in ((self.base, (base,)), (self.rows, rows)) if observation.kind in kinds
        ]
        return Guess(0.5 * len(speaking), " and ".join(observation.words for observation in speaking))


def look_at_base(base: object) -> Observation:
    """Whether a base is a decoder or an encoder, by its config.json; of a hub id only where it lies in the cache."""
    path = _config_of(base) if isinstance(base, str) else None
    try:
        architectures = json.loads(path.read_text(encoding="utf-8")).get("architectures") if path else None
    except (OSError, ValueError, AttributeError):
        return Observation()
    names = [str(name) for name in architectures] if isinstance(architectures, list) else []
    if not names:
        return Observation()
    if path is not None and any(path.parent.glob("*_Pooling")):  # a decoder too, as Qwen3-Embedding is
        return Observation("encoder", f"the base {base} is trained to embed sentences")
    if all(name.endswith(DECODER_ENDINGS) for name in names):
        return Observation("decoder", f"the base {base} is a decoder ({', '.join(names)})")
    return Observation("encoder", f"the base {base} is no decoder ({', '.join(names)})")


def _config_of(name: str) -> Path | None:
    folder = Path(name)
    if not folder.is_dir() and name in PACKAGED:
        try:
            folder = find_base(name).folder
        except ModelError:
            return None
    if folder.is_dir():
        return folder / "config.json"
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def look_at_rows(section: JsonObject) -> Rows:
    """What the rows that a data section names are, by their columns; of a hub id nothing can be said."""
    source = section.get("path") or section.get("train")
    if not isinstance(source, str):
        return Rows()
    path = Path(source).expanduser()
    if not path.exists() and path.suffix.lower() not in ROW_SUFFIXES:
        return Rows()
    tagged = _tagged(path, section)
    if tagged is not None:
        return tagged
    if path.is_dir() and any(path.glob("*/*.txt")):
        return Rows("labelled", f"{source} has a sub-folder of texts a class")
    if path.is_dir() and (pictures := sample_of_folder(path)):
        return Rows("labelled", f"{source} has a sub-folder of pictures a class", pictures)
    try:
        rows = read_raw_parts(Named(source), _dialect(section)).train.rows[:SAMPLE_ROWS]
    except DataError:
        return Rows()
    if path.suffix.lower() == ".txt" and path.is_file():
        _refuse_labelled_lines([str(row.values.get("text", "")) for row in rows], path)
    names = dict.fromkeys(column for row in rows for column in row.values)
    columns = {name: tuple(row.values.get(name) for row in rows) for name in names}
    return replace(_observe(rows, path.name), columns=columns)


def _tagged(path: Path, section: JsonObject) -> Rows | None:
    """The rows of words with tags, in a file or in a folder's training part, or of a JSON document with spans, which no
    chat is written in; None of any other."""
    try:
        inside = part_files(path, (*TAGGED_SUFFIXES, ".txt")) if path.is_dir() else {}
        file = next(iter(inside.get("train", (path,))))
        if not file.is_file() or file.suffix.lower() in (*TABLE_SUFFIXES, ".parquet"):
            return None
        table = read_table(file, _dialect(section))
    except DataError:
        return None
    columns = {name: cells[:SAMPLE_ROWS] for name, cells in table.columns.items()}
    if file.suffix.lower() == ".json":
        why = spans_in(columns, section)
        return Rows("labelled", f"in {file.name} {why}", columns) if why else None
    if set(columns) != {WORDS, TAGS}:
        return None
    return Rows("labelled", f"{file.name} has a word and its tag a line", columns)


def _refuse_labelled_lines(lines: Sequence[str], path: Path) -> None:
    """Ask of a file whose lines hold a label each: they would be learnt as they stand, labels and all.

    Raises:
        DataError: with both commands.
    """
    out = f"{path.with_suffix('.tsv')}"
    if all(_FASTTEXT.match(line) for line in lines):
        kind = "fastText's labels"
        convert = f"sed -E 's/^__label__([^ ]+) +/\\1\\t/' {shlex.quote(str(path))} > {shlex.quote(out)}"
    elif all(line.count("\t") == 1 for line in lines) and _has_repeating_side(lines):
        kind, convert = (
            "a tab and a word that comes again, as labels do",
            f"cp {shlex.quote(str(path))} {shlex.quote(out)}",
        )
    else:
        return
    raise DataError(
        f"The task of {path} is not clear: each line holds {kind}, and a .txt file is read as texts alone.",
        expected="labelled texts in a file with columns, or a task by name",
        action=f"for a classifier {convert} and take that file; for a language model of these lines add "
        "--task text-generation",
    )


def _has_repeating_side(lines: Sequence[str]) -> bool:
    """Whether what stands on one side of the tab comes again and again, and what stands on the other does not."""
    kinds = sorted(len(set(side)) for side in zip(*(line.split("\t") for line in lines), strict=True))
    return 2 <= kinds[0] <= len(lines) // 4 and 2 * kinds[1] > len(lines)


def _dialect(section: JsonObject) -> FileOptions:
    encoding, delimiter, header = (section.get(name) for name in ("encoding", "delimiter", "header"))
    return FileOptions(
        encoding if isinstance(encoding, str) else None,
        delimiter if isinstance(delimiter, str) and len(delimiter) == 1 else None,
        header if isinstance(header, bool) else None,
    )


def _observe(rows: tuple[RawRow, ...], name: str) -> Rows:
    written = next((known for known in FORMATS.values() if _fits(known, rows)), None)
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    own = {column for row in rows for column in written.columns_in(row.values, {}).values()} if written else set()
    labels = [column for column in columns if column.casefold() in LABEL_NAMES and column not in own]
    folded = {column.casefold() for column in columns}
    if folded >= _DOLLY:
        labels = [column for column in labels if column.casefold() != "category"]
    if any(folded.issuperset(pair) for pair in PREFERENCES) or (written is not None and written.judged):
        return Rows("chats", f"the rows of {name} hold preferences")  # which an objective of their own learns
    if written is None or (labels and written.name not in _PLAINLY_CHATS):
        shown = ", ".join(map(repr, columns[:6])) + ", ..." * (len(columns) > 6)
        return Rows("labelled", f"{name} has the columns {shown}" if not labels else f"{name} has labels ({labels[0]})")
    if written.kind == "text":
        # Of another column nobody can tell whether it holds labels.
        return Rows("texts", f"{name} holds texts alone") if set(columns) <= own else Rows()
    if written.name == "question-answer" and _repeats(rows, written):
        return Rows("labelled", f"{name} has answers that come again and again, as labels do")
    return Rows("chats", f"the rows of {name} are written as {written.name}")


def _fits(written: Format, rows: tuple[RawRow, ...]) -> bool:
    return bool(rows) and sum(written.may_be(row.values, {}) for row in rows) * 2 > len(rows)


def _repeats(rows: tuple[RawRow, ...], written: Format) -> bool:
    """Whether most answers are no answers of their own: "question" and "answer" are columns of labelled texts too."""
    columns = [(row, written.columns_in(row.values, {}).get("answer")) for row in rows]
    answers = [str(row.values[column]) for row, column in columns if column is not None]
    return len(set(answers)) * 2 <= len(answers)
