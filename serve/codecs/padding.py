"""Token ids of several inputs as one batch of the graph's inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetune.serve.codecs.text import EncodedText


def unpadded(outputs: NDArray[np.float32], mask: Any) -> list[NDArray[np.float32]]:
    """The outputs of each row of a batch without those of its padding.

    Args:
        outputs: (batch, width), or (batch, tokens, width) of a head on each token, float32.
        mask: the attention mask, (batch, tokens); of a batch without tokens None.

    Returns:
        Of each row (width,), or (tokens of the row, width).
    """
    if outputs.ndim == 2:
        return list(outputs)
    return [row[used] for row, used in zip(outputs, np.asarray(mask) != 0, strict=True)]


def pad_batch(texts: Sequence[EncodedText], pad_id: int) -> dict[str, NDArray[np.int64]]:
    """Join texts into the graph's inputs, padded on the right to the longest of them.

    Returns:
        input_ids, attention_mask and token_type_ids: each (batch, tokens) int64.
    """
    width = max(len(text.ids) for text in texts)
    input_ids = np.full((len(texts), width), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(texts), width), dtype=np.int64)
    token_type_ids = np.zeros((len(texts), width), dtype=np.int64)
    for row, text in enumerate(texts):
        tokens = len(text.ids)
        input_ids[row, :tokens] = text.ids
        attention_mask[row, :tokens] = 1
        token_type_ids[row, :tokens] = text.type_ids
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
