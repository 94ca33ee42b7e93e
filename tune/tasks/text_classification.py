"""Text classification in training: rows to tensors, and the metrics its answers are judged by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgetune.tune.metrics import ACCURACY, MACRO_F1

# By the names that recipes have; answers are class indices.
METRICS = {metric.name: metric for metric in (ACCURACY, MACRO_F1)}


def encode(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[dict[str, list[int]]]:
    """Token ids of each text with special tokens, cut at `max_tokens`, unpadded."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens)
    names = [name for name in tokenizer.model_input_names if name in encoded]
    return [{name: encoded[name][row] for name in names} for row in range(len(texts))]
