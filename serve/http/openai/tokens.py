"""Single tokens as a client reads them in log-probabilities: their text, and their bytes where they are no text.

Decoding one token by itself would lose the space before a word and show half a character as a question mark, so the
vocabulary's own writing is undone here. Must import nothing but msgspec and the tokenizer's types.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from tokenizers import Tokenizer

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_WORD_SPACE = "\u2581"  # how SentencePiece writes a space


class TokenTexts:
    """The bytes of each token of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._alphabet = _byte_alphabet() if _is_byte_level(tokenizer) else None
        self._added = {number: token.content for number, token in tokenizer.get_added_tokens_decoder().items()}

    def raw(self, token: int) -> bytes:
        """The bytes that a token stands for; none for an id that the tokenizer does not know."""
        if token in self._added:
            return self._added[token].encode()
        written = self._tokenizer.id_to_token(token)
        if written is None:
            return b""
        if self._alphabet is not None and all(letter in self._alphabet for letter in written):
            return bytes(self._alphabet[letter] for letter in written)
        byte = _BYTE.fullmatch(written)
        if byte:
            return bytes([int(byte.group(1), 16)])
        return written.replace(_WORD_SPACE, " ").encode()

    def text(self, token: int) -> str:
        """A token as text; bytes that are no whole character as OpenAI writes them, `bytes:\\xe4`."""
        raw = self.raw(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def _is_byte_level(tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary is written in the byte alphabet, as the decoder that undoes it tells."""
    described: dict[str, Any] = msgspec.json.decode(tokenizer.to_str())
    return "ByteLevel" in _kinds(described.get("decoder"))


def _kinds(decoder: Any) -> set[str]:
    if not isinstance(decoder, dict):
        return set()
    parts = decoder.get("decoders") or []
    return {str(decoder.get("type"))}.union(*(_kinds(part) for part in parts))


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's letters for bytes (Radford et al. 2019, `bytes_to_unicode`): printable ones stand for themselves."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}
