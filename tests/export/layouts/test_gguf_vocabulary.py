"""The vocabulary of a GGUF file: what a tokenizer.json becomes, and which ones llama.cpp does not have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgetune.export.layouts.gguf_vocabulary import read_vocabulary
from edgetune.serve.errors import BundleError

ENDS = [2]


def spm_value(*pieces: str, merges: tuple[tuple[str, str], ...] = (), **changes) -> dict:
    """A tokenizer.json's value of Llama 2's kind: characters, bytes to fall back on, and merges by rank."""
    from tokenizers import Tokenizer, models, normalizers

    found = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", *pieces]
    vocabulary = {piece: place for place, piece in enumerate(found)}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges), unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.add_tokens(["<tool>"])
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return {**json.loads(tokenizer.to_str()), **changes}


PIECES = ("ab", "▁a", "▁ab")
MERGES = (("a", "b"), ("▁", "a"), ("▁", "ab"), ("▁a", "b"))


def read(value: dict, folder: Path, size: int = 267, bos: int | None = 1):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(value), "utf-8")
    return read_vocabulary(path, size, bos, ENDS)


def test_a_vocabulary_of_characters_gets_scores_by_the_rank_of_merges(tmp_path):
    found = read(spm_value(*PIECES, merges=MERGES), tmp_path)
    assert (found.rules.kind, found.rules.split, found.merges) == ("llama", "default", [])
    assert (found.adds_bos, found.adds_eos, found.rules.adds_space, found.rules.notes) == (False, False, True, ())
    assert found.pieces[259:] == ["▁", "a", "b", "ab", "▁a", "▁ab", "<tool>", "[unused266]"]
    assert found.kinds[:4] == [2, 3, 3, 6]
    assert found.kinds[259:] == [1, 1, 1, 1, 1, 1, 4, 5]
    assert found.scores[259:] == [-5.0, -5.0, -5.0, -1.0, -2.0, -3.0, -5.0, -5.0]
    assert found.unknown_id == 0


def test_a_tokenizer_without_a_space_in_front_is_gemmas(tmp_path):
    value = spm_value(
        *PIECES,
        merges=MERGES,
        normalizer={"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        pre_tokenizer={"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
    )
    rules = read(value, tmp_path).rules
    assert (rules.kind, rules.adds_space, rules.notes) == ("llama", False, ())


METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}


def test_a_space_that_is_put_once_is_told_to_the_reader(tmp_path):
    rules = read(spm_value(*PIECES, merges=MERGES, normalizer=None, pre_tokenizer=METASPACE), tmp_path).rules
    assert rules.adds_space
    assert [note.split(". ")[1].split(",")[0] for note in rules.notes] == ["llama.cpp always puts one"]
    never = {**METASPACE, "prepend_scheme": "never"}
    rules = read(spm_value(*PIECES, merges=MERGES, normalizer=None, pre_tokenizer=never), tmp_path).rules
    assert (rules.adds_space, rules.notes) == (False, ())


def token(text: str, place: int, **flags: bool) -> dict:
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": place, "content": text, **plain, **flags}


def phi3_tokens(**end: bool) -> list[dict]:
    kept = [token("<unk>", 0), token("<s>", 1), token("<|endoftext|>", 265)]
    return [*kept, token("</s>", 2, rstrip=True), token("<|end|>", 266, rstrip=True, **end)]


def test_tokens_that_swallow_spaces_are_known_as_phi_3s(tmp_path):
    value = spm_value(*PIECES, merges=MERGES, added_tokens=phi3_tokens())
    assert read(value, tmp_path).rules.strips_behind


UNKNOWN_CHARACTERS = {
    "a missing byte": ({"model": {"vocab": {"<unk>": 0, "a": 1}}}, "has not a piece for each byte"),
    "no space": ({"normalizer": None}, "splits text by nothing in a way of its own"),
    "a normal form": (
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}]}},
        "normalizes text by NFKC in a way of its own",
    ),
    "words": ({"normalizer": None, "pre_tokenizer": {**METASPACE, "split": True}}, "has pieces with spaces in them"),
    "Whitespace": ({"pre_tokenizer": {"type": "Whitespace"}}, "splits text by Whitespace in a way of its own"),
    "a missing merge": ({"model": {"merges": MERGES[:3]}}, "does not merge '▁a' and 'b', and llama.cpp would"),
    "scattered merges": (
        {"model": {"merges": [MERGES[0], MERGES[2], MERGES[1], MERGES[3]]}},
        "its merges to '▁ab' lie apart",
    ),
    "dropout": ({"model": {"dropout": 0.1}}, "its model has a dropout"),
    "one word": ({"added_tokens": [token("<x>", 265, single_word=True)]}, "token <x> looks at what stands before it"),
    "a half": ({"added_tokens": [*phi3_tokens()[:-1], token("<|x|>", 266)]}, "and not as in Phi-3"),
}


@pytest.mark.parametrize("name", UNKNOWN_CHARACTERS)
def test_a_tokenizer_of_characters_that_llama_cpp_has_not_is_refused(tmp_path, name):
    changes, wanted = UNKNOWN_CHARACTERS[name]
    value = spm_value(*PIECES, "b▁", merges=(*MERGES, ("b", "▁")))
    value["model"]["vocab"].pop("b▁")
    value["model"]["merges"].pop()
    if name == "words":
        value = spm_value(*PIECES, "b▁", merges=(*MERGES, ("b", "▁")))
    model = {**value["model"], **changes.get("model", {})}
    with pytest.raises(BundleError, match=wanted) as told:
        read({**value, **changes, "model": model}, tmp_path, size=300)
    assert told.value.found.startswith("The tokenizer is none that llama.cpp knows: ")


def test_runs_of_spaces_may_be_merged_in_any_order(tmp_path):
    """Llama 2's: one score for all of them, so that transformers sorts their merges by length."""
    halves = (("▁▁▁", "▁"), ("▁▁", "▁▁"), ("▁▁", "▁"), ("▁", "▁▁▁"), ("▁", "▁▁"), ("▁", "▁"))
    found = read(spm_value("▁▁", "▁▁▁", "▁▁▁▁", merges=halves), tmp_path)
    assert found.scores[262:265] == [-6.0, -3.0, -1.0]


def test_a_tokenizer_with_more_pieces_than_embeddings_is_refused(tmp_path):
    with pytest.raises(BundleError, match="a piece with the id 265, and the model 265 embeddings"):
        read(spm_value(*PIECES, merges=MERGES), tmp_path, size=265)


def test_a_piece_twice_is_refused(tmp_path):
    with pytest.raises(BundleError, match=r"stand for the piece '\[unused267\]'"):
        read(spm_value(*PIECES, "[unused267]", merges=MERGES), tmp_path, size=268)


def framed(*pieces: str) -> dict:
    parts = [
        {"Sequence": {"id": "A", "type_id": 0}} if one == "A" else {"SpecialToken": {"id": one, "type_id": 0}}
        for one in pieces
    ]
    ids = {"<s>": 1, "</s>": 2}
    known = {name: {"id": name, "ids": [place], "tokens": [name]} for name, place in ids.items() if name in pieces}
    return {"type": "TemplateProcessing", "single": parts, "pair": [], "special_tokens": known}


@pytest.mark.parametrize(
    ("frame", "wanted"),
    [(("<s>", "A"), (True, False)), (("<s>", "A", "</s>"), (True, True)), (("A", "</s>"), (False, True))],
)
def test_what_stands_around_a_text_is_told(tmp_path, frame, wanted):
    found = read(spm_value(*PIECES, merges=MERGES, post_processor=framed(*frame)), tmp_path)
    assert (found.adds_bos, found.adds_eos) == wanted


@pytest.mark.parametrize("frame", [("</s>", "A"), ("<s>", "<s>", "A"), ("<s>", "A", "<s>")])
def test_another_frame_is_refused(tmp_path, frame):
    value = spm_value(*PIECES, merges=MERGES, post_processor=framed(*frame))
    with pytest.raises(BundleError, match=r"The tokenizer puts the tokens \[.*\] before a text and \[.*\] behind it"):
        read(value, tmp_path)


LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def split_by(pattern: str, **changes) -> dict:
    rule = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False, **changes}
    return {"type": "Sequence", "pretokenizers": [rule, BYTES]}


DIGITS = {"type": "Digits", "individual_digits": True}
SPLITS = {
    "llama-bpe": split_by(LLAMA3),
    "qwen2": split_by(LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")),
    "smollm": {"type": "Sequence", "pretokenizers": [DIGITS, {**BYTES, "use_regex": True}]},
    "gpt-2": {**BYTES, "use_regex": True},
}


@pytest.fixture
def byte_value(tiny_decoder) -> dict:
    return json.loads((tiny_decoder("llama") / "tokenizer.json").read_text("utf-8"))


@pytest.mark.parametrize("name", SPLITS)
def test_the_rule_that_splits_text_is_known_by_its_name(byte_value, tmp_path, name):
    found = read({**byte_value, "pre_tokenizer": SPLITS[name]}, tmp_path, size=288)
    assert (found.rules.kind, found.rules.split, found.scores) == ("gpt2", name, [])
    assert (found.adds_bos, found.adds_eos, found.unknown_id) == (True, False, None)


def test_qwens_normal_form_is_told_to_the_reader(byte_value, tmp_path):
    (note,) = read({**byte_value, "normalizer": {"type": "NFC"}}, tmp_path, size=288).rules.notes
    assert "normal form C, llama.cpp does not" in note


UNKNOWN_BYTES = {
    "a pattern": ({"pre_tokenizer": split_by("x")}, "it splits text by Split and ByteLevel in a way of its own"),
    "removed": ({"pre_tokenizer": split_by(LLAMA3, behavior="Removed")}, "by Split and ByteLevel in a way of its own"),
    "no split": ({"pre_tokenizer": None}, "it splits text by nothing"),
    "a space": ({"pre_tokenizer": {**SPLITS["gpt-2"], "add_prefix_space": True}}, "it puts a space before a text"),
    "lower case": ({"normalizer": {"type": "Lowercase"}}, "it normalizes text by Lowercase"),
    "words": ({"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}, "its model is WordLevel"),
}


@pytest.mark.parametrize("name", UNKNOWN_BYTES)
def test_a_tokenizer_of_bytes_that_llama_cpp_has_not_is_refused(byte_value, tmp_path, name):
    changes, wanted = UNKNOWN_BYTES[name]
    with pytest.raises(BundleError, match=wanted):
        read({**byte_value, **changes}, tmp_path, size=288)


@pytest.mark.parametrize(("split", "whole", "does"), [("gpt-2", True, "does not take"), ("llama-bpe", False, "takes")])
def test_words_that_are_taken_whole_must_not_matter(byte_value, tmp_path, split, whole, does):
    """Llama 3's tokenizer takes a word that is a piece as it is, without merging it, and so does llama.cpp's of it."""
    value = {**byte_value, "pre_tokenizer": SPLITS[split]}
    assert read({**value, "model": {**value["model"], "ignore_merges": whole}}, tmp_path, size=288)
    word = next(piece for piece in value["model"]["vocab"] if len(piece) == 4 and piece.isalpha())
    merges = [pair for pair in value["model"]["merges"] if "".join(pair) != word]
    with pytest.raises(BundleError, match=f"llama.cpp {does} words that are pieces as they are, and '"):
        read({**value, "model": {**value["model"], "ignore_merges": whole, "merges": merges}}, tmp_path, size=288)
