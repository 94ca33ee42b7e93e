"""Byte pair encoding: a word starts as characters (or bytes), and pairs merge in the order of a list of rules.

A kept token keeps the tokens it is merged from, and so on down to characters. The rules that led to it are then all
left, in their order, and each step that picked the first rule that applied still picks it (Sennrich et al. 2016,
section 3.2, has the steps). A word whose token is gone stops at the last merge that is left: nothing is unknown.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping

from edgetune.compress.vocabulary.byte_tokens import is_byte_token
from edgetune.serve.json_types import JsonObject


def unsupported(document: JsonObject) -> str:
    """Why the tokenizer cannot be trimmed: because its splits are drawn by chance; empty where it can.

    Args:
        document: the content of tokenizer.json.
    """
    return "its merges are dropped at random" if document["model"].get("dropout") else ""


def needed(model: JsonObject, seen: Collection[int]) -> set[int]:
    """Numbers of the tokens to keep: those seen, single characters, bytes, and all that a kept one is merged from.

    Args:
        model: the section `model` of tokenizer.json.
        seen: numbers of the tokens that the domain's texts are split into.
    """
    vocab: dict[str, int] = model["vocab"]
    single = {_letters(token, model) for token in vocab if len(_letters(token, model)) == 1}
    short = {number for token, number in vocab.items() if _letters(token, model) in single or is_byte_token(token)}
    kept = {*seen, *short}
    if model.get("unk_token") in vocab:
        kept.add(vocab[model["unk_token"]])
    if model.get("ignore_merges"):  # such a token is found whole, and its characters might not be found at all
        kept |= {number for token, number in vocab.items() if not set(_letters(token, model)) <= single}
    return kept | _ancestors(model, kept)


def cut(model: JsonObject, numbers: Mapping[int, int]) -> JsonObject:
    """The section `model` with only the tokens in `numbers` (old to new) and the merges among them, in their order."""
    vocab = {token: numbers[old] for token, old in model["vocab"].items() if old in numbers}
    merges = [
        merge
        for merge in model["merges"]
        if all(token in vocab for token in (*_parts(merge), _merged(*_parts(merge), model)))
    ]
    return {**model, "vocab": dict(sorted(vocab.items(), key=lambda item: item[1])), "merges": merges}


def _ancestors(model: JsonObject, kept: Collection[int]) -> set[int]:
    vocab: dict[str, int] = model["vocab"]
    sources: dict[int, list[int]] = defaultdict(list)
    for merge in model["merges"]:
        left, right = _parts(merge)
        sources[vocab[_merged(left, right, model)]] += [vocab[left], vocab[right]]
    ancestors: set[int] = set()
    waiting = list(kept)
    while waiting:
        new = [part for part in sources[waiting.pop()] if part not in ancestors]
        ancestors.update(new)
        waiting += new
    return ancestors


def _parts(merge: str | list[str]) -> tuple[str, str]:
    """The two tokens of a merge, which older files write as one word with a space."""
    left, right = merge.split(" ") if isinstance(merge, str) else merge
    return left, right


def _merged(left: str, right: str, model: JsonObject) -> str:
    return left + right[len(model.get("continuing_subword_prefix") or "") :]


def _letters(token: str, model: JsonObject) -> str:
    """A token's characters without the marks of a word's inside and end."""
    prefix, suffix = model.get("continuing_subword_prefix") or "", model.get("end_of_word_suffix") or ""
    bare = token.removeprefix(prefix) or token
    return bare.removesuffix(suffix) or bare
