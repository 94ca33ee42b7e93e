"""A number: the one output of the graph, as it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.golden_cases import GoldenCase
from edgetune.serve.heads import OutputTensor, answer_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class NumberPrediction:
    """The answer to one input: a number.

    `truncated` tells that the input was longer than the model takes and only its beginning was read.
    """

    value: float
    truncated: bool = False

    @property
    def plain(self) -> float:
        """The number."""
        return self.value


class NumberHead:
    """A number for each row."""

    columns = ("value",)
    default_tensors = ("value",)
    ranked = False
    labels = ()
    width = 1
    blank = {"value": None, "truncated": False}  # noqa: RUF012 (never changed)
    schema = answer_schema("value", {"value": {"type": "number"}})

    def __init__(self, spec: HeadSpec) -> None:
        if spec.labels or spec.thresholds or spec.temperature != 1:
            raise BundleDamaged(
                f"The head {spec.kind!r} of the manifest has labels or thresholds, or a temperature.",
                expected="none of these for a number",
            )
        self.spec = spec
        self.tensors = {"value": OutputTensor("FP32", None, lambda logits: logits[:, 0])}

    def answer(self, logits: NDArray[np.float32], truncated: Sequence[bool]) -> list[NumberPrediction]:
        """Predictions for logits (rows, 1) float32."""
        return [
            NumberPrediction(value, cut) for value, cut in zip(self.decide(logits).tolist(), truncated, strict=True)
        ]

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Raises InputError: numbers have no probabilities."""
        raise InputError("This bundle answers with numbers, which have no probabilities.", action="use predict()")

    def decide(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        """The numbers (rows,) float64."""
        return logits[:, 0].astype(np.float64)

    def plain(self, decision: Any) -> float:
        """The number."""
        return float(decision)

    def as_json(self, answer: NumberPrediction, top: int | None) -> dict[str, object]:
        """value and truncated; a number has no others beside it, whatever `top` is."""
        return {"value": answer.value, "truncated": answer.truncated}

    def as_lines(self, answer: NumberPrediction, top: int | None) -> list[list[str]]:
        """The number, to six digits."""
        return [[f"{answer.value:.6g}"]]

    def misfit(self, case: GoldenCase) -> str:
        """Golden answers have one logit and a number."""
        fits = len(case.logits) == self.width and isinstance(case.answer, int | float)
        return "" if fits else "was packed for another head than a number"

    def differs(self, case: GoldenCase, logits: NDArray[np.float32], tolerance: float) -> str:
        """The number is the logit itself; the packed ones must be the same number."""
        value, packed = float(logits[0]), case.answer
        near = isinstance(packed, int | float) and abs(value - packed) <= tolerance + 1e-6 * abs(value)
        return "" if near else f"is answered {value:.6g} instead of {packed}"
