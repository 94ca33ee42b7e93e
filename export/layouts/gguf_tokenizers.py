"""Which tokenizers llama.cpp has: by the rule that splits text, the normal form, and the order of merges.

llama.cpp knows splits by name, merges characters by one score a piece, and strips spaces at tokens by the model's name.
A tokenizer with rules that it lacks is refused: it would open, and give other ids. Source: llama.cpp's
src/llama-vocab.cpp. Needs the floor only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from edgetune.serve.errors import BundleError
from edgetune.serve.json_types import JsonObject

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {_WORDS % r"\p{N}{1,3}": "llama-bpe", _WORDS % r"\p{N}": "qwen2"}
# Of these splits llama.cpp takes a word that is a piece as it is, without merging.
_WHOLE_WORDS = ("llama-bpe",)
_SPACE = "▁"
# Phi-3's tokens swallow the spaces behind them, but for these; llama.cpp needs all of them in the vocabulary.
_NOT_STRIPPING = {"<unk>", "<s>", "<|endoftext|>"}

_NFC_NOTE = (
    "The tokenizer brings text to Unicode's normal form C, llama.cpp does not: give it text in that form, as nearly "
    "all text is."
)
_SPACE_NOTE = (
    "The tokenizer puts a space before the first word of a text that has none. llama.cpp always puts one, and behind "
    "each special token too, so that prompts of chats get other ids: give it ids where that matters."
)


@dataclass(frozen=True)
class Rules:
    """The tokenizer of llama.cpp that does what a tokenizer.json says.

    Attributes:
        kind: "llama" where pieces are characters with a byte each to fall back on, "gpt2" where they are bytes.
        split: the name of the rule that splits text before merging.
        adds_space: whether a space is put before a text.
        strips_behind: whether special tokens swallow the spaces behind them, as Phi-3's do.
        notes: what llama.cpp does otherwise in corners, for a reader.
    """

    kind: str
    split: str
    adds_space: bool
    strips_behind: bool
    notes: tuple[str, ...]


def rules_of(document: JsonObject) -> Rules:
    """The rules of a tokenizer.json's value.

    Raises:
        BundleError: llama.cpp has no tokenizer with them.
    """
    model = document["model"]
    if model.get("type") != "BPE":
        raise _unknown(f"its model is {model.get('type')}")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise _unknown(f"its model has a {name}")
    strips = _strips_behind(document["added_tokens"])
    steps = _steps(document.get("normalizer"), "normalizers")
    notes = (_NFC_NOTE,) if any(step["type"] == "NFC" for step in steps) else ()
    steps = [step for step in steps if step["type"] != "NFC"]
    if model.get("byte_fallback", False):
        adds, more = _character_rules(document, steps)
        return Rules("llama", "default", adds, strips, notes + more)
    if steps:
        raise _unknown(f"it normalizes text by {steps[0]['type']}")
    split = _split(document.get("pre_tokenizer"))
    _check_whole_words(document, split)
    return Rules("gpt2", split, adds_space=False, strips_behind=strips, notes=notes)


def merge_pairs(document: JsonObject) -> list[list[str]]:
    """The merges of a tokenizer.json's value in their order, which files of two ages write in two ways."""
    return [one.split(" ") if isinstance(one, str) else one for one in document["model"]["merges"]]


def _steps(rule: dict[str, Any] | None, name: str) -> list[JsonObject]:
    if not rule:
        return []
    return list(rule[name]) if rule["type"] == "Sequence" else [rule]


def _strips_behind(added: list[JsonObject]) -> bool:
    """Whether tokens swallow spaces as Phi-3's; any other swallowing is llama.cpp's for no model."""
    for one in added:
        if one.get("lstrip") or one.get("single_word"):
            raise _unknown(f"its token {one['content']} looks at what stands before it")
    stripping = {one["content"] for one in added if one.get("rstrip")}
    names = {one["content"] for one in added}
    if stripping and (stripping != names - _NOT_STRIPPING or not _NOT_STRIPPING | {"</s>"} <= names):
        raise _unknown(f"its token {min(stripping)} swallows spaces behind it, and not as in Phi-3")
    return bool(stripping)


def _split(rule: dict[str, Any] | None) -> str:
    steps = _steps(rule, "pretokenizers")
    kinds = [step["type"] for step in steps]
    if any(step.get("add_prefix_space") for step in steps):
        raise _unknown("it puts a space before a text")
    by_regex = bool(steps) and steps[-1].get("use_regex", True)
    if kinds == ["ByteLevel"] and by_regex:
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and by_regex and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"] and not by_regex:
        split = _SPLITS.get(steps[0].get("pattern", {}).get("Regex"))
        if split and steps[0].get("behavior") == "Isolated" and not steps[0].get("invert"):
            return split
    raise _unknown(f"it splits text by {' and '.join(kinds) or 'nothing'} in a way of its own")


def _check_whole_words(document: JsonObject, split: str) -> None:
    """Taking words that are pieces as they are must not matter where the tokenizer and llama.cpp differ in it."""
    if bool(document["model"].get("ignore_merges")) is (split in _WHOLE_WORDS):
        return
    merging = Tokenizer.from_str(json.dumps({**document, "model": {**document["model"], "ignore_merges": False}})).model
    added = {one["content"] for one in document["added_tokens"]}
    for piece in document["model"]["vocab"]:
        if piece not in added and len(merging.tokenize(piece)) > 1:
            does = "takes" if split in _WHOLE_WORDS else "does not take"
            raise _unknown(f"llama.cpp {does} words that are pieces as they are, and {piece!r} merges to others")


def _character_rules(document: JsonObject, steps: list[JsonObject]) -> tuple[bool, tuple[str, ...]]:
    """Whether a space is put before a text, and notes; pieces are characters, with bytes to fall back on."""
    vocabulary = document["model"]["vocab"]
    if any(f"<0x{byte:02X}>" not in vocabulary for byte in range(256)):
        raise _unknown("it has not a piece for each byte")
    prepends = [step for step in steps if step == {"type": "Prepend", "prepend": _SPACE}]
    escapes = [step for step in steps if step == {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
    if strange := [step["type"] for step in steps if step not in prepends + escapes]:
        raise _unknown(f"it normalizes text by {strange[0]} in a way of its own")
    before = document.get("pre_tokenizer") or {"type": None}
    by_scheme = before["type"] == "Metaspace" and before.get("prepend_scheme", "always") != "never"
    if before["type"] == "Metaspace" and before.get("replacement", _SPACE) == _SPACE:
        if before.get("split", True) and any(_SPACE in piece[1:] for piece in vocabulary):
            raise _unknown("it splits text at spaces, and has pieces with spaces in them")
    elif not (before["type"] is None or (escapes and before.get("pattern") == {"String": " "})) or not escapes:
        raise _unknown(f"it splits text by {before['type'] or 'nothing'} in a way of its own")
    _check_scores(document)
    return bool(prepends) or by_scheme, (_SPACE_NOTE,) if by_scheme else ()


def _check_scores(document: JsonObject) -> None:
    """One score a piece must tell the order of merges: all ways to make a piece are merges, one behind the other."""
    vocabulary, pairs = document["model"]["vocab"], merge_pairs(document)
    added = {one["content"] for one in document["added_tokens"]}
    known, made, last = {tuple(pair) for pair in pairs}, set(), None
    for pair in pairs:
        piece = "".join(pair)
        # Llama 2's runs of spaces have one score for all of them: whichever comes first, a run grows to the longest.
        if piece != last and piece in made and piece not in added and len(set(piece)) > 1:
            raise _unknown(f"its merges to {piece!r} lie apart")
        made.add(piece)
        last = piece
    for piece in vocabulary:
        for place in range(1, 0 if piece in added else len(piece)):
            halves = piece[:place], piece[place:]
            apart = added.isdisjoint(halves) and all(half in vocabulary for half in halves)
            if apart and halves not in known:
                raise _unknown(f"it does not merge {halves[0]!r} and {halves[1]!r}, and llama.cpp would")


def _unknown(why: str) -> BundleError:
    return BundleError(
        f"The tokenizer is none that llama.cpp knows: {why}.",
        expected="byte-pair encoding as in Llama, Qwen, Gemma, Phi-3, SmolLM or GPT-2",
        action="choose another --layout",
    )
