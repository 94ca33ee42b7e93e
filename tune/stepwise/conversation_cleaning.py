"""Chats that teach nothing or deceive: empty ones, duplicates, and those that stand in two parts. Whatever is removed
is counted and said, as `tune/data/cleaning.py` does for labelled texts. Must not import torch or transformers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from edgetune.serve.codecs import visible
from edgetune.tune.data.cleaning import counted, title
from edgetune.tune.data.source_recipe import CleanRecipe
from edgetune.tune.stepwise.chats import Chat, Kind, Turn, prompt_key, whole_key
from edgetune.tune.stepwise.faults import places_of

Chats = tuple[Chat, ...]
_EMPTY_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")


@dataclass(frozen=True)
class ChatParts:
    """The chats of each part that was given, and what there is to say about them."""

    train: Chats
    validation: Chats | None = None
    test: Chats | None = None
    findings: tuple[str, ...] = ()

    def saying(self, *findings: str) -> ChatParts:
        """The same chats with more to say."""
        return replace(self, findings=self.findings + findings)

    def having(self, name: str, chats: Chats) -> ChatParts:
        """With other chats in the part `name`."""
        if name == "train":
            return replace(self, train=chats)
        return replace(self, validation=chats) if name == "validation" else replace(self, test=chats)


def clean_chats(parts: ChatParts, recipe: CleanRecipe, kind: Kind) -> ChatParts:
    """Tidy the words, drop what answers nothing or asks nothing, remove duplicates and what stands in two parts.

    A validation or test part that the user gave keeps its duplicates, so that a score on it can be compared with
    others; they are counted. Chats that ask what a later part also asks leave the earlier one.
    """
    for name in ("train", "validation", "test"):
        if getattr(parts, name) is None:
            continue
        parts = _tidy(parts, name, kind) if recipe.normalize else parts
        parts = _without_empty(parts, name, kind)
        parts = _without_ties(parts, name)
        parts = _deduplicated(parts, name, remove=recipe.deduplicate and name == "train")
    for part, others in (("train", ("validation", "test")), ("validation", ("test",))):
        for other in others:
            parts = _separated(parts, part, other, kind, remove=recipe.deduplicate)
    return parts


def _tidy(parts: ChatParts, name: str, kind: Kind) -> ChatParts:
    chats: Chats = getattr(parts, name)
    tidy = tuple(_tidied(chat, kind) for chat in chats)
    changed = sum(one != other for one, other in zip(tidy, chats, strict=True))
    parts = parts.having(name, tidy)
    if not changed:
        return parts
    return parts.saying(f"Stripped {counted(changed, 'row')} of the {title(name)} of outer white space, NUL or BOM.")


def _tidied(chat: Chat, kind: Kind) -> Chat:
    chat = chat.mapped(lambda turn: replace(turn, content=visible(turn.content)))
    if kind != "completion":
        return chat.mapped(_tidied_turn)
    # The white space between a prompt and its completion belongs to what is learnt.
    *before, prompt, completion = chat.turns
    outer = (replace(prompt, content=prompt.content.lstrip()), _right_stripped(completion))
    rejected = None if chat.rejected is None else _right_stripped(chat.rejected)
    return replace(chat, turns=(*before, *outer), rejected=rejected)


def _right_stripped(turn: Turn) -> Turn:
    return replace(turn, content=turn.content.rstrip())


def _tidied_turn(turn: Turn) -> Turn:
    content = without_leading_lines(turn.content).rstrip() if turn.role == "assistant" else turn.content.strip()
    return replace(turn, content=content)


def without_leading_lines(text: str) -> str:
    """An answer without empty lines before its first, whose indentation stays: it is part of a program.

    One space is none: it stands there by mistake more often than not.
    """
    begun = _EMPTY_LINES.sub("", text)
    stripped = begun.lstrip()
    return stripped if begun == f" {stripped}" else begun


def _without_empty(parts: ChatParts, name: str, kind: Kind) -> ChatParts:
    chats: Chats = getattr(parts, name)
    what = "a text" if kind == "text" else "an answer"
    answered = [chat for chat in chats if chat.answers]
    lost = [chat for chat in chats if not chat.answers]
    if lost:
        parts = parts.saying(_dropped(lost, f"without {what}", name))
    closed = [chat.without_open_end() for chat in answered]
    cut = sum(len(one.turns) != len(other.turns) for one, other in zip(closed, answered, strict=True))
    if cut:
        parts = parts.saying(f"Cut {counted(cut, 'row')} of the {title(name)} after their last answer.")
    asked = [chat for chat in closed if kind == "text" or _asks(chat)]
    if len(asked) < len(closed):
        parts = parts.saying(_dropped([chat for chat in closed if not _asks(chat)], "without a prompt", name))
    return parts.having(name, tuple(asked))


def _without_ties(parts: ChatParts, name: str) -> ChatParts:
    """The chats whose answer was not preferred to itself."""
    chats: Chats = getattr(parts, name)
    tied = [chat for chat in chats if chat.rejected is not None and chat.rejected == chat.turns[-1]]
    if not tied:
        return parts
    parts = parts.saying(_dropped(tied, "whose two answers are the same", name))
    return parts.having(name, tuple(chat for chat in chats if chat.rejected is None or chat.rejected != chat.turns[-1]))


def _asks(chat: Chat) -> bool:
    return any(turn.role == "user" and not turn.is_empty for turn in chat.turns)


def _dropped(chats: list[Chat], why: str, name: str) -> str:
    places = places_of([chat.place for chat in chats])
    return f"Dropped {counted(len(chats), 'row')} {why} from the {title(name)}: {places}."


def _deduplicated(parts: ChatParts, name: str, *, remove: bool) -> ChatParts:
    """One chat of each wording; of chats that ask the same and are answered otherwise all are kept."""
    chats: Chats = getattr(parts, name)
    first: dict[str, Chat] = {}
    for chat in chats:
        first.setdefault(whole_key(chat), chat)
    duplicates = len(chats) - len(first)
    if not duplicates:
        return parts
    did, where = ("Removed", "from") if remove else ("Kept", "in")
    parts = parts.saying(
        f"{did} {counted(duplicates, 'duplicate row')} {where} the {title(name)}: the same words but for case and "
        "spacing."
    )
    return parts.having(name, tuple(first.values())) if remove else parts


def _separated(parts: ChatParts, part: str, other: str, kind: Kind, *, remove: bool) -> ChatParts:
    """Take out of `part` the chats that ask what a chat of `other` asks."""
    chats: Chats | None = getattr(parts, part)
    later: Chats | None = getattr(parts, other)
    if chats is None or later is None:
        return parts
    held_out = {prompt_key(chat, kind) for chat in later}
    kept = tuple(chat for chat in chats if prompt_key(chat, kind) not in held_out)
    shared = len(chats) - len(kept)
    if not shared:
        return parts
    did, where = ("Removed", "from") if remove else ("Kept", "in")
    what = "text" if kind == "text" else "prompt"
    parts = parts.saying(
        f"{did} {counted(shared, 'row')} {where} the {title(part)} with a {what} that also stands in the "
        f"{title(other)}."
    )
    return parts.having(part, kept) if remove else parts
