"""One label: the likeliest class, with the probabilities of all by a softmax; unsure where its own is too low."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import BundleDamaged
from edgetune.serve.golden_cases import GoldenCase
from edgetune.serve.heads import FLAG, SCORE, SCORES, OutputTensor, answer_schema

if TYPE_CHECKING:
    from numpy.typing import NDArray

UNSURE = "unsure"  # stands in a line of text in place of a label


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer to one input: the best label, its probability, all probabilities by label.

    `truncated` tells that the input was longer than the model takes and only its beginning was read; `unsure` that the
    probability is below the bundle's `abstain_below`, so that the label is a guess to be left to someone else;
    `answered_by` names, where a cascade answers, the scheme of the model that did; it is None where there is one model.
    """

    label: str
    score: float
    scores: dict[str, float]
    truncated: bool = False
    unsure: bool = False
    answered_by: str | None = None

    @property
    def plain(self) -> str:
        """The label."""
        return self.label

    def answered(self, scheme: str) -> Prediction:
        """The same, of a cascade's model; `dataclasses.replace` takes four times as long."""
        return Prediction(self.label, self.score, self.scores, self.truncated, self.unsure, scheme)


class LabelHead:
    """One of the labels for each row. Where the head may abstain, JSON and tensors tell which answers are unsure."""

    columns = ("label", "score")
    ranked = True

    def __init__(self, spec: HeadSpec) -> None:
        self.spec, self.labels = spec, checked_labels(spec)
        self._abstains = spec.abstain_below is not None
        unsure = ("unsure",) if self._abstains else ()
        self.blank = {"label": None, "score": None, "scores": None, "truncated": False, **dict.fromkeys(unsure, False)}
        self.schema = answer_schema(
            " ".join(("label score", *unsure)),
            {
                "label": {"type": "string"},
                "score": SCORE,
                "scores": SCORES,
                **dict.fromkeys(unsure, FLAG),
                "answered_by": {"type": "string"},
            },
        )
        self.default_tensors = ("label", "score", *unsure)
        self.tensors = {
            "label": OutputTensor("BYTES", None, lambda logits: [self.labels[place] for place in self.decide(logits)]),
            "score": OutputTensor("FP32", None, lambda logits: self.scores(logits).max(axis=1)),
            "scores": OutputTensor("FP32", self.width, self.scores),
        }
        if self._abstains:
            self.tensors["unsure"] = OutputTensor("BOOL", None, lambda logits: self.unsure(self.scores(logits)))

    @property
    def width(self) -> int:
        """One column a label."""
        return len(self.labels)

    def answer(self, logits: NDArray[np.float32], truncated: Sequence[bool]) -> list[Prediction]:
        """Predictions for logits (rows, labels) float32."""
        if len(logits) == 1:
            return [self._only(logits[0], truncated[0])]
        labels, scores = self.labels, self.scores(logits)
        rows = zip(self.decide(logits).tolist(), scores.tolist(), truncated, self.unsure(scores).tolist(), strict=True)
        return [
            Prediction(labels[place], row[place], dict(zip(labels, row, strict=True)), cut, unsure)
            for place, row, cut, unsure in rows
        ]

    def _only(self, logits: NDArray[np.float32], truncated: bool) -> Prediction:
        """The prediction for one row (labels,) float32: the same as among others, in half the time."""
        place = int(logits.argmax())
        odds = logits / np.float32(self.spec.temperature)
        np.exp(odds - odds[place], odds)
        odds /= np.add.reduce(odds)
        scores: list[float] = odds.tolist()
        score = scores[place]
        unsure = score < (self.spec.abstain_below or 0.0)
        return Prediction(self.labels[place], score, dict(zip(self.labels, scores, strict=True)), truncated, unsure)

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities (rows, labels) float32, each row summing to one: a softmax of logits over temperature."""
        return softmax(logits / np.float32(self.spec.temperature))

    def unsure(self, scores: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether each row's best probability is below the head's `abstain_below`: scores (rows, labels) to (rows,)."""
        return np.asarray(scores.max(axis=1).astype(np.float64) < (self.spec.abstain_below or 0.0))

    def decide(self, logits: NDArray[np.float32]) -> NDArray[np.int64]:
        """Class indices (rows,) int64, the first of several that are equally likely."""
        places: NDArray[np.int64] = logits.argmax(axis=1)
        return places

    def plain(self, decision: Any) -> str:
        """The label of a class index."""
        return self.labels[int(decision)]

    def as_json(self, answer: Prediction, top: int | None) -> dict[str, object]:
        """label, score, truncated; unsure of a head that may abstain; scores of the `top` best where asked for, best
        first; answered_by in a cascade.
        """
        value: dict[str, object] = {"label": answer.label, "score": answer.score, "truncated": answer.truncated}
        if self._abstains:
            value["unsure"] = answer.unsure
        if top is not None:
            value["scores"] = best_scores(answer.scores, top)
        if answer.answered_by is not None:
            value["answered_by"] = answer.answered_by
        return value

    def as_lines(self, answer: Prediction, top: int | None) -> list[list[str]]:
        """The `top` best labels with their scores, the best one where `top` is None, or that it is unsure."""
        if top is None and answer.unsure:
            return [[UNSURE, f"{answer.score:.4f}"]]
        return [[label, f"{score:.4f}"] for label, score in best_scores(answer.scores, top or 1).items()]

    def misfit(self, case: GoldenCase) -> str:
        """Golden answers have a logit for each label and one of the labels."""
        fits = len(case.logits) == self.width and case.label in self.labels
        return "" if fits else "was packed for other labels"

    def differs(self, case: GoldenCase, logits: NDArray[np.float32], tolerance: float) -> str:
        """A label may differ only where the packed logits of both lie within the tolerance of each other."""
        place, packed = int(logits.argmax()), self.labels.index(case.label)
        if place == packed or abs(case.logits[place] - case.logits[packed]) <= tolerance:
            return ""
        return f"is answered {self.labels[place]!r} instead of {case.label!r}"


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of each row: (rows, labels) float32 to the same, each row summing to one."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    normalized: NDArray[np.float32] = shifted / shifted.sum(axis=1, keepdims=True)
    return normalized


def best_scores(scores: dict[str, float], top: int) -> dict[str, float]:
    """The `top` highest scores by label, highest first."""
    return dict(sorted(scores.items(), key=lambda item: -item[1])[:top])


def checked_labels(spec: HeadSpec) -> tuple[str, ...]:
    """The labels of a head.

    Raises:
        BundleDamaged: there are none, or one stands there twice.
    """
    if not spec.labels or len(set(spec.labels)) < len(spec.labels):
        what = "no labels" if not spec.labels else "a label twice"
        raise BundleDamaged(f"The head {spec.kind!r} of the manifest has {what}.", expected="its labels, each once")
    return tuple(spec.labels)
