"""Pairs of texts: the same rows as transformers makes, whatever the tokenizer and however long the texts."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from edgetune.serve.codecs import open_codec
from edgetune.serve.codecs.text_pair import longest_first
from edgetune.serve.errors import BundleDamaged, BundleFormatError, InputError

LINES = ["where is my parcel", "my card has not arrived", "money back, please!", "the card 27 is lost"] * 4


def wordpiece() -> Tokenizer:
    """As BERT has it: [CLS] A [SEP] B [SEP], the second text of type 1."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(LINES, trainers.WordPieceTrainer(vocab_size=80, special_tokens=specials))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def byte_level() -> Tokenizer:
    """As RoBERTa has it: <s> A </s></s> B </s>, all of type 0."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<s>", "<pad>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=330, special_tokens=specials, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def unigram() -> Tokenizer:
    """As XLNet has it: A <sep> B <sep> <cls>, the last of type 2."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    specials = ["<unk>", "<sep>", "<cls>"]
    trainer = trainers.UnigramTrainer(vocab_size=60, special_tokens=specials, unk_token="<unk>")
    tokenizer.train_from_iterator(LINES, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A:0 <sep>:0 <cls>:2",
        pair="$A:0 <sep>:0 $B:1 <sep>:1 <cls>:2",
        special_tokens=[("<sep>", 1), ("<cls>", 2)],
    )
    return tokenizer


def bare() -> Tokenizer:
    """No special token at all."""
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.Sequence([])
    return tokenizer


KINDS = {"wordpiece": wordpiece, "byte_level": byte_level, "unigram": unigram, "bare": bare}


def written(tokenizer: Tokenizer, folder: Path, side: str = "right") -> Path:
    """A folder with the two files that a codec reads."""
    tokenizer.enable_truncation(99, direction=side)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"pad_token_id": 1}))
    return folder


def pairs() -> list[tuple[str, str]]:
    """Every combination of lengths around a limit of 12, and some far beyond it."""
    chosen = random.Random(3)
    words = " ".join(LINES).split()
    lengths = [0, 1, 2, 3, 4, 5, 6, 9, 30]
    return [
        (" ".join(chosen.choices(words, k=one)), " ".join(chosen.choices(words, k=two)))
        for one in lengths
        for two in lengths
    ]


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_tokens", [11, 12, 64])
@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_are_those_of_transformers(kind, max_tokens, side, tmp_path):
    from transformers import PreTrainedTokenizerFast

    codec = open_codec("text-pair", written(KINDS[kind](), tmp_path, side), max_tokens)
    # From the file: training a tokenizer again may order its tokens otherwise.
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), truncation_side=side)
    examples = pairs()
    rows = codec.encode(examples)
    whole = theirs([a for a, _ in examples], [b for _, b in examples])["input_ids"]
    wanted = theirs(
        [a for a, _ in examples],
        [b for _, b in examples],
        truncation=True,
        max_length=max_tokens,
        return_token_type_ids=True,
    )
    # A pair without a token is read as one of padding: no graph answers a row of none.
    assert [row.ids for row in rows] == [ids or [1] for ids in wanted["input_ids"]]
    assert [row.type_ids for row in rows] == [types or [0] for types in wanted["token_type_ids"]]
    assert [row.truncated for row in rows] == [len(ids) > max_tokens for ids in whole]
    assert {row.truncated for row in rows} == ({True, False})
    assert [codec.encode([each])[0] for each in examples] == rows


def test_longest_first_is_the_library_s():
    for room in (0, 1, 2, 7, 8):
        for first in range(20):
            for second in range(20):
                got = longest_first(first, second, room)
                assert sum(got) == min(room, first + second)
                assert got[0] <= first
                assert got[1] <= second
    assert longest_first(9, 2, 8) == (6, 2)
    assert longest_first(2, 9, 8) == (2, 6)
    assert longest_first(9, 8, 7) == (4, 3)
    assert longest_first(8, 9, 7) == (3, 4)
    assert longest_first(9, 9, 7) == (3, 4)


def test_two_long_texts_make_one_row(tmp_path):
    codec = open_codec("text-pair", written(wordpiece(), tmp_path), 64)
    long = "card " * 20_000
    # The library's own pair of these keeps 400,000 combinations, for which it takes half a minute.
    row = codec.encode([(long, long)])[0]
    assert (row.size, row.truncated) == (64, True)


@pytest.fixture
def codec(tmp_path) -> Any:
    return open_codec("text-pair", written(wordpiece(), tmp_path), 16)


def test_every_way_to_give_a_pair_is_the_same(codec):
    import numpy as np

    forms = [("card", "money"), ["card", "money"], {"text": "card", "text_pair": "money"}, np.array(["card", "money"])]
    rows = codec.encode(forms)
    assert all(row == rows[0] for row in rows)
    assert codec.texts(forms[:2]) == ["card", "money", "card", "money"]
    assert codec.encode([("money", "card")])[0] != rows[0]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("card", "Input 1 is a single text"),
        (("card",), "Input 1 is no pair of texts"),
        (("card", "money", "more"), "Input 1 is no pair of texts"),
        (3, "Input 1 is no pair of texts: 3"),
        (None, "Input 1 is no pair of texts"),
        (("card", None), "Input 1 is a pair of str and NoneType"),
        ({"text": "card"}, "Input 1 is no pair of texts"),
        ({"text": "card", "pair": "money"}, "Input 1 is no pair of texts"),
    ],
)
def test_what_is_no_pair_is_named_with_what_is_expected(codec, value, message):
    with pytest.raises(InputError, match=message) as caught:
        codec.encode([("card", "money"), value])
    assert caught.value.expected.startswith("a pair of strings")


def test_a_pair_for_single_texts_is_refused(tmp_path):
    codec = open_codec("text", written(wordpiece(), tmp_path), 16)
    with pytest.raises(InputError, match="Text 0 is of type tuple") as caught:
        codec.encode([("card", "money")])
    assert caught.value.expected == "a string, since this bundle answers single texts"


def test_an_unpaired_surrogate_is_refused(codec):
    with pytest.raises(InputError, match="unpaired surrogate"):
        codec.encode([("card", "\ud800")])


@pytest.mark.parametrize("name", ["text", "text-pair"])
def test_samples_have_the_sizes_asked_for(name, tmp_path):
    codec = open_codec(name, written(wordpiece(), tmp_path), 16)
    rows = codec.samples([1, 8, 16])
    assert [row.size for row in rows] == [1, 8, 16]
    feed = codec.pad(rows)
    assert {value.shape for value in feed.values()} == {(3, 16)}
    assert feed["attention_mask"].sum() == 25
    assert feed["input_ids"][0, 1:].tolist() == [1] * 15  # pad_token_id
    assert bool(feed["token_type_ids"].max() == 1) is (name == "text-pair")


def test_a_tokenizer_that_doubles_a_text_is_refused(tmp_path):
    tokenizer = wordpiece()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A:0 $B:1 $A:0", special_tokens=[])
    with pytest.raises(BundleDamaged, match="joins a pair of texts in a way that is not known"):
        open_codec("text-pair", written(tokenizer, tmp_path), 16)


def test_a_codec_of_a_later_release_is_refused(tmp_path):
    with pytest.raises(BundleFormatError, match="inputs of the kind 'sound'") as caught:
        open_codec("sound", tmp_path, 16)
    assert caught.value.action == "install a newer edgetune"
