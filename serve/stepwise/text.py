"""Tokens to text while they come: no half characters, no lost spaces, and nothing of a stop string.

It stands apart so that all of a stream's text rules can be read and tested without a graph.
"""

from __future__ import annotations

from collections.abc import Sequence

from edgetune.serve.stepwise.codec import TokenCodec

# What decoding shows for bytes that are no character yet. While a good character comes there are few of them (some
# tokenizers show one for each byte of a run); after more, nothing good will come of them.
_BROKEN = "\N{REPLACEMENT CHARACTER}"
_MOST_BROKEN = 8
# Tokens of the prompt that the first piece is decoded behind, enough for the rules about leading spaces; and so many
# more where they would begin within a character, which has at most four bytes.
CONTEXT_TOKENS = 6
CHARACTER_BYTES = 4


class TextStream:
    """Turns the ids of one answer into text, piece by piece.

    New ids are decoded together with the few before them, and the text of those is taken off: a tokenizer that drops
    the space before a text's first word would otherwise drop one in each piece. (So do the servers of Hugging Face:
    text-generation-inference, `decode_token`.)
    """

    def __init__(self, codec: TokenCodec, prompt: Sequence[int] = ()) -> None:
        """Begin behind a prompt's last tokens."""
        self._codec = codec
        self._before = _context(codec, prompt)
        self._new: list[int] = []
        self._shown = len(codec.decode(self._before))  # characters of `_before` and `_new` that are out already

    def push(self, token: int) -> str:
        """The text that is complete with this token; empty while a character lacks bytes."""
        self._new.append(token)
        text = self._codec.decode(self._before + self._new)
        ready = len(text.rstrip(_BROKEN))
        if len(text) - ready > _MOST_BROKEN:
            ready = len(text)
        piece = text[self._shown : ready]
        self._shown = max(self._shown, ready)
        # Ids without text (special ones) stay in: decoded behind them alone, a word would look like the first.
        if piece and ready == len(text):
            self._before, self._new = self._new, []
            self._shown = len(self._codec.decode(self._before))
        return piece

    def flush(self) -> str:
        """What is left at the end of an answer: bytes that became no character."""
        return self._codec.decode(self._before + self._new)[self._shown :] if self._new else ""


def _context(codec: TokenCodec, prompt: Sequence[int]) -> list[int]:
    """The last ids of a prompt, beginning with a whole character."""
    for size in range(CONTEXT_TOKENS, CONTEXT_TOKENS + CHARACTER_BYTES):
        context = list(prompt[-size:])
        if not codec.decode(context).startswith(_BROKEN):
            return context
    return list(prompt[-CONTEXT_TOKENS:])


class StopStrings:
    """Finds the first of some strings in text that comes in pieces; holds back only what might begin one."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """The text that may be shown, and whether a stop string has come (the text before it is shown)."""
        text = self._held + piece
        # The string that is whole first counts, so that it does not matter how the text was cut.
        stops = [(place + len(one), place) for one in self._stop if (place := text.find(one)) >= 0]
        if stops:
            self._held = ""
            return text[: min(stops)[1]], True
        held = max((_overlap(text, one) for one in self._stop), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held], False

    def flush(self) -> str:
        """What was held back, when the answer ends without a stop string."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """The most characters at the end of `text` that are the beginning of `stop`, but not all of it."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
