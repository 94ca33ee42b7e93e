"""Unigram: a text is split on the path of pieces with the highest sum of scores.

Dropping pieces that no best path uses leaves those paths the best. Other texts find a path through single characters,
so that none becomes unknown as long as every character of every piece has a piece of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgetune.compress.vocabulary.byte_tokens import is_byte_token
from edgetune.serve.json_types import JsonObject


def unsupported(document: JsonObject) -> str:
    """Why the tokenizer cannot be trimmed without new unknowns; empty where it can.

    Args:
        document: the content of tokenizer.json.
    """
    model = document["model"]
    unknown = set() if model["unk_id"] is None else {model["vocab"][model["unk_id"]][0]}
    whole = unknown.union(token["content"] for token in document["added_tokens"])
    pieces = {piece for piece, _ in model["vocab"] if piece not in whole and not is_byte_token(piece)}
    lacking = sorted({letter for piece in pieces for letter in piece} - pieces)
    if lacking:
        return f"{len(lacking):,} characters of its pieces have no piece of their own, such as {lacking[0]!r}"
    return ""


def needed(model: JsonObject, seen: Collection[int]) -> set[int]:
    """Numbers of the pieces to keep: those seen, the unknown token, single characters, bytes, and the least likely.

    The least likely piece stays because the price of an unknown character is counted from its score.

    Args:
        model: the section `model` of tokenizer.json.
        seen: numbers of the pieces that the domain's texts are split into.
    """
    vocab = model["vocab"]
    short = {number for number, (piece, _) in enumerate(vocab) if len(piece) == 1 or is_byte_token(piece)}
    unknown = set() if model["unk_id"] is None else {model["unk_id"]}
    return {*seen, *short, *unknown, min(range(len(vocab)), key=lambda number: vocab[number][1])}


def cut(model: JsonObject, numbers: Mapping[int, int]) -> JsonObject:
    """The section `model` with only the pieces in `numbers` (old to new), in the order of their new numbers."""
    kept = sorted((old for old in numbers if old < len(model["vocab"])), key=numbers.__getitem__)
    unknown = None if model["unk_id"] is None else numbers[model["unk_id"]]
    return {**model, "vocab": [model["vocab"][old] for old in kept], "unk_id": unknown}
