"""Which task a recipe is of when it names none: told by its data section, the rows of its data, and its base.

Apart from the recipe, whose type hangs on the answer. A look at the base reads config.json alone, and nothing is
fetched from a hub: what is not on this machine tells nothing. Must not import torch or transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.serve.errors import DataError, ModelError, RecipeError
from edgetune.tasks import TASKS
from edgetune.tune.data.dataset import DataRecipe
from edgetune.tune.data.dialect import LABEL_NAMES, Said
from edgetune.tune.data.sources import Named
from edgetune.tune.models.base import DECODER_ENDINGS, PACKAGED, find_base
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.formats import FORMATS
from edgetune.tune.stepwise.formats.format import Format
from edgetune.tune.stepwise.raw_parts import read_raw_parts
from edgetune.tune.stepwise.rows import ROW_SUFFIXES, RawRow

CLASSIFICATION, GENERATION = "text-classification", "text-generation"
DEFAULT_TASK = CLASSIFICATION
SAMPLE_ROWS = 200
_NESTED = ("messages", "sharegpt")


@dataclass(frozen=True)
class TaskChoice:
    """A task by name, and the sentence that says why where it was guessed; the default needs none."""

    task: str
    reason: str = ""


@dataclass(frozen=True)
class Sight:
    """What a look at one thing shows: its kind, and words that say so. The kind is empty where nothing can be told.

    Rows are "chats", "texts" or "labelled"; a base is a "decoder" or "other".
    """

    kind: str = ""
    words: str = ""


def choose_task(values: Mapping[str, Any]) -> TaskChoice:
    """The task that a recipe's values name, else the one that they, the rows and the base tell.

    Args:
        values: a recipe as it was read, not yet checked.

    Raises:
        RecipeError: there is no task of that name, or no task fits both the rows and the base.
    """
    said = values.get("task")
    if said is not None:
        if not isinstance(said, str) or said not in TASKS:
            raise RecipeError(f"There is no task {said!r}.", expected=" or ".join(TASKS))
        return TaskChoice(said)
    section = values.get("data")
    section = section if isinstance(section, dict) else {}
    if choice := _by_keys(section):
        return choice
    base, rows = look_at_base(values.get("base")), look_at_rows(section)
    if base.kind == "decoder" and rows.kind == "labelled":
        raise _contradiction(
            base, rows, f"--task {GENERATION}, if these rows are to be learnt as text; else name an encoder as the base"
        )
    if base.kind == "other" and rows.kind in ("chats", "texts"):
        raise _contradiction(
            base, rows, f"name a decoder as the base, or --task {CLASSIFICATION} if one column holds labels"
        )
    told = [sight.words for sight in (base, rows) if sight.words]
    if base.kind == "decoder" or rows.kind in ("chats", "texts"):
        return TaskChoice(GENERATION, f"Task {GENERATION}, since {' and '.join(told)}; --task says otherwise.")
    return TaskChoice(DEFAULT_TASK)


def _by_keys(section: Mapping[str, Any]) -> TaskChoice | None:
    """By keys of the data section that one task alone knows."""
    labelled, conversations = set(DataRecipe.model_fields), set(ConversationRecipe.model_fields)
    of_labels, of_chats = (
        [f"data.{key}" for key in section if key in own] for own in (labelled - conversations, conversations - labelled)
    )
    if bool(of_labels) is bool(of_chats):
        return None
    if of_labels:
        return TaskChoice(CLASSIFICATION)
    reason = f"Task {GENERATION}, since the recipe says {', '.join(of_chats)}; --task says otherwise."
    return TaskChoice(GENERATION, reason)


def look_at_base(name: object) -> Sight:
    """Whether a base is a decoder, by its config.json; of a hub id only where it lies in the cache."""
    path = _config_of(name) if isinstance(name, str) else None
    try:
        said = json.loads(path.read_text(encoding="utf-8")).get("architectures") if path else None
    except (OSError, ValueError, AttributeError):
        return Sight()
    names = [str(one) for one in said] if isinstance(said, list) else []
    if not names:
        return Sight()
    if all(one.endswith(DECODER_ENDINGS) for one in names):
        return Sight("decoder", f"the base {name} is a decoder ({', '.join(names)})")
    return Sight("other", f"the base {name} is no decoder ({', '.join(names)})")


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
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        return None
    return Path(found) if isinstance(found, str) else None


def look_at_rows(section: Mapping[str, Any]) -> Sight:
    """What the rows that a data section names are, by their columns; of a hub id nothing is told."""
    source = section.get("path") or section.get("train")
    if not isinstance(source, str):
        return Sight()
    path = Path(source).expanduser()
    if not path.exists() and path.suffix.lower() not in ROW_SUFFIXES:
        return Sight()
    if path.is_dir() and any(path.glob("*/*.txt")):
        return Sight("labelled", f"{source} has a sub-folder of texts a class")
    try:
        rows = read_raw_parts(Named(source), _said(section)).train.rows[:SAMPLE_ROWS]
    except DataError:
        return Sight()
    return _sight_of(rows, path.name)


def _said(section: Mapping[str, Any]) -> Said:
    encoding, delimiter, header = (section.get(name) for name in ("encoding", "delimiter", "header"))
    return Said(
        encoding if isinstance(encoding, str) else None,
        delimiter if isinstance(delimiter, str) and len(delimiter) == 1 else None,
        header if isinstance(header, bool) else None,
    )


def _sight_of(rows: tuple[RawRow, ...], name: str) -> Sight:
    written = next((one for one in FORMATS.values() if _fits(one, rows)), None)
    columns = list(dict.fromkeys(column for row in rows for column in row.values))
    own = {column for row in rows for column in written.columns_in(row.values, {}).values()} if written else set()
    labels = [column for column in columns if column.casefold() in LABEL_NAMES and column not in own]
    if written is None or (labels and written.name not in _NESTED):
        shown = ", ".join(map(repr, columns[:6])) + ", ..." * (len(columns) > 6)
        return Sight(
            "labelled", f"{name} has the columns {shown}" if not labels else f"{name} has labels ({labels[0]})"
        )
    if written.kind == "text":
        # Of another column nobody can tell whether it holds labels.
        return Sight("texts", f"{name} holds texts alone") if set(columns) <= own else Sight()
    if written.name == "question-answer" and _repeats(rows, written):
        return Sight("labelled", f"{name} has answers that come again and again, as labels do")
    return Sight("chats", f"the rows of {name} are written as {written.name}")


def _fits(one: Format, rows: tuple[RawRow, ...]) -> bool:
    return bool(rows) and sum(one.may_be(row.values, {}) for row in rows) * 2 > len(rows)


def _repeats(rows: tuple[RawRow, ...], written: Format) -> bool:
    """Whether most answers are no answers of their own: "question" and "answer" are columns of labelled texts too."""
    columns = [(row, written.columns_in(row.values, {}).get("answer")) for row in rows]
    answers = [str(row.values[column]) for row, column in columns if column is not None]
    return len(set(answers)) * 2 <= len(answers)


def _contradiction(base: Sight, rows: Sight, action: str) -> RecipeError:
    told = " and ".join(sight.words for sight in (base, rows))
    return RecipeError(
        f"The task cannot be told: {told}.",
        expected=f"an encoder and labelled texts for {CLASSIFICATION}, a decoder and texts or chats for {GENERATION}",
        action=action,
    )
