"""Trimmed vocabularies: texts that were seen keep their tokens and logits, and no text gets a new unknown."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from edgetune.compress.material import Material
from edgetune.compress.schemes import trimmed
from edgetune.compress.vocabulary.document import Vocabulary, renumbered_settings
from edgetune.export.once.tokenizer import check_tokenizer
from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import CompressError
from edgetune.tune.data.dataset import Part
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.progress import Silent

LABELLING = TASKS["text-classification"]

BASES = ("bert", "distilbert", "roberta", "electra", "albert", "mpnet", "deberta_v2", "modernbert", "xlm_roberta")
TRAIN = ("my card was lost abroad", "why can i not see the cash machine", "a new password, please!", "naïve 50 euros")
OTHER = ("the transfer to my recipient", "username and fingerprint", "Żółw ## 中文 ☃ <s> [SEP] ñ", "withdrawals", "")


def part(texts: Sequence[str]) -> Part:
    return Part(tuple(texts), (0,) * len(texts))


def material_of(folder: Path, train: Sequence[str] = TRAIN, unlabeled: Sequence[str] = ()) -> Material:
    """What a scheme works with, for a model folder `folder/model`."""
    head = HeadSpec(kind="label", labels=["a", "b", "c", "d"])
    tuned = TunedModel(folder, "text-classification", head, "tiny", "", 96, 0.0, None)  # type: ignore[arg-type]
    return Material(tuned, part(train), part(OTHER[:4]), tuple(unlabeled), "cpu", "cpu", 0, Silent())


@pytest.fixture(scope="session")
def tiny_classifier(
    tiny_base: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """A folder with `model/`: a tiny checkpoint with a random head for 4 labels, saved with its tokenizer."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(f"classifier-{name}")
            torch.manual_seed(3)
            model = AutoModelForSequenceClassification.from_pretrained(tiny_base(name), num_labels=4)
            model.save_pretrained(made[name] / "model")
            AutoTokenizer.from_pretrained(tiny_base(name)).save_pretrained(made[name] / "model")
        return made[name]

    return folder


def logits(folder: Path, texts: Sequence[str]) -> np.ndarray:
    return model_logits(open_model(folder), Encoder(AutoTokenizer.from_pretrained(folder), 96, LABELLING), texts)


def unknown_places(vocabulary: Vocabulary, unknown: str, text: str) -> set[int]:
    """The characters of `text` that an unknown token stands for."""
    encoding = vocabulary.tokenizer.encode(text, add_special_tokens=False)
    number = vocabulary.tokenizer.token_to_id(unknown)
    spans = zip(encoding.ids, encoding.offsets, strict=True)
    return {place for found, (start, end) in spans if found == number for place in range(start, end)}


def trim(vocabulary: Vocabulary, texts: Sequence[str]) -> tuple[Vocabulary, list[int]]:
    kept = vocabulary.needed({number for split in vocabulary.splits(texts) for number in split})
    return vocabulary.cut(kept), kept


@pytest.mark.parametrize("name", BASES)
def test_a_trimmed_model_answers_seen_texts_as_before(name, tiny_classifier, tmp_path):
    source = tiny_classifier(name)
    line = trimmed.compress(material_of(source, unlabeled=["cash after Monday evening"]), tmp_path, 0)

    target = tmp_path / "model"
    assert {file.name for file in target.iterdir()} == {file.name for file in (source / "model").iterdir()}
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in (source / "model", target))
    facts = json.loads((tmp_path / "trimmed.json").read_text(encoding="utf-8"))
    assert facts["before"] == len(old) > facts["kept"] == len(new)
    differing = [text for text in OTHER[:4] if old.tokenize(text) != new.tokenize(text)]
    assert facts["texts_split_differently_share"] == len(differing) / 4 > 0
    assert line == (
        f"kept {len(new)} of {len(old)} tokens; {len(differing) / 4:.1%} of the validation texts split differently"
    )

    texts = [*TRAIN, "cash after Monday evening"]
    np.testing.assert_array_equal(logits(target, texts), logits(source / "model", texts))
    assert not np.array_equal(logits(target, differing), logits(source / "model", differing))
    check_tokenizer(target / "tokenizer.json", Encoder(new, 96, LABELLING), [*texts, *OTHER])
    rows = old.convert_tokens_to_ids(new.convert_ids_to_tokens(range(len(new))))
    before, after = (open_model(folder).get_input_embeddings() for folder in (source / "model", target))
    assert torch.equal(after.weight, before.weight[rows])
    assert open_model(target).config.vocab_size == len(new)


@pytest.mark.parametrize("name", BASES)
def test_special_tokens_keep_their_part_under_their_new_numbers(name, tiny_classifier, tmp_path):
    source = tiny_classifier(name) / "model"
    trimmed.compress(material_of(tiny_classifier(name)), tmp_path, 0)
    old, new = (AutoTokenizer.from_pretrained(folder) for folder in (source, tmp_path / "model"))
    assert new.special_tokens_map == old.special_tokens_map
    assert (
        old.convert_ids_to_tokens(old("card")["input_ids"])[:1]
        == new.convert_ids_to_tokens(new("card")["input_ids"])[:1]
    )
    before, after = (open_model(folder).config for folder in (source, tmp_path / "model"))
    numbers = [key for key, value in before.to_dict().items() if key.endswith("_token_id") and value is not None]
    assert "pad_token_id" in numbers
    for key in numbers:
        named = old.convert_ids_to_tokens(getattr(before, key))
        assert new.convert_ids_to_tokens(getattr(after, key)) == named
    assert open_model(tmp_path / "model").get_input_embeddings().padding_idx == new.pad_token_id


@pytest.fixture(scope="session")
def vocabulary_of(tiny_base: Callable[[str], Path]) -> Callable[[str], tuple[Vocabulary, str]]:
    """Gives vocabularies of each kind and their unknown token; made once, since a property looks at many texts."""
    tiny = {
        name: (Vocabulary.open(tiny_base(name) / "tokenizer.json"), unknown)
        for name, unknown in (
            ("bert", "[UNK]"), ("roberta", "<unk>"), ("modernbert", "[UNK]"),
            ("albert", "<unk>"), ("deberta_v2", "[UNK]"), ("xlm_roberta", "<unk>"),
        )
    }  # fmt: skip
    made = {
        **tiny,
        "bpe_with_bytes": (bpe_with_bytes(), "<unk>"),
        "unigram_with_bytes": (unigram_with_bytes(), "<unk>"),
    }
    return lambda kind: made[kind]


BYTES = [f"<0x{number:02X}>" for number in range(256)]


def bpe_with_bytes() -> Vocabulary:
    """BPE over characters, as SentencePiece makes it: any split of a token is a merge, unknown characters are bytes."""
    words = ["▁card", "▁cash", "rd", "sh", "▁c", "▁ca", "ca", "car", "as", "ash"]
    letters = sorted({letter for word in words for letter in word})
    vocab = {token: number for number, token in enumerate(["<unk>", *BYTES, *letters, *words])}
    splits = [(word[:cut], word[cut:]) for word in words for cut in range(1, len(word))]
    merges = sorted((pair for pair in splits if set(pair) <= set(vocab)), key=lambda pair: len("".join(pair)))
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.ByteFallback()
    return Vocabulary.of(json.loads(tokenizer.to_str()))


def unigram_with_bytes() -> Vocabulary:
    words = [("▁card", -3.0), ("▁ca", -4.0), ("rd", -4.5), ("sh", -5.0), ("▁cash", -3.5), ("ash", -9.75)]
    letters = [(letter, -6.0) for letter in sorted({letter for word, _ in words for letter in word})]
    vocab = [("<unk>", 0.0), *((token, -8.0) for token in BYTES), *letters, *words]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return Vocabulary.of(json.loads(tokenizer.to_str()))


KINDS = ("bert", "roberta", "modernbert", "albert", "deberta_v2", "xlm_roberta", "bpe_with_bytes", "unigram_with_bytes")
LIKELY = st.text(st.sampled_from("abcdehilmnoprstuwy  ,!05ïé中☃\n#▁"), max_size=40)
WORDS = st.lists(
    st.sampled_from("card cash the password withdrawal banknote cards recash again Monday café [SEP] <s>".split())
).map(" ".join)
TEXTS = st.one_of(WORDS, LIKELY, st.text(max_size=30))


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(seen=st.lists(st.one_of(WORDS, LIKELY), max_size=3), text=TEXTS)
def test_any_text_still_splits_into_old_tokens_without_a_new_unknown(vocabulary_of, kind, seen, text):
    whole, unknown = vocabulary_of(kind)
    assert whole.unsupported() == ""
    cut, kept = trim(whole, seen)

    assert list(cut.splits(seen)) == [[kept.index(number) for number in split] for split in whole.splits(seen)]
    names, old_names = cut.tokenizer.id_to_token, whole.tokenizer.id_to_token
    assert [names(number) for number in range(len(cut))] == [old_names(number) for number in kept]
    assert len(cut) == len(kept)
    encoding = cut.tokenizer.encode(text, add_special_tokens=False)
    assert set(encoding.ids) <= set(range(len(kept)))
    assert unknown_places(cut, unknown, text) <= unknown_places(whole, unknown, text)
    # The same characters (or bytes), whatever the split.
    assert spelled(cut, text) == spelled(whole, text)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_text_over_the_kept_alphabet_tokenizes(vocabulary_of, kind, data):
    whole, unknown = vocabulary_of(kind)
    cut, _ = trim(whole, TRAIN[:1])
    prefix = cut.document["model"].get("continuing_subword_prefix") or ""
    pieces = set(cut.tokenizer.get_vocab())
    alphabet = sorted(piece for piece in pieces if len(piece) == 1 and prefix + piece in pieces and piece.isascii())
    text = data.draw(st.text(st.sampled_from([*alphabet, " "]), max_size=40))
    assert cut.tokenizer.token_to_id(unknown) not in next(cut.splits([text]))


def spelled(vocabulary: Vocabulary, text: str) -> str:
    return "".join(token.removeprefix("##") for token in tokens(vocabulary, text))


def by_hand(model: Any, pre_tokenizer: Any, added: Sequence[str] = ()) -> Vocabulary:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.add_special_tokens(list(added))
    return Vocabulary.of(json.loads(tokenizer.to_str()))


def tokens(vocabulary: Vocabulary, text: str) -> list[str]:
    found: list[str] = vocabulary.tokenizer.encode(text, add_special_tokens=False).tokens
    return found


def wordpiece(*pieces: str) -> Vocabulary:
    vocab = {piece: number for number, piece in enumerate(["[PAD]", "[UNK]", *pieces])}
    return by_hand(models.WordPiece(vocab, unk_token="[UNK]"), pre_tokenizers.BertPreTokenizer(), ["[PAD]", "[UNK]"])


def test_wordpiece_spells_what_was_dropped():
    letters = "c a r d t s ##c ##a ##r ##d ##t ##s".split()
    whole = wordpiece("cat", "car", *letters, "card", "##ds", "##rds")
    cut, kept = trim(whole, ["card"])
    assert [whole.tokenizer.id_to_token(number) for number in kept] == ["[PAD]", "[UNK]", *letters, "card"]
    assert tokens(whole, "cat cards car") == ["cat", "card", "##s", "car"]
    assert tokens(cut, "cat cards car") == ["c", "##a", "##t", "card", "##s", "c", "##a", "##r"]


def test_bpe_keeps_what_a_token_is_merged_from_and_the_order_of_merges():
    letters = list("eloprstw")
    words = ["lo", "low", "er", "st", "est", "lower", "lowest", "ow", "slow"]
    vocab = {token: number for number, token in enumerate([*letters, *words])}
    merges = [("o", "w"), ("l", "o"), ("lo", "w"), ("e", "r"), ("s", "t"), ("e", "st"), ("l", "ow"), ("low", "er")]
    merges += [("low", "est"), ("s", "low")]
    whole = by_hand(models.BPE(vocab, merges), pre_tokenizers.Whitespace())
    cut, _ = trim(whole, ["lower"])
    assert tokens(whole, "lower slow lowest") == ["lower", "slow", "lowest"]
    assert set(cut.tokenizer.get_vocab()) == {*letters, "lo", "ow", "low", "er", "lower"}
    assert cut.document["model"]["merges"] == [list(pair) for pair in [*merges[:4], merges[6], merges[7]]]
    assert tokens(cut, "lower slow lowest") == ["lower", "s", "low", "low", "e", "s", "t"]


def test_unigram_keeps_the_least_likely_piece_that_the_price_of_unknowns_is_counted_from():
    pieces = [("<unk>", 0.0), ("a", -2.0), ("b", -2.0), ("ab", -3.0), ("abab", -4.5), ("ba", -9.0), ("aa", -1.0)]
    whole = by_hand(models.Unigram(pieces, unk_id=0), pre_tokenizers.Whitespace(), ["<unk>"])
    cut, kept = trim(whole, ["ab"])
    assert [pieces[number][0] for number in kept] == ["<unk>", "a", "b", "ab", "ba"]
    assert tokens(whole, "abab aa") == ["abab", "aa"]
    assert tokens(cut, "abab aa") == ["ab", "ab", "a", "a"]


def test_tokens_beside_the_model_padding_and_nested_templates_are_renumbered():
    tokenizer = Tokenizer(
        models.WordPiece({"a": 0, "b": 1, "##a": 2, "##b": 3, "ab": 4, "[UNK]": 5}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    tokenizer.post_processor = processors.Sequence(
        [processors.BertProcessing(("[SEP]", 8), ("[CLS]", 7)), processors.ByteLevel()]
    )
    tokenizer.enable_padding(pad_id=6, pad_token="[PAD]")
    whole = Vocabulary.of(json.loads(tokenizer.to_str()))
    cut, kept = trim(whole, ["a"])
    assert kept == [0, 1, 2, 3, 5, 6, 7, 8]
    assert cut.tokenizer.encode("ab").ids == [6, 0, 3, 7]
    assert cut.document["padding"]["pad_id"] == 5
    assert [token["id"] for token in cut.document["added_tokens"]] == [5, 6, 7]


def test_settings_are_renumbered_and_what_is_no_number_stays():
    old = {"unk_id": 3, "pad_token_id": 9, "eos_token_id": None, "pad_token_type_id": 9, "unk_token": "[UNK]"}
    old |= {"bos_token_id": 50_000, "added_tokens_decoder": {"3": {"content": "[UNK]"}, "9": {"content": "[PAD]"}}}
    assert renumbered_settings(old, {3: 0, 9: 1}) == {
        **old,
        "unk_id": 0,
        "pad_token_id": 1,
        "added_tokens_decoder": {"0": {"content": "[UNK]"}, "1": {"content": "[PAD]"}},
    }


@pytest.mark.parametrize(
    ("vocabulary", "reason"),
    [
        (wordpiece("a", "ab"), "1 characters of its pieces have no piece of their own, such as '##b'"),
        (by_hand(models.Unigram([("ab", -1.0), ("a", -2.0)]), None), "have no piece of their own, such as 'b'"),
        (by_hand(models.WordLevel({"a": 0}, unk_token="a"), None), "its tokenizer is of kind WordLevel, not one of"),
        (by_hand(models.BPE({"a": 0}, [], dropout=0.1), None), "its merges are dropped at random"),
        (by_hand(models.WordPiece({"a": 0}, unk_token="a"), pre_tokenizers.Whitespace()), "not split at punctuation"),
    ],
)
def test_vocabularies_that_cannot_stay_total_are_refused(vocabulary, reason):
    assert reason in vocabulary.unsupported()


def test_the_scheme_applies_where_it_saves_and_the_texts_foretell_others(tiny_classifier):
    folder = tiny_classifier("roberta")
    repeated = [f"{text} {number}" for text in TRAIN for number in (0, 5)]
    assert trimmed.unsuitable(material_of(folder, repeated)) == ""
    assert re.match(r"the texts say too little .* 100% of them have a token", trimmed.unsuitable(material_of(folder)))
    assert "100% of them" in trimmed.unsuitable(material_of(folder, []))
    assert trimmed.unsuitable(material_of(folder, TRAIN, repeated)) == ""
    assert list(trimmed.strengths(material_of(folder))) == [0]


def test_unsuitable_says_where_there_is_little_to_save(tiny_classifier, toy_dataset, tmp_path):
    texts = toy_dataset().train.texts
    reason = trimmed.unsuitable(material_of(tiny_classifier("albert"), [*texts, *OTHER]))
    assert re.fullmatch(r"it would make the model only \d% smaller: \d+ of 114 tokens are needed", reason)
    source = tiny_classifier("bert") / "model"
    (tmp_path / "model").mkdir()
    for file in source.iterdir():
        (tmp_path / "model" / file.name).write_bytes(file.read_bytes())
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "model" / "config.json").write_text(json.dumps({**config, "vocab_size": 2}), encoding="utf-8")
    assert re.fullmatch(r"the embedding table is only \d% of the model", trimmed.unsuitable(material_of(tmp_path)))


def test_a_model_whose_positions_hang_on_the_padding_number_is_refused(tiny_classifier, tmp_path):
    from transformers import RobertaConfig, RobertaForSequenceClassification

    source = tiny_classifier("roberta") / "model"
    document = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    vocab = document["model"]["vocab"]
    vocab["<pad>"], last = 479, next(token for token, number in vocab.items() if number == 479)
    vocab[last] = 1
    for token in document["added_tokens"]:
        token["id"] = vocab[token["content"]]
    config = RobertaConfig(
        vocab_size=480, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=600, pad_token_id=479, num_labels=4, initializer_range=0.15,
    )  # fmt: skip
    torch.manual_seed(0)
    RobertaForSequenceClassification(config).save_pretrained(tmp_path / "model")
    settings_ = (source / "tokenizer_config.json").read_text(encoding="utf-8")
    (tmp_path / "model" / "tokenizer_config.json").write_text(settings_, encoding="utf-8")
    (tmp_path / "model" / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    with pytest.raises(CompressError, match="answers training texts differently"):
        trimmed.compress(material_of(tmp_path), tmp_path / "out", 0)


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(CompressError, match=r"tokenizer.json cannot be opened as a tokenizer"):
        trimmed.compress(material_of(tmp_path), tmp_path / "out", 0)


def test_the_same_texts_give_the_same_files(tiny_classifier, tmp_path):
    for name in ("one", "two"):
        trimmed.compress(material_of(tiny_classifier("bert")), tmp_path / name, 0)
    names = sorted(file.name for file in (tmp_path / "one" / "model").iterdir())
    for name in names:
        assert (tmp_path / "one/model" / name).read_bytes() == (tmp_path / "two/model" / name).read_bytes()


@pytest.mark.slow
def test_minilm_is_cut_to_a_tenth_and_answers_as_before(toy_dataset, tmp_path):
    from edgetune.tune.models.base import find_base, open_tokenizer
    from edgetune.tune.models.classifier import set_head
    from edgetune.tune.models.model import start_model
    from edgetune.tune.recipe import TuneRecipe
    from edgetune.tune.tasks import TASKS

    base = find_base("all-MiniLM-L6-v2")
    model = start_model(base, TASKS["text-classification"].objective(tuple("abcd"), "", ()), TuneRecipe())
    set_head(model, np.random.default_rng(0).normal(size=(4, 384)), np.zeros(4))
    model.save_pretrained(tmp_path / "model")
    open_tokenizer(base).save_pretrained(tmp_path / "model")
    texts = toy_dataset().train.texts
    material = material_of(tmp_path, texts)
    assert trimmed.unsuitable(material) == ""

    trimmed.compress(material, tmp_path / "out", 0)

    target = tmp_path / "out" / "model"
    whole, cut = (Vocabulary.open(folder / "tokenizer.json") for folder in (tmp_path / "model", target))
    # 997 characters in two forms, 5 special tokens, and the words of the toy sentences.
    assert len(whole) == 30_522
    assert 2 * 997 + 5 < len(cut) < 2 * 997 + 5 + 150
    np.testing.assert_array_equal(logits(target, texts), logits(tmp_path / "model", texts))
    check_tokenizer(
        target / "tokenizer.json", Encoder(AutoTokenizer.from_pretrained(target), 96, LABELLING), [*texts, *OTHER]
    )
    sizes = [(folder / "model.safetensors").stat().st_size for folder in (target, tmp_path / "model")]
    assert sizes[1] - sizes[0] == pytest.approx((len(whole) - len(cut)) * 384 * 4, abs=1000)
    for text in ("antidisestablishmentarianism", "Größenwahn über Straße", "何时 ходить", "x" * 101, "🙂 it's #1!"):
        assert unknown_places(cut, "[UNK]", text) == unknown_places(whole, "[UNK]", text)
