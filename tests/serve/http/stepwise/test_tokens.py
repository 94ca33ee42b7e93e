"""Single tokens as text and bytes, for the two ways in which vocabularies are written."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from edgetune.serve.http.openai.tokens import TokenTexts


@pytest.fixture
def byte_level():
    """GPT-2's writing: a letter for every byte."""
    vocabulary = {"a": 0, "\u0120card": 1, "\u00e5": 2, "\u012f": 3, "\u013c": 4, "\u00e5\u012f\u00a1": 5, "\u010a": 6}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("</s>", special=True)])
    return TokenTexts(tokenizer)


@pytest.fixture
def sentencepiece():
    """Llama 2's: a bar for a space, and bytes by their number."""
    vocabulary = {"<unk>": 0, "\u2581card": 1, "s": 2, "<0xE5>": 3, "<0x0A>": 4, "caf\u00e9": 5, "\u2581": 6}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    steps = [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)])
    return TokenTexts(tokenizer)


@pytest.mark.parametrize(
    ("token", "raw", "text"),
    [
        (0, b"a", "a"), (1, b" card", " card"), (2, b"\xe5", "bytes:\\xe5"), (5, "卡".encode(), "卡"), (6, b"\n", "\n"),
        (7, b"</s>", "</s>"), (99, b"", ""),
    ],
)  # fmt: skip
def test_tokens_of_a_byte_alphabet(byte_level, token, raw, text):
    assert (byte_level.raw(token), byte_level.text(token)) == (raw, text)


def test_bytes_of_several_tokens_are_a_character_together(byte_level):
    assert b"".join(byte_level.raw(token) for token in (2, 3, 4)) == b"\xe5\x8d\x9a"


@pytest.mark.parametrize(
    ("token", "raw", "text"),
    [
        (1, b" card", " card"), (2, b"s", "s"), (3, b"\xe5", "bytes:\\xe5"), (4, b"\n", "\n"),
        (5, "café".encode(), "café"), (6, b" ", " "),
    ],
)  # fmt: skip
def test_tokens_of_sentencepiece(sentencepiece, token, raw, text):
    assert (sentencepiece.raw(token), sentencepiece.text(token)) == (raw, text)
