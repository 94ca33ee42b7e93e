"""The data set of a language model: training, validation and test chats, cleaned, split, and saved.

The one place where reading, choosing a format, cleaning and splitting come together; what was found on the way is kept
as sentences, as `tune/data/dataset.py` does for labelled texts. Must not import torch or transformers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

from edgetune.serve.errors import DataError
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.dataset import MOST_HELD_OUT_ROWS, PART_NAMES
from edgetune.tune.data.split import split_rows
from edgetune.tune.models.stored import Stored, changed_rows
from edgetune.tune.stepwise.chats import Chat, Judged, Kind, chat_to_json, prompt_key
from edgetune.tune.stepwise.conversation_cleaning import ChatParts, clean_chats
from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
from edgetune.tune.stepwise.format_choice import FormatChoice, chats_of, choose_format
from edgetune.tune.stepwise.raw_parts import RawParts, read_raw_parts


@dataclass(frozen=True)
class Conversations(Stored):
    """Chats to learn from, to choose by and to judge by.

    Args:
        kind: "text" (all tokens are learnt), "completion" (a prompt goes on, without a template) or "chat".
        format: the name of the format that the rows were written in.
        template: the chat template that the recipe gives: Jinja text, a file or a name; None where it gives none.
        separator: what each completion of the kind "completion" begins with, on top of its own words.
        digest: "sha256:" and the digest of kind, separator and chats: the same chats in the same order give the same.
        source: what the user named.
        findings: sentences on what was guessed, dropped, counted and split.
        prompt_columns: the column that holds prompts and nothing else does; none where there is no such column.
        judged: what somebody said of the answers: "pairs", "votes", or "" where nobody judged.
    """

    file_name: ClassVar[str] = "conversations.json"
    noun: ClassVar[str] = "conversations"
    command: ClassVar[str] = "build --fresh"

    train: tuple[Chat, ...]
    validation: tuple[Chat, ...]
    test: tuple[Chat, ...]
    kind: Kind
    format: str
    template: str | None
    separator: str
    digest: str
    source: str
    findings: tuple[str, ...]
    prompt_columns: tuple[str, ...] = ()
    judged: Judged = ""

    @classmethod
    def load(cls, recipe: ConversationRecipe, *, seed: int) -> Conversations:
        """Read, clean and split the texts or chats that `recipe` names.

        Raises:
            DataError: they cannot be read, are written in no format or in several, or are too few.
        """
        return cls.of_rows(read_raw_parts(recipe.named, recipe.file_options), recipe, seed)

    @classmethod
    def of_rows(cls, raw: RawParts, recipe: ConversationRecipe, seed: int) -> Conversations:
        """As `load`, of rows that are already read."""
        choice = choose_format(raw.train, recipe.format, recipe.columns)
        kind = _kind(choice, recipe)
        parts = clean_chats(_read(raw, choice), recipe.clean, kind)
        parts = _split(parts.saying(*_joint_findings(parts, kind, recipe.separator)), recipe, kind, seed)
        train, validation, test = parts.train, parts.validation or (), parts.test or ()
        for name, chats, share in zip(PART_NAMES, (train, validation, test), recipe.split, strict=True):
            if not chats and (share or name == "train"):
                raise _too_few(parts, name, recipe)
        digest = _digest(kind, recipe.separator, (train, validation, test))
        return cls(
            *(train, validation, test, kind, choice.format.name, recipe.template, recipe.separator),
            *(digest, recipe.source, parts.findings, choice.prompt_columns, choice.format.judged),
        )

    def without(self, refused: Sequence[Chat]) -> Self:
        """These without some of their chats, which stand in them themselves."""
        gone = {id(chat) for chat in refused}
        if not gone:
            return self
        train, validation, test = (
            tuple(chat for chat in part if id(chat) not in gone) for part in (self.train, self.validation, self.test)
        )
        return replace(self, train=train, validation=validation, test=test)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """What `save` wrote.

        Raises:
            WorkError: the folder holds no conversations, or its rows are not those that were saved.
        """
        opened = super().open(folder)
        if _digest(opened.kind, opened.separator, (opened.train, opened.validation, opened.test)) != opened.digest:
            raise changed_rows(cls, folder)
        return opened


def _kind(choice: FormatChoice, recipe: ConversationRecipe) -> Kind:
    """The format's kind; a prompt and its completion become a chat where the recipe puts a template around them."""
    return "chat" if choice.format.kind == "completion" and recipe.template else choice.format.kind


def _read(raw: RawParts, choice: FormatChoice) -> ChatParts:
    findings = [f"Read {counted(len(part), 'row')} from {part.source}." for part in raw.given]
    findings += [finding for part in raw.given for finding in part.findings]
    findings += choice.findings
    chats = iter(chats_of(raw.given, choice))
    train, validation, test = (None if part is None else next(chats) for part in (raw.train, raw.validation, raw.test))
    return ChatParts(train or (), validation, test, tuple(findings))


def _joint_findings(parts: ChatParts, kind: Kind, separator: str) -> tuple[str, ...]:
    """A word where most prompts and completions would run into each other."""
    if kind != "completion" or separator or not parts.train:
        return ()
    glued = [chat for chat in parts.train if _is_glued(chat.turns[-2].content, chat.turns[-1].content)]
    if len(glued) * 2 <= len(parts.train):
        return ()
    return (
        f"Between prompt and completion of {counted(len(glued), 'training row')} stands no white space, so that "
        "words run together: data.separator puts something between them.",
    )


def _is_glued(prompt: str, completion: str) -> bool:
    return prompt[-1:].isascii() and prompt[-1:].isalnum() and completion[:1].isascii() and completion[:1].isalnum()


def _split(parts: ChatParts, recipe: ConversationRecipe, kind: Kind, seed: int) -> ChatParts:
    """Split off the parts that were not given; chats that ask the same stay together."""
    if parts.validation is not None and parts.test is not None:
        return parts
    groups: dict[str, list[int]] = {}
    for number, chat in enumerate(parts.train):
        groups.setdefault(prompt_key(chat, kind), []).append(number)
    asked = list(groups.values())
    split = split_rows([0] * len(asked), _open_shares(parts, recipe.split), seed=seed)

    def taken(rows: Iterable[int]) -> tuple[Chat, ...]:
        return tuple(parts.train[i] for i in sorted(i for group in rows for i in asked[group]))

    validation = taken(split.validation) if parts.validation is None else parts.validation
    test = taken(split.test) if parts.test is None else parts.test
    made = ChatParts(taken(split.train), validation, test, parts.findings)
    took = [
        counted(len(chats), f"{name} row")
        for name, chats, given in (("validation", validation, parts.validation), ("test", test, parts.test))
        if given is None
    ]
    return made.saying(
        f"Split {counted(len(parts.train), 'row')} with seed {seed}: "
        f"{counted(len(made.train), 'training row')}, {', '.join(took)}."
    )


def _open_shares(parts: ChatParts, shares: tuple[float, float, float]) -> tuple[float, float, float]:
    """The shares with nothing for the parts that were given."""
    train, validation, test = shares
    if parts.validation is not None:
        return train / (train + test), 0.0, test / (train + test)
    if parts.test is not None:
        held_out = min(validation / (train + validation), MOST_HELD_OUT_ROWS / max(len(parts.train), 1))
        return 1 - held_out, held_out, 0.0
    return shares


def _too_few(parts: ChatParts, name: str, recipe: ConversationRecipe) -> DataError:
    left = len(parts.train) + len(parts.validation or ()) + len(parts.test or ())
    findings = " ".join(parts.findings)
    return DataError(
        f"Nothing is left for the {name} part: {counted(left, 'usable row')} in all of {recipe.source}. {findings}",
        expected="at least five different rows, and one for each part whose share is not 0.",
        action="add rows, or name the parts with --set data.train=... --set data.validation=... --set data.test=...",
    )


def _digest(kind: str, separator: str, parts: Sequence[Sequence[Chat]]) -> str:
    written = [[{**chat_to_json(chat), "place": ""} for chat in part] for part in parts]
    content = json.dumps([kind, separator, *written], sort_keys=True)
    return "sha256:" + hashlib.sha256(content.encode("ascii")).hexdigest()
