"""The vocabulary of a tokenizer.json as a GGUF file tells it: pieces, their kinds, and how text is split before merges.

llama.cpp knows splits by name only, so a tokenizer whose rule is none of them is refused: it would open, and give other
ids. Sources: the GGUF specification (ggml/docs/gguf.md) and llama.cpp's src/llama-vocab.cpp. Needs the floor only.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from edgetune.serve.errors import BundleError

# The kinds of a piece, by their numbers in the format.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6

_WORDS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SPLITS = {_WORDS % r"\p{N}{1,3}": "llama-bpe", _WORDS % r"\p{N}": "qwen2"}


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer.

    Attributes:
        kind: "llama" where pieces are characters with a byte each to fall back on, "gpt2" where they are bytes.
        split: llama.cpp's name of the rule that splits text before merging.
        pieces: in the order of their ids.
        kinds: one number a piece.
        scores: one a piece, greater where it merges earlier; of kind "llama" alone.
        merges: pairs in their order; of kind "gpt2" alone.
        adds_bos: whether a text's ids start with the first token.
        adds_space: whether a space is put before a text.
    """

    kind: str
    split: str
    pieces: list[str]
    kinds: list[int]
    scores: list[float]
    merges: list[str]
    adds_bos: bool
    adds_space: bool


def read_vocabulary(path: Path, size: int, bos_id: int | None) -> Vocabulary:
    """Read a tokenizer.json as a vocabulary of `size` pieces; ids without a piece get an unused one.

    Raises:
        BundleError: it is none of the tokenizers that llama.cpp knows.
    """
    said = json.loads(path.read_text(encoding="utf-8"))
    model = said["model"]
    if model.get("type") != "BPE":
        raise _unknown(path, f"its model is {model.get('type')}")
    by_bytes = not model.get("byte_fallback", False)
    merges = [one.split(" ") if isinstance(one, str) else one for one in model["merges"]]
    pieces, kinds = _pieces(said, size)
    ids = Tokenizer.from_file(str(path)).encode("a").ids
    return Vocabulary(
        kind="gpt2" if by_bytes else "llama",
        split=_split(said.get("pre_tokenizer"), path) if by_bytes else "default",
        pieces=pieces,
        kinds=kinds,
        scores=[] if by_bytes else _scores(pieces, merges),
        merges=[" ".join(pair) for pair in merges] if by_bytes else [],
        adds_bos=bos_id is not None and ids[:1] == [bos_id],
        adds_space=not by_bytes and _adds_space(said),
    )


def _pieces(said: dict[str, Any], size: int) -> tuple[list[str], list[int]]:
    pieces, kinds = [f"[unused{place}]" for place in range(size)], [UNUSED] * size
    unknown = said["model"].get("unk_token")
    for piece, place in said["model"]["vocab"].items():
        is_byte = said["model"].get("byte_fallback", False) and len(piece) == 6 and piece.startswith("<0x")
        pieces[place] = piece
        kinds[place] = UNKNOWN if piece == unknown else BYTE if is_byte else NORMAL
    for added in said["added_tokens"]:
        pieces[added["id"]] = added["content"]
        if kinds[added["id"]] != UNKNOWN:
            kinds[added["id"]] = CONTROL if added["special"] else USER_DEFINED
    return pieces, kinds


def _scores(pieces: list[str], merges: list[list[str]]) -> list[float]:
    """The first merge that makes a piece is its rank: llama.cpp merges the pair whose piece has the greatest score."""
    ranks: dict[str, int] = {}
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(piece, len(merges)) + 1) for piece in pieces]


def _split(rule: dict[str, Any] | None, path: Path) -> str:
    steps = rule.get("pretokenizers", [rule]) if rule else []
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = steps[0].get("pattern", {}).get("Regex")
        if pattern in _SPLITS:
            return _SPLITS[pattern]
    raise _unknown(path, f"it splits text by {' and '.join(kinds) or 'nothing'} in a way of its own")


def _adds_space(said: dict[str, Any]) -> bool:
    normalizer = said.get("normalizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    before = said.get("pre_tokenizer") or {}
    by_scheme = before.get("type") == "Metaspace" and before.get("prepend_scheme", "always") != "never"
    return by_scheme or any(step.get("type") == "Prepend" for step in steps)


def _unknown(path: Path, why: str) -> BundleError:
    return BundleError(
        f"The tokenizer {path.name} is none that llama.cpp knows: {why}.",
        expected="byte-pair encoding as in Llama, Qwen, SmolLM or GPT-2",
        action="choose another --layout",
    )
