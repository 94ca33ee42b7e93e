"""Several labels at once: each whose probability, by a sigmoid of its own, reaches its threshold; also none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import BundleDamaged
from edgetune.serve.golden_cases import GoldenCase
from edgetune.serve.heads import SCORES, OutputTensor, answer_schema
from edgetune.serve.heads.label import best_scores, checked_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class LabelsPrediction:
    """The answer to one input: its labels in the order of the bundle's, and the probability of every label.

    `truncated` tells that the input was longer than the model takes and only its beginning was read.
    """

    labels: list[str]
    scores: dict[str, float]
    truncated: bool = False

    @property
    def plain(self) -> list[str]:
        """The labels."""
        return self.labels


class LabelsHead:
    """Any number of the labels for each row."""

    columns = ("labels", "scores")
    default_tensors = ("labels", "scores")
    ranked = True
    blank = {"labels": None, "scores": None, "truncated": False}  # noqa: RUF012 (never changed)
    schema = answer_schema(
        "labels scores", {"labels": {"type": "array", "items": {"type": "string"}}, "scores": SCORES}
    )

    def __init__(self, spec: HeadSpec) -> None:
        self.spec, self.labels = spec, checked_labels(spec)
        self._thresholds = _thresholds(spec)
        with np.errstate(divide="ignore"):
            # the thresholds as logits
            self._edges = (np.log(self._thresholds) - np.log1p(-self._thresholds)) * spec.temperature
        self.tensors = {
            "labels": OutputTensor("BYTES", None, self._json_rows),
            "scores": OutputTensor("FP32", self.width, self.scores),
        }

    @property
    def width(self) -> int:
        """One column a label."""
        return len(self.labels)

    def answer(self, logits: NDArray[np.float32], truncated: Sequence[bool]) -> list[LabelsPrediction]:
        """Predictions for logits (rows, labels) float32."""
        decisions, scores = self.decide(logits), self._probabilities(logits).tolist()
        return [
            LabelsPrediction(self.plain(decision), dict(zip(self.labels, row, strict=True)), cut)
            for decision, row, cut in zip(decisions, scores, truncated, strict=True)
        ]

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (rows, labels) float32, each for itself: a sigmoid of the logit over the temperature."""
        return self._probabilities(logits).astype(np.float32)

    def decide(self, logits: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which labels are given: (rows, labels) bool; a probability equal to its threshold is enough."""
        return np.asarray(self._probabilities(logits) >= self._thresholds)

    def plain(self, decision: Any) -> list[str]:
        """The labels that a row of booleans gives."""
        return [self.labels[place] for place in np.flatnonzero(decision)]

    def as_json(self, answer: LabelsPrediction, top: int | None) -> dict[str, object]:
        """labels, scores of the `top` best (all of them where not asked for), best first, and truncated."""
        scores = best_scores(answer.scores, self.width if top is None else top)
        return {"labels": answer.labels, "scores": scores, "truncated": answer.truncated}

    def as_lines(self, answer: LabelsPrediction, top: int | None) -> list[list[str]]:
        """The given labels and their scores on one line, or the `top` best one a line, given or not."""
        if top is not None:
            return [[label, f"{score:.4f}"] for label, score in best_scores(answer.scores, top).items()]
        scores = ", ".join(f"{answer.scores[label]:.4f}" for label in answer.labels)
        return [[", ".join(answer.labels) or "(none)", scores]]

    def misfit(self, case: GoldenCase) -> str:
        """Golden answers have a logit for each label, and a list of some of them."""
        fits = len(case.logits) == self.width and isinstance(case.answer, list) and set(case.answer) <= {*self.labels}
        return "" if fits else "was packed for other labels"

    def differs(self, case: GoldenCase, logits: NDArray[np.float32], tolerance: float) -> str:
        """A label may come or go only where its packed logit lies within the tolerance of its threshold."""
        packed = case.answer if isinstance(case.answer, list) else []
        given = self.plain(self.decide(logits[None])[0])
        turnable = np.abs(np.asarray(case.logits) - self._edges) <= tolerance
        turned = [label for label, may in zip(self.labels, turnable, strict=True) if not may]
        if any((label in given) is not (label in packed) for label in turned):
            return f"is answered {given} instead of {packed}"
        return ""

    def _probabilities(self, logits: NDArray[np.float32]) -> NDArray[np.float64]:
        return sigmoid(logits.astype(np.float64) / self.spec.temperature)

    def _json_rows(self, logits: NDArray[np.float32]) -> list[str]:
        return [msgspec.json.encode(self.plain(row)).decode() for row in self.decide(logits)]


def sigmoid(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The probability of each logit, in float64 and without overflow at either end."""
    values = logits.astype(np.float64)
    small = np.exp(-np.abs(values))
    return np.asarray(np.where(values >= 0, 1.0, small) / (1.0 + small))


def _thresholds(spec: HeadSpec) -> NDArray[np.float64]:
    """(labels,) float64, THRESHOLD for each where the manifest names none.

    Raises:
        BundleDamaged: they are not one for each label, or no probabilities.
    """
    values = np.asarray(spec.thresholds or [THRESHOLD] * len(spec.labels), dtype=np.float64)
    if len(values) != len(spec.labels) or not ((values >= 0) & (values <= 1)).all():
        raise BundleDamaged(
            f"The head {spec.kind!r} of the manifest has the thresholds {spec.thresholds!r:.200}.",
            expected=f"one from 0 to 1 for each of {len(spec.labels)} labels, or none at all",
        )
    return values
