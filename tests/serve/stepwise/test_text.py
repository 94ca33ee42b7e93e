"""Text comes out whole characters at a time, and joined it is what decoding all ids at once gives."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.stepwise.codec import TokenCodec
from edgetune.serve.stepwise.text import StopStrings, TextStream

SAMPLES = [
    "Once upon a time, there was a café.",
    "naïve 😀👩‍👩‍👧 family",
    "卡还没到。我应该怎么办？",
    "  two  leading spaces\n\n\tand lines ",
    "x",
    "a � that was meant",
]


def _byte_level(folder: Path) -> TokenCodec:
    """As GPT-2 and Qwen have it."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator(SAMPLES[:1], trainer)
    bpe.save(str(folder / "bytes.json"))
    return TokenCodec(folder / "bytes.json")


def _byte_fallback(folder: Path) -> TokenCodec:
    """As Llama 2 has it: words begin with a mark, the first loses its space, unknown characters are bytes."""
    words = ["▁", "▁Once", "▁upon", "▁a", "▁time", "o", "e", "▁x", "x", "a"]
    names = ["<end>", *(f"<0x{byte:02X}>" for byte in range(256)), *words]
    bpe = Tokenizer(models.BPE({name: place for place, name in enumerate(names)}, [], byte_fallback=True))
    bpe.add_special_tokens(["<end>"])
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    bpe.save(str(folder / "fallback.json"))
    return TokenCodec(folder / "fallback.json")


@pytest.fixture(scope="module", params=[_byte_level, _byte_fallback])
def codec(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TokenCodec:
    make: Callable[[Path], TokenCodec] = request.param
    return make(tmp_path_factory.mktemp("codec"))


def _pieces(codec: TokenCodec, ids: list[int], prompt: list[int]) -> list[str]:
    stream = TextStream(codec, prompt)
    return [*(stream.push(token) for token in ids), stream.flush()]


@pytest.mark.parametrize("text", SAMPLES)
def test_the_pieces_make_the_text(codec: TokenCodec, text: str) -> None:
    ids = codec.encode(text)
    pieces = _pieces(codec, ids, [])
    assert "".join(pieces) == codec.decode(ids) == text
    if "�" not in text:
        assert not any("�" in piece for piece in pieces)
        assert pieces[-1] == ""


@pytest.mark.parametrize(("prompt", "text"), list(itertools.product(SAMPLES, SAMPLES)))
def test_behind_a_prompt_the_text_goes_on_as_it_would_in_one(codec: TokenCodec, prompt: str, text: str) -> None:
    before, ids = codec.encode(prompt), codec.encode(" " + text)
    assert prompt + "".join(_pieces(codec, ids, before)) == codec.decode(before + ids)


def test_a_split_anywhere_loses_nothing(codec: TokenCodec) -> None:
    ids = codec.encode("é卡😀 naïve Once upon a time")
    whole = codec.decode(ids)
    for place in range(len(ids)):
        begun = codec.decode(ids[:place])
        if not begun.endswith("�"):
            assert begun + "".join(_pieces(codec, ids[place:], ids[:place])) == whole


def test_text_comes_as_soon_as_its_character_is_whole(codec: TokenCodec) -> None:
    ids = codec.encode("😀😀x")
    pieces = _pieces(codec, ids, [])
    assert [piece for piece in pieces if piece] == ["😀", "😀", "x"]
    assert pieces[-2:] == ["x", ""]


def test_bytes_that_become_no_character_are_shown_in_the_end(codec: TokenCodec) -> None:
    half = codec.encode("😀")[-4:-1]
    x = codec.encode("x")[-1:]
    stream = TextStream(codec, x)
    assert [stream.push(token) for token in half] == ["", "", ""]
    shown = stream.flush()
    assert shown
    assert set(shown) == {"�"}
    # Endless rubbish does not hold the stream back for ever.
    stream = TextStream(codec, x)
    assert "".join(stream.push(half[0]) for _ in range(40)).count("�") > 20


def test_special_tokens_are_no_text_and_do_not_cost_the_next_space(codec: TokenCodec) -> None:
    end = codec.encode("<end>")[-1]
    before, ids = codec.encode("x"), codec.encode(" x")
    assert codec.decode([end]) == ""
    pieces = _pieces(codec, [end, *ids, end, end, *ids, end], before)
    assert "".join(pieces) == codec.decode([*before, *ids, *ids])[1:]


def test_a_tokenizer_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BundleDamaged, match="is no tokenizer"):
        TokenCodec(tmp_path / "tokenizer.json")


def test_prompts_that_are_no_text_are_refused(codec: TokenCodec) -> None:
    with pytest.raises(InputError, match="of type int"):
        codec.encode(3)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="surrogate"):
        codec.encode("\ud800")


def _stopped(stop: tuple[str, ...], pieces: list[str]) -> tuple[list[str], bool]:
    stops = StopStrings(stop)
    shown = []
    for piece in pieces:
        text, stopped = stops.push(piece)
        shown.append(text)
        if stopped:
            return shown, True
    return [*shown, stops.flush()], False


@pytest.mark.parametrize(
    ("stop", "pieces", "shown", "stopped"),
    [
        ((), ["a", "b"], ["a", "b", ""], False),
        (("END",), ["one E", "N", "D two"], ["one ", "", ""], True),
        (("END",), ["one E", "N", "d two"], ["one ", "", "ENd two", ""], False),
        (("END",), ["EEN", "D"], ["E", ""], True),
        (("END",), ["the E"], ["the ", "E"], False),
        (("bc", "abcd"), ["a", "b", "c"], ["", "", "a"], True),
        (("bc", "abcd"), ["abcd"], ["a"], True),
        (("abcd", "x"), ["abc", "x"], ["", "abc"], True),
        (("aab",), ["aaa", "b"], ["a", ""], True),
        (("\n\n",), ["a\n", "\nb"], ["a", ""], True),
        (("\n",), ["all\nat\nonce"], ["all"], True),
    ],
)
def test_stop_strings_span_pieces(stop: tuple[str, ...], pieces: list[str], shown: list[str], stopped: bool) -> None:
    assert _stopped(stop, pieces) == (shown, stopped)


def test_every_cut_of_a_text_stops_at_the_same_place() -> None:
    text, stop = "aababaabaab|STOP|rest", ("aabaab", "|STOP|")
    for width in range(1, len(text)):
        pieces = [text[place : place + width] for place in range(0, len(text), width)]
        shown, stopped = _stopped(stop, pieces)
        assert ("".join(shown), stopped) == ("aabab", True)
