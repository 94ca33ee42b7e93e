"""One sequence of tokens through a decoder graph from an empty cache: what calibration and judging feed.

The runtime's loop lives in `serve/generation`; this is a single run without sampling or a cache to keep.
Must not import onnx_ir at module level.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.errors import CompressError
from edgetune.serve.stepwise.spec import GenerationSpec

if TYPE_CHECKING:
    import onnxruntime

Feed = dict[str, NDArray[Any]]


def prefill_feed(session: onnxruntime.InferenceSession, ids: Sequence[int], spec: GenerationSpec) -> Feed:
    """The inputs of one run over `ids` with nothing in the cache, of those that the session lists.

    Args:
        session: an opened session of the graph.
        ids: token ids, at most `spec.context_tokens`.
        spec: shapes and names of the cache.

    Returns:
        `input_ids`, `attention_mask` and `position_ids` (1, tokens) int64; per layer the past
        (1, kv_heads, 0, head_dim) float32.
    """
    tokens = np.asarray(ids, np.int64)[None, :]
    feed: Feed = {
        "input_ids": tokens,
        "attention_mask": np.ones_like(tokens),
        "position_ids": np.arange(tokens.shape[1], dtype=np.int64)[None, :],
    }
    empty = np.zeros((1, spec.kv_heads, 0, spec.head_dim), np.float32)
    feed.update(dict.fromkeys(spec.past_names(), empty))
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
