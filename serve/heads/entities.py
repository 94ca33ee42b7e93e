"""Entities: the spans of a text that are named, from the tags of its tokens.

A token's tag is the likeliest one; neighbours of one type are a span, unless the later one begins another by `B-`; a
span's score is the mean of its tokens' probabilities. That is the `simple` aggregation of transformers'
token-classification pipeline, as is what becomes of spans of two windows that overlap: the longer one stays, of two as
long the likelier. `viterbi` takes the likeliest row of tags in which no `I-` follows anything but its own type.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.golden_cases import GoldenCase
from edgetune.serve.heads import FLAG, SCORE, OutputTensor, answer_schema
from edgetune.serve.heads.label import checked_labels
from edgetune.serve.token_outputs import BORDERS, logits_of, split_windows

OUTSIDE = "O"
BEGINS, INSIDE = "B-", "I-"
DECODINGS = ("simple", "viterbi")
# Added to the score of a step that no row of tags may take.
_NEVER = -1e9

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, order=True, slots=True)
class Spans:
    """The spans of one text, each (first character, the one behind its last, type), in order."""

    items: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Entity:
    """A span of a text: its type, the characters `start` to `end` (not included), what they say, its probability."""

    type: str
    start: int
    end: int
    text: str
    score: float

    def as_json(self) -> dict[str, object]:
        """As a JSON object."""
        span = {"type": self.type, "start": self.start, "end": self.end}
        return {**span, "text": self.text, "score": self.score}


@dataclass(frozen=True, slots=True)
class EntitiesPrediction:
    """The answer to one input: its entities in order; also none. Texts are read whole: `truncated` is never true."""

    entities: list[Entity]
    truncated: bool = False

    @property
    def plain(self) -> list[dict[str, Any]]:
        """Type and borders of each."""
        return [{"type": entity.type, "start": entity.start, "end": entity.end} for entity in self.entities]


_ENTITY = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "start": {"type": "integer", "minimum": 0},
        "end": {"type": "integer", "minimum": 0},
        "text": {"type": "string"},
        "score": SCORE,
    },
    "required": ["type", "start", "end", "text", "score"],
}


class EntitiesHead:
    """The spans of each text; its logits are (texts, tokens, 2 + labels), as `token_outputs` has them."""

    columns = ("type", "entity", "score")
    default_tensors = ("entities",)
    ranked = False
    blank = {"entities": None, "truncated": False}  # noqa: RUF012 (never changed)
    schema = answer_schema("entities", {"entities": {"type": "array", "items": _ENTITY}, "truncated": FLAG})

    def __init__(self, spec: HeadSpec) -> None:
        self.spec, self.labels = spec, checked_labels(spec)
        if spec.decode not in ("", *DECODINGS):
            raise BundleDamaged(
                f"The head {spec.kind!r} of the manifest is decoded by {spec.decode!r}.",
                expected=" or ".join(DECODINGS),
            )
        self._tags = [split_tag(label) for label in self.labels]
        self._steps = legal_steps(self.labels) if spec.decode == "viterbi" else None
        self.tensors = {"entities": OutputTensor("BYTES", None, self._json_rows)}

    @property
    def width(self) -> int:
        """One column a tag."""
        return len(self.labels)

    def answer(self, logits: FloatArray, truncated: Sequence[bool]) -> list[EntitiesPrediction]:
        """Entities of each text without what they say, which the logits do not know: `with_texts` adds it."""
        return [
            EntitiesPrediction(
                [Entity(kind, start, end, "", score) for start, end, kind, score in self._spans_with_scores(row)]
            )
            for row in logits
        ]

    def with_texts(self, answers: Sequence[EntitiesPrediction], texts: Sequence[str]) -> list[EntitiesPrediction]:
        """The answers with what each entity says."""
        return [
            EntitiesPrediction(
                [Entity(e.type, e.start, e.end, text[e.start : e.end], e.score) for e in answer.entities]
            )
            for answer, text in zip(answers, texts, strict=True)
        ]

    def scores(self, logits: FloatArray) -> FloatArray:
        """Raises InputError: texts have no probabilities, spans have."""
        raise InputError("This bundle answers with entities, each with a score of its own.", action="use predict()")

    def decide(self, logits: FloatArray) -> NDArray[np.object_]:
        """The `Spans` of each text: (texts,) of objects."""
        decided = np.empty(len(logits), dtype=object)
        for place, row in enumerate(logits):
            decided[place] = Spans(tuple((start, end, kind) for start, end, kind, _ in self._spans_with_scores(row)))
        return decided

    def plain(self, decision: Spans) -> list[dict[str, Any]]:
        """Type and borders of each span."""
        return [{"type": kind, "start": start, "end": end} for start, end, kind in decision.items]

    def as_json(self, answer: EntitiesPrediction, top: int | None) -> dict[str, object]:
        """entities, each with type, start, end, text and score; truncated. `top` changes nothing."""
        return {"entities": [entity.as_json() for entity in answer.entities], "truncated": answer.truncated}

    def as_lines(self, answer: EntitiesPrediction, top: int | None) -> list[list[str]]:
        """A line an entity, and one with nothing in it where there is none."""
        lines = [[entity.type, entity.text, f"{entity.score:.4f}"] for entity in answer.entities]
        return lines or [[""] * len(self.columns)]

    def misfit(self, case: GoldenCase) -> str:
        """Golden answers have the logits of every token, and spans."""
        fits = len(case.logits) % self.width == 0 and isinstance(case.answer, list)
        return "" if fits else "was packed for another head than entities"

    def differs(self, case: GoldenCase, logits: FloatArray, tolerance: float) -> str:
        """Spans may differ only where some token's two tags lie within the tolerance of each other."""
        spans = self.plain(self.decide(logits[None])[0])
        if spans == case.answer:
            return ""
        packed = np.asarray(case.logits, dtype=np.float32).reshape(-1, self.width)
        given = logits_of(logits).reshape(-1, self.width)
        rows = np.arange(len(packed))
        apart = packed[rows, packed.argmax(axis=1)] - packed[rows, given.argmax(axis=1)]
        return "" if bool((apart <= tolerance).all()) else f"is answered {_shown(spans)} instead of {case.answer}"

    def _json_rows(self, logits: FloatArray) -> list[str]:
        keys = ("start", "end", "type", "score")
        rows = [[dict(zip(keys, span, strict=True)) for span in self._spans_with_scores(row)] for row in logits]
        return [json.dumps(row, ensure_ascii=False) for row in rows]

    def _spans_with_scores(self, row: FloatArray) -> list[tuple[int, int, str, float]]:
        """Start, end, type and score of each span of one text, (tokens, 2 + labels)."""
        windows = split_windows(row)
        spans = [span for window in windows for span in self._of_window(window)]
        return _longest(spans) if len(windows) > 1 else spans

    def _of_window(self, tokens: FloatArray) -> list[tuple[int, int, str, float]]:
        logits = tokens[:, BORDERS:]
        places = logits.argmax(axis=1) if self._steps is None else likeliest_tags(logits, self._steps)
        tags = [self._tags[place] for place in places.tolist()]
        groups = spans_of(tags)
        if not groups:
            return []
        shifted = np.exp((logits - logits.max(axis=1, keepdims=True)) / np.float32(self.spec.temperature))
        scores = shifted[np.arange(len(places)), places] / shifted.sum(axis=1)
        return [
            (int(tokens[first, 0]), int(tokens[last, 1]), kind, float(scores[first : last + 1].mean()))
            for first, last, kind in groups
        ]


def split_tag(label: str) -> tuple[bool, str]:
    """Whether a tag begins a span whatever stands before it, and its type, `O` for none."""
    if label.startswith((BEGINS, INSIDE)):
        return label.startswith(BEGINS), label[2:]
    return False, label


def spans_of(tags: Sequence[tuple[bool, str]]) -> list[tuple[int, int, str]]:
    """First token, last token and type of each span of a row of tags, as `split_tag` gives them."""
    spans: list[tuple[int, int, str]] = []
    before = OUTSIDE
    for place, (begins, kind) in enumerate(tags):
        if kind == OUTSIDE:
            before = OUTSIDE
        elif kind == before and not begins:
            spans[-1] = (spans[-1][0], place, kind)
        else:
            spans.append((place, place, kind))
            before = kind
    return spans


def legal_steps(labels: Sequence[str]) -> NDArray[np.float64]:
    """What is added to the score of each step from one tag to the next: (1 + labels, labels), first of a start."""
    steps = np.zeros((1 + len(labels), len(labels)))
    for place, label in enumerate(labels):
        if label.startswith(INSIDE):
            allowed = {f"{BEGINS}{label[2:]}", label}
            steps[0, place] = _NEVER
            steps[1:, place] = [0.0 if before in allowed else _NEVER for before in labels]
    return steps


def likeliest_tags(logits: FloatArray, steps: NDArray[np.float64]) -> NDArray[np.int64]:
    """The likeliest row of tags (Viterbi 1967): logits (tokens, labels) float32, steps as `legal_steps` gives them."""
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    best = scores[0] + steps[0]
    came_from = np.zeros(scores.shape, dtype=np.int64)
    for place in range(1, len(scores)):
        through = best[:, None] + steps[1:]
        came_from[place] = through.argmax(axis=0)
        best = through.max(axis=0) + scores[place]
    tags = np.zeros(len(scores), dtype=np.int64)
    tags[-1] = best.argmax()
    for place in range(len(scores) - 1, 0, -1):
        tags[place - 1] = came_from[place, tags[place]]
    return tags


def _longest(spans: list[tuple[int, int, str, float]]) -> list[tuple[int, int, str, float]]:
    """Of spans that overlap, from two windows, the longest, of those the likeliest."""
    longest: list[tuple[int, int, str, float]] = []
    for span in sorted(spans, key=lambda span: span[0]):
        if longest and span[0] < longest[-1][1]:
            before = longest[-1]
            if (span[1] - span[0], span[3]) > (before[1] - before[0], before[3]):
                longest[-1] = span
        else:
            longest.append(span)
    return longest


def _shown(spans: Sequence[dict[str, Any]]) -> str:
    return ", ".join(f"{span['type']} {span['start']} to {span['end']}" for span in spans) or "no entity"
