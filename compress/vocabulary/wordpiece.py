"""WordPiece: a word is read from the left, each time the longest piece that fits.

Dropping pieces changes only the words that used them. Such a word is spelled in shorter pieces, in the end in single
characters, so that none becomes unknown as long as every character of every piece has a piece of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from edgetune.serve.json_types import JsonObject


def unsupported(document: JsonObject) -> str:
    """Why the tokenizer cannot be trimmed without new unknowns; empty where it can.

    Args:
        document: the content of tokenizer.json.
    """
    pre_tokenizer = document["pre_tokenizer"] or {}
    if pre_tokenizer.get("type") != "BertPreTokenizer":
        # A word that starts with ## would be taken for the inside of another.
        return "its words are not split at punctuation as BERT's are"
    lacking = _characters_without_piece(document)
    if lacking:
        return f"{len(lacking):,} characters of its pieces have no piece of their own, such as {lacking[0]!r}"
    return ""


def needed(model: JsonObject, seen: Collection[int]) -> set[int]:
    """Numbers of the pieces to keep: those seen, the unknown token, and each single character in both forms.

    Args:
        model: the section `model` of tokenizer.json.
        seen: numbers of the pieces that the domain's texts are split into.
    """
    prefix = model["continuing_subword_prefix"]
    single = {number for piece, number in model["vocab"].items() if len(_spelled(piece, prefix)[1]) == 1}
    return {*seen, *single, model["vocab"][model["unk_token"]]}


def cut(model: JsonObject, numbers: Mapping[int, int]) -> JsonObject:
    """The section `model` with only the pieces in `numbers` (old to new), under their new numbers."""
    vocab = {piece: numbers[old] for piece, old in model["vocab"].items() if old in numbers}
    return {**model, "vocab": dict(sorted(vocab.items(), key=lambda item: item[1]))}


def _characters_without_piece(document: JsonObject) -> list[str]:
    """Characters at the start (`a`) or inside (`##a`) of a piece that no single-character piece can stand for."""
    model = document["model"]
    prefix = model["continuing_subword_prefix"]
    whole = {model["unk_token"], *(token["content"] for token in document["added_tokens"])}
    pieces = [_spelled(piece, prefix) for piece in model["vocab"] if piece not in whole]
    single = {(inside, letters) for inside, letters in pieces if len(letters) == 1}
    needed = {(inside or place > 0, letter) for inside, letters in pieces for place, letter in enumerate(letters)}
    return sorted(prefix * inside + letter for inside, letter in needed - single)


def _spelled(piece: str, prefix: str) -> tuple[bool, str]:
    """Whether a piece stands inside a word, and its characters without the mark that says so."""
    inside = piece.startswith(prefix) and len(piece) > len(prefix)
    return inside, piece[len(prefix) :] if inside else piece
