"""Ids from remembered words are those of the tokenizer, whatever stands in a text."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from edgetune.serve.codecs import words
from edgetune.serve.codecs.text import EncodedText, TextCodec
from edgetune.serve.codecs.words import WordCache
from edgetune.serve.errors import InputError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "card", "lost", "a", "e", "1", "!", "?", "'", "##s", "##a", "##t", "中"]
# Words, their parts, and what normalizers, splitters and added tokens look at.
PARTS = [
    *"aAeéÉsſ1!?'中文 \t\n\r\0\ufeff\x1c\x85\u3000\xa0\u0301\u200bİΣ",
    "  ",
    "card",
    "Lost",
    "[CLS]",
    "[SEP]",
    "[UNK]",
]


def tokenizer_of(
    normalizer: object = None, splitter: object = None, *, frame: bool = True, added: str = ""
) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({piece: at for at, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizer or normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = splitter or pre_tokenizers.BertPreTokenizer()
    if frame:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in PIECES[:4]])
    if added:
        tokenizer.add_tokens([AddedToken(added)])
    return tokenizer


def codec_of(tokenizer: Tokenizer, folder: Path, most: int = 12) -> TextCodec:
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 0}), "utf-8")
    return TextCodec(folder, most)


def texts_of(count: int) -> list[str]:
    draw = random.Random(0)
    return ["", " ", *("".join(draw.choices(PARTS, k=draw.randint(0, 24))) for _ in range(count))]


@pytest.mark.parametrize(
    "tokenizer",
    [
        tokenizer_of(),
        tokenizer_of(normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()),
        tokenizer_of(splitter=pre_tokenizers.Whitespace(), frame=False),
        tokenizer_of(added="lost!"),
    ],
    ids=["bert", "lower case", "no special tokens", "an added token"],
)
@pytest.mark.parametrize("most_words", [words.MOST_WORDS, 100])
def test_every_text_has_the_ids_of_the_tokenizer(tokenizer, most_words, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(words, "MOST_WORDS", most_words)
    codec, texts = codec_of(tokenizer, tmp_path), texts_of(2_000)
    plain = codec_of(tokenizer, tmp_path)
    plain._words = None
    expected = plain.encode(texts)
    assert {row.truncated for row in expected} == {False, True}
    assert codec.encode(texts) == expected
    assert [codec.encode([text])[0] for text in texts] == expected  # from words that are known by now
    assert codec._words is not None
    assert len(codec._words._ids) <= most_words


def test_words_are_asked_for_once(tmp_path) -> None:
    codec = codec_of(tokenizer_of(), tmp_path)
    cache = codec._words
    assert cache is not None
    assert codec.encode(["Card  lost!"]) == [EncodedText([2, 4, 5, 9, 3], [0] * 5, False)]
    assert cache._ids == {"": (), "Card": (4,), "lost!": (5, 9)}
    cache._tokenizer = None  # nobody is asked any more
    assert cache.encode("lost! Card", 12) == [2, 5, 9, 4, 3]
    assert cache.encode("lost! Card", 4) is None  # it would have to be truncated
    assert cache.encode("a" * (words.LONGEST_TEXT + 1), 24) is None


@pytest.mark.parametrize(
    "tokenizer",
    [
        tokenizer_of(splitter=pre_tokenizers.Metaspace()),
        tokenizer_of(splitter=pre_tokenizers.Punctuation()),
        tokenizer_of(normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
        tokenizer_of(added="card lost"),
    ],
    ids=["joins blanks to words", "keeps blanks", "composes characters", "an added token with a blank"],
)
def test_no_words_are_remembered_where_a_blank_may_be_no_border(tokenizer, tmp_path) -> None:
    assert WordCache.of(tokenizer) is None
    codec, texts = codec_of(tokenizer, tmp_path), texts_of(50)
    assert [row.ids[0] for row in codec.encode(texts)] == [2] * len(texts)


def test_a_text_that_is_no_unicode_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="surrogate"):
        codec_of(tokenizer_of(), tmp_path).encode(["card \ud800"])
