"""The vocabulary of a tokenizer.json as a GGUF file tells it: pieces, their kinds and ranks, and what it adds.

Which tokenizers llama.cpp has at all is judged in gguf_tokenizers.py. Source: the GGUF specification
(ggml/docs/gguf.md). Needs the floor only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from edgetune.export.layouts.gguf_tokenizers import Rules, merge_pairs, rules_of
from edgetune.serve.errors import BundleError
from edgetune.serve.json_types import JsonObject

# The kinds of a piece, by their numbers in the format.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer.

    Attributes:
        rules: the kind of tokenizer, and what llama.cpp does otherwise in corners.
        pieces: in the order of their ids.
        kinds: one number a piece.
        scores: one a piece, greater where it merges earlier; of pieces of characters alone.
        merges: pairs in their order; of pieces of bytes alone.
        unknown_id: the piece that stands for what no other one does, if there is one.
        adds_bos: whether a text's ids start with the first token.
        adds_eos: whether they end with the last one.
    """

    rules: Rules
    pieces: list[str]
    kinds: list[int]
    scores: list[float]
    merges: list[str]
    unknown_id: int | None
    adds_bos: bool
    adds_eos: bool


def read_vocabulary(path: Path, size: int, bos_id: int | None, eos_ids: Sequence[int]) -> Vocabulary:
    """Read a tokenizer.json as a vocabulary of `size` pieces; ids without a piece get an unused one.

    Raises:
        BundleError: it is none of the tokenizers that llama.cpp knows, or has more pieces than the model.
    """
    document = json.loads(path.read_text(encoding="utf-8"))
    rules = rules_of(document)
    pieces, kinds = _pieces(document, size)
    adds_bos, adds_eos = _added_ends(path, bos_id, eos_ids)
    by_bytes = rules.kind == "gpt2"
    unknown = document["model"].get("unk_token")
    return Vocabulary(
        rules=rules,
        pieces=pieces,
        kinds=kinds,
        scores=[] if by_bytes else _scores(document, pieces),
        merges=[" ".join(pair) for pair in merge_pairs(document)] if by_bytes else [],
        unknown_id=pieces.index(unknown) if unknown in pieces else None,
        adds_bos=adds_bos,
        adds_eos=adds_eos,
    )


def _pieces(document: JsonObject, size: int) -> tuple[list[str], list[int]]:
    vocabulary, added = document["model"]["vocab"], document["added_tokens"]
    largest = max([*vocabulary.values(), *(one["id"] for one in added)])
    if largest >= size:
        raise BundleError(
            f"The tokenizer has a piece with the id {largest}, and the model {size} embeddings.",
            expected="a tokenizer that fits its model",
        )
    pieces, kinds = [f"[unused{place}]" for place in range(size)], [UNUSED] * size
    unknown = document["model"].get("unk_token")
    for piece, place in vocabulary.items():
        is_byte = document["model"].get("byte_fallback", False) and len(piece) == 6 and piece.startswith("<0x")
        pieces[place] = piece
        kinds[place] = UNKNOWN if piece == unknown else BYTE if is_byte else NORMAL
    for one in added:
        pieces[one["id"]] = one["content"]
        if kinds[one["id"]] != UNKNOWN:
            kinds[one["id"]] = CONTROL if one["special"] else USER_DEFINED
    if len(set(pieces)) < size:  # llama.cpp ends the whole process over it
        twice = next(piece for piece in pieces if pieces.count(piece) > 1)
        raise BundleError(f"Two ids of the tokenizer stand for the piece {twice!r}.", action="choose another --layout")
    return pieces, kinds


def _scores(document: JsonObject, pieces: list[str]) -> list[float]:
    """The first merge that makes a piece is its rank: llama.cpp merges the pair whose piece has the greatest score."""
    ranks: dict[str, int] = {}
    pairs = merge_pairs(document)
    for rank, pair in enumerate(pairs):
        ranks.setdefault("".join(pair), rank)
    return [-float(ranks.get(piece, len(pairs)) + 1) for piece in pieces]


def _added_ends(path: Path, bos_id: int | None, eos_ids: Sequence[int]) -> tuple[bool, bool]:
    """Whether ids of a text begin with the first token and end with the last: the format knows no other frame."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    whole, bare = (tokenizer.encode("a", add_special_tokens=added).ids for added in (True, False))
    before = next(place for place in range(len(whole) + 1) if whole[place : place + len(bare)] == bare)
    front, back = whole[:before], whole[before + len(bare) :]
    if front not in ([], [bos_id]) or back not in ([], list(eos_ids[:1])):
        raise BundleError(
            f"The tokenizer puts the tokens {front} before a text and {back} behind it.",
            expected=f"at most the first token ({bos_id}) and the last one ({eos_ids[0]}), which is all GGUF can say",
            action="choose another --layout",
        )
    return bool(front), bool(back)
