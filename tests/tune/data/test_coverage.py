"""What a base takes in of a data set, by tokenizers whose answers are known by hand."""

import json
from collections import Counter

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from edgetune.tune.data.coverage import MOST_TEXTS, Coverage, balance_findings, coverage_of_folder

WORDS = {word: place for place, word in enumerate(["[UNK]", "[CLS]", "card", "lost", "my"])}


def word_level():
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", pair="[CLS] $A $B", special_tokens=[("[CLS]", 1)]
    )
    return tokenizer.to_str()


def unigram():
    pieces = [("<unk>", 0.0), ("\u2581card", -1.0), ("\u2581", -2.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer.to_str()


def test_texts_that_are_cut_and_unknown_tokens_are_counted():
    coverage = Coverage.of(word_level(), ["my card", "lost my card", "mein card", "lost lost lost lost"], 4)
    assert (coverage.texts, coverage.tokens, coverage.cut, coverage.unknown) == (4, 15, 1, 1)
    assert coverage.findings == (
        "25.0% of 4 training texts are longer than 4 tokens and are cut there.",
        "6.7% of the tokens of 4 training texts are unknown to the base: "
        "choose a base that was trained on this language.",
    )


def test_pairs_are_measured_together():
    coverage = Coverage.of(word_level(), [("my card", "lost"), ("my", "my")], 3)
    assert (coverage.tokens, coverage.cut, coverage.unknown) == (7, 1, 0)


def test_a_unigram_model_has_its_own_unknown_token():
    assert Coverage.of(unigram(), ["card", "\u5361"], 8).unknown == 1


def test_what_fits_is_not_mentioned():
    assert Coverage.of(word_level(), ["my card"] * 3, 8).findings == ()


def test_a_large_part_is_sampled_and_always_alike():
    texts = ["my card"] * 900 + ["lost " * 20] * 900
    coverage = Coverage.of(word_level(), texts, 8)
    assert coverage.texts == MOST_TEXTS
    assert 0.4 < coverage.cut_share < 0.6
    assert coverage == Coverage.of(word_level(), texts, 8)


def test_a_folder_tells_its_limit_and_one_without_a_tokenizer_nothing(tmp_path):
    assert coverage_of_folder(tmp_path, ["my card"]) is None
    (tmp_path / "tokenizer.json").write_text(word_level(), encoding="utf-8")
    assert coverage_of_folder(tmp_path, ["my card"]).max_tokens == 512
    (tmp_path / "config.json").write_text(json.dumps({"max_position_embeddings": 96}), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1e30}), encoding="utf-8")
    assert coverage_of_folder(tmp_path, ["my card"]).max_tokens == 96
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 2}), encoding="utf-8")
    assert coverage_of_folder(tmp_path, ["my card"]).cut == 1


@pytest.mark.parametrize(
    ("counts", "share"),
    [
        ({"ham": 95, "spam": 5}, "95.0%"),
        ({"a": 60, "b": 20, "c": 20}, "60.0%"),
        ({"a": 70, "b": 30}, ""),
        ({"a": 4}, ""),
    ],
)
def test_a_class_that_a_constant_answer_would_serve_is_said(counts, share):
    found = balance_findings(Counter(counts))
    assert len(found) == bool(share)
    assert not share or share in found[0]
