"""Byte tokens, `<0x00>` to `<0xFF>`: what a tokenizer with byte fallback spells an unknown character with."""

from __future__ import annotations

import re

_BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


def is_byte_token(piece: str) -> bool:
    """Whether a piece stands for one byte."""
    return _BYTE_TOKEN.fullmatch(piece) is not None
