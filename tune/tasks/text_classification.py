"""Text classification in training: rows to tensors, and the metrics its answers are judged by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Metric = Callable[[NDArray[np.int64], NDArray[np.int64]], float]


def accuracy(expected: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Share of rows answered right, 0 to 1; both arguments (rows,) class indices."""
    return float(np.mean(expected == predicted))


def macro_f1(expected: NDArray[np.int64], predicted: NDArray[np.int64]) -> float:
    """Unweighted mean of the classes' F1, 0 to 1, over the classes that `expected` holds."""
    from sklearn.metrics import f1_score

    labels = np.unique(expected)
    return float(f1_score(expected, predicted, labels=labels, average="macro", zero_division=0))


METRICS: dict[str, Metric] = {"accuracy": accuracy, "macro_f1": macro_f1}
DEFAULT_METRIC = "accuracy"


def encode(tokenizer: Any, texts: Sequence[str], max_tokens: int) -> list[dict[str, list[int]]]:
    """Token ids of each text with special tokens, cut at `max_tokens`, unpadded."""
    encoded = tokenizer(list(texts), truncation=True, max_length=max_tokens)
    names = [name for name in tokenizer.model_input_names if name in encoded]
    return [{name: encoded[name][row] for name in names} for row in range(len(texts))]
