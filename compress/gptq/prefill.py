"""One sequence of tokens through a decoder graph from its first cache: what calibration and judging feed.

The runtime's loop lives in `serve/generation`; this is a single run without sampling or a cache to keep.
Must not import onnx_ir at module level.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.errors import CompressError
from edgetune.serve.stepwise.first_caches import FirstCaches
from edgetune.serve.stepwise.spec import GenerationSpec

if TYPE_CHECKING:
    import onnxruntime

Feed = dict[str, NDArray[Any]]
Past = list[NDArray[np.float32]]


def starting_past(graph: Path, spec: GenerationSpec) -> Past:
    """What sequences start from: the first cache beside a graph, or an empty one.

    Returns:
        (1, kv_heads, tokens, head_dim) float32 of each layer and part.

    Raises:
        BundleDamaged: the first cache is missing.
    """
    first = FirstCaches(graph.parent, spec)
    if (name := first.name(None)) is not None:
        return first.arrays(name)
    return [np.zeros((1, spec.kv_heads, 0, spec.head_dim), np.float32)] * len(spec.past_names())


def prefill_feed(session: onnxruntime.InferenceSession, ids: Sequence[int], spec: GenerationSpec, past: Past) -> Feed:
    """The inputs of one run over `ids` from the beginning, of those that the session lists.

    Args:
        session: an opened session of the graph.
        ids: token ids, at most `spec.context_tokens`.
        spec: names of the cache.
        past: what sequences start from, as `starting_past` reads it.

    Returns:
        `input_ids` and `position_ids` (1, tokens) int64, `attention_mask` (1, past and tokens) int64; the past.
    """
    tokens, before = np.asarray(ids, np.int64)[None, :], past[0].shape[2]
    feed: Feed = {
        "input_ids": tokens,
        "attention_mask": np.ones((1, before + tokens.shape[1]), np.int64),
        "position_ids": np.arange(before, before + tokens.shape[1], dtype=np.int64)[None, :],
    }
    feed.update(zip(spec.past_names(), past, strict=True))
    return {one.name: feed[one.name] for one in session.get_inputs() if one.name in feed}


def usable_sequences(sequences: Sequence[Sequence[int]], spec: GenerationSpec) -> tuple[tuple[int, ...], ...]:
    """The sequences cut to the context, without those of fewer than two tokens, which predict nothing.

    Raises:
        CompressError: none is left, or an id lies outside the vocabulary.
    """
    kept = tuple(tuple(ids[: spec.context_tokens]) for ids in sequences if len(ids) > 1)
    if not kept:
        raise CompressError(f"none of {len(sequences)} token sequences has two tokens", expected="texts to run")
    foreign = next((one for ids in kept for one in ids if not 0 <= one < spec.vocabulary), None)
    if foreign is not None:
        raise CompressError(
            f"a text has the token id {foreign}", expected=f"ids below the vocabulary of {spec.vocabulary}"
        )
    return kept
