"""A vector for each text, of length one; on request its beginning, or coarser numbers in a byte or a bit each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.golden_cases import GoldenCase
from edgetune.serve.heads import OutputTensor, answer_schema

PRECISIONS = ("float32", "int8", "binary")
# A packed vector and the one given now may point apart by no more.
LEAST_COSINE = 0.95
_SHOWN = 4


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddingPrediction:
    """The answer to one input: its vector, (width,) float32 of length one.

    `truncated` tells that the input was longer than the model takes and only its beginning was read.
    """

    embedding: NDArray[np.float32]
    truncated: bool = False

    def __eq__(self, other: object) -> bool:
        """Whether both vectors are the same numbers, and both texts were cut or not."""
        if not isinstance(other, EmbeddingPrediction):
            return NotImplemented
        return self.truncated == other.truncated and np.array_equal(self.embedding, other.embedding)

    __hash__ = None  # type: ignore[assignment]  # as of any value that holds an array

    @property
    def plain(self) -> list[float]:
        """The vector as a list."""
        return list(map(float, self.embedding.tolist()))


class EmbeddingHead:
    """A vector for each row."""

    columns = ("embedding",)
    default_tensors = ("embedding",)
    ranked = False
    labels = ()
    blank = {"embedding": None, "truncated": False}  # noqa: RUF012 (never changed)

    def __init__(self, spec: HeadSpec) -> None:
        lengths = [spec.width, *spec.lengths]
        if spec.width < 1 or lengths != sorted(set(lengths), reverse=True) or min(lengths) < 1:
            raise BundleDamaged(
                f"The head {spec.kind!r} of the manifest has the width {spec.width} and the lengths {spec.lengths}.",
                expected="a width of 1 or more, and shorter lengths from long to short",
            )
        if spec.labels or spec.thresholds or spec.temperature != 1:
            raise BundleDamaged(
                f"The head {spec.kind!r} of the manifest has labels or thresholds, or a temperature.",
                expected="none of these for a vector",
            )
        self.spec, self.width = spec, spec.width
        item = {"type": "number", "minimum": -1, "maximum": 1}
        self.schema = answer_schema("embedding", {"embedding": {"type": "array", "items": item}})
        self.tensors = {"embedding": OutputTensor("FP32", self.width, self.decide)}

    def answer(self, logits: NDArray[np.float32], truncated: Sequence[bool]) -> list[EmbeddingPrediction]:
        """Predictions for outputs (rows, width) float32."""
        return [EmbeddingPrediction(row, cut) for row, cut in zip(self.decide(logits), truncated, strict=True)]

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raises InputError: vectors have no probabilities."""
        raise InputError("This bundle answers with vectors, which have no probabilities.", action="use embed()")

    def decide(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """The vectors scaled to length one, (rows, width) float32: what quantization left of the graph's scaling."""
        return unit(logits)

    def plain(self, decision: Any) -> list[float]:
        """The vector as a list."""
        return list(map(float, decision.tolist()))

    def as_json(self, answer: EmbeddingPrediction, top: int | None) -> dict[str, object]:
        """embedding and truncated; there is no other answer beside it, whatever `top` is."""
        return {"embedding": answer.plain, "truncated": answer.truncated}

    def as_lines(self, answer: EmbeddingPrediction, top: int | None) -> list[list[str]]:
        """The first few numbers, and how many there are."""
        shown = " ".join(f"{number:.4f}" for number in answer.embedding[:_SHOWN].tolist())
        return [[f"{shown} ... ({self.width})" if self.width > _SHOWN else shown]]

    def misfit(self, case: GoldenCase) -> str:
        """Golden answers have a number for each of the width, and nothing beside it."""
        fits = len(case.logits) == self.width and case.answer is None and not case.label
        return "" if fits else "was packed for another head than a vector"

    def differs(self, case: GoldenCase, logits: NDArray[np.float32], tolerance: float) -> str:
        """The vectors must point the same way: within the tolerance of each number there is room to turn."""
        packed = np.asarray([case.logits], dtype=np.float32)
        cosine = float((unit(packed) * unit(logits[None])).sum())
        return "" if cosine >= LEAST_COSINE else f"has a cosine of {cosine:.4f} to the packed vector"

    def shortened(self, vectors: NDArray[np.float32], dimensions: int | None) -> NDArray[np.float32]:
        """The first `dimensions` of each, scaled to length one again: (rows, width) to (rows, dimensions) float32.

        Raises:
            InputError: the vectors were not trained to be cut there.
        """
        if dimensions is None or dimensions == self.width:
            return vectors
        if dimensions not in self.spec.lengths:
            known = ", ".join(map(str, [self.width, *self.spec.lengths]))
            raise InputError(
                f"{dimensions} dimensions are asked for, at which this bundle's vectors were not trained to be cut.",
                expected=known,
                action="build it with tune.dimensions to have others",
            )
        return unit(vectors[:, :dimensions])

    def prompted(self, texts: Sequence[str], prompt: str | None) -> list[str]:
        """The texts with what stands before them; None leaves them as they are.

        Raises:
            InputError: there is no prompt of that name.
        """
        if prompt is None:
            return list(texts)
        if prompt not in self.spec.prompts:
            raise InputError(
                f"This bundle has no prompt {prompt!r:.60}.",
                expected=f"one of {', '.join(self.spec.prompts)}" if self.spec.prompts else "none at all",
            )
        return [self.spec.prompts[prompt] + text for text in texts]


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length one, (rows, width) float32; a row of zeros stays."""
    lengths = np.sqrt(np.square(vectors).sum(axis=1, keepdims=True))
    return np.asarray(vectors / np.maximum(lengths, 1e-12), dtype=np.float32)


def in_precision(vectors: NDArray[np.float32], precision: str) -> NDArray[Any]:
    """Vectors of length one in fewer bits.

    Args:
        vectors: (rows, width) float32.
        precision: "float32"; "int8", 127 times each number over the largest of its row, (rows, width) int8, whose
            cosines are those of the vectors; "binary", a bit for each positive number, (rows, width / 8 rounded up)
            uint8, to be compared by Hamming distance.

    Raises:
        InputError: there is no such precision.
    """
    if precision == "int8":
        largest = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), 1e-12)
        return np.asarray(np.rint(127 * vectors / largest), dtype=np.int8)
    if precision == "binary":
        return np.packbits(vectors > 0, axis=1)
    if precision != "float32":
        raise InputError(f"The precision is {precision!r:.60}.", expected=" or ".join(PRECISIONS))
    return vectors
