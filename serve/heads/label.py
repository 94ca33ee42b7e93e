"""Text classification at run time: logits to labels with scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one text: the best label, its probability, all probabilities by label.

    `truncated` tells that the text was longer than the model takes and only its beginning was read.
    """

    label: str
    score: float
    scores: dict[str, float]
    truncated: bool = False


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of each row: (rows, labels) float32 to the same, each row summing to one."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    normalized: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
    return normalized


def answer(logits: NDArray[np.float32], labels: Sequence[str], truncated: Sequence[bool]) -> list[Prediction]:
    """Predictions for logits of shape (rows, labels)."""
    probabilities = softmax(logits)
    best = probabilities.argmax(axis=1).tolist()
    return [
        Prediction(labels[place], row[place], dict(zip(labels, row, strict=True)), cut)
        for place, row, cut in zip(best, probabilities.tolist(), truncated, strict=True)
    ]
