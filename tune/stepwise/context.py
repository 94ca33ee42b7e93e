"""How many tokens a language model takes, and where in them its answers change in kind: what its configuration says.

One reading of it for encoding, scoring and export, so that a row, an answer and a prompt end at the same token.
Must not import torch or transformers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ORIGINAL = "original_max_position_embeddings"


def position_limit(config: Any) -> int | None:
    """The most tokens of prompt and answer together by a text configuration of transformers; None where it is silent.

    LongRoPE (Ding et al. 2024, arXiv 2402.13753) has one set of rotations for texts up to the original length and
    another for longer ones. A cache that was filled by the first cannot be read by the second: where an answer crosses
    that length, transformers computes the whole prompt anew. Such a model is taken for its original length.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    originals = [_original(config, rope) for rope in _rotations(config) if rope.get("rope_type") == "longrope"]
    return min([int(positions), *(int(length) for length in originals if length)])


def context_finding(config: Any) -> tuple[str, ...]:
    """What there is to say about a context that is shorter than `max_position_embeddings`."""
    positions, limit = getattr(config, "max_position_embeddings", None), position_limit(config)
    if limit is None or limit == positions:
        return ()
    return (
        f"The context is {limit:,} tokens, the model's original length, and not {positions:,}: beyond it LongRoPE "
        "rotates all earlier tokens anew, and a cache could not be used any more.",
    )


def borders(config: Any) -> tuple[int, ...]:
    """The numbers of tokens behind which a text configuration computes something otherwise, in order.

    Sliding windows and attention chunks, and the original lengths of rotations that were scaled.
    """
    names = ("sliding_window", "attention_chunk_size", "window_size")
    lengths = [getattr(config, name, None) for name in names]
    lengths += [_original(config, rope) for rope in _rotations(config)]
    return tuple(sorted({length for length in lengths if isinstance(length, int) and length > 0}))


def rotation_types(config: Any) -> frozenset[str]:
    """The kinds of rotary positions of a text configuration, none where it has none, and "alpha" where that is set."""
    ropes = list(_rotations(config))
    return frozenset(str(rope.get("rope_type")) for rope in ropes) | {"alpha" for rope in ropes if "alpha" in rope}


def with_constant_rotations(config: Any) -> bool:
    """Write dynamic NTK scaling as no scaling, in place; whether there was any.

    Its base grows with texts beyond `max_position_embeddings` alone (transformers' `_compute_dynamic_ntk_parameters`),
    which is the context here, and a graph cannot be traced through the question. HunYuan's `alpha` changes it at once.
    """
    dynamic = [rope for rope in _rotations(config) if rope.get("rope_type") == "dynamic" and "alpha" not in rope]
    for rope in dynamic:
        rope["rope_type"] = "default"
    return bool(dynamic)


def _original(config: Any, rope: dict[str, Any]) -> int | None:
    return rope.get(ORIGINAL) or getattr(config, ORIGINAL, None)


def _rotations(config: Any) -> Iterator[dict[str, Any]]:
    """The rotary parameters, of each kind of layers where they differ."""
    parameters = getattr(config, "rope_parameters", None) or {}
    if "rope_type" in parameters:
        yield parameters
    else:
        yield from (rope for rope in parameters.values() if isinstance(rope, dict))
