"""Heads: how outputs of the graph become answers. One file a kind, one row here.

Must not import numpy at the top: `inspect` says what a head answers without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypedDict, cast

import msgspec

from edgetune.serve.errors import BundleDamaged, BundleFormatError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgetune.serve.bundle import HeadSpec
    from edgetune.serve.golden_cases import GoldenCase

# The prediction of the bundle's head: Prediction, LabelsPrediction, NumberPrediction, EntitiesPrediction and others.
Answer = Any
# A decision as a JSON value.
Plain = str | list[str] | float | list[float] | list[dict[str, Any]] | dict[str, Any]

# Kind in the manifest: where its class is, and what it answers in a few words.
HEADS = {
    "label": ("edgetune.serve.heads.label:LabelHead", "one of {labels}"),
    "labels": ("edgetune.serve.heads.labels:LabelsHead", "any of {labels}"),
    "number": ("edgetune.serve.heads.number:NumberHead", "a number"),
    "embedding": ("edgetune.serve.heads.embedding:EmbeddingHead", "a vector of {width} numbers"),
    "entities": ("edgetune.serve.heads.entities:EntitiesHead", "spans of {labels}"),
}
# Kinds of the head that joins those of several tasks, of which some may answer for each token; no manifest has them.
TASKS, TASKS_ON_TOKENS = "tasks", "tasks-on-tokens"
# Those whose graph gives logits to each token, (batch, tokens, width), and not to each row.
PER_TOKEN = frozenset({"entities", TASKS_ON_TOKENS})


class OutputTensor(msgspec.Struct, frozen=True):
    """An output of the Open Inference Protocol that a head can give.

    Attributes:
        datatype: the protocol's name of it, such as FP32; BYTES for texts.
        columns: values of each row in a dimension of their own; None where a row has one value and no such dimension.
        values: from logits (rows, width) float32: texts, or an array (rows,) or (rows, columns).
    """

    datatype: str
    columns: int | None
    values: Callable[[NDArray[np.float32]], list[str] | NDArray[Any]]


class AnswerSchema(TypedDict):
    """JSON Schema of an answer: `required` names the members that are always there."""

    type: str
    properties: Mapping[str, Mapping[str, object]]
    required: list[str]


class Head(Protocol):
    """How logits, (rows, width) float32, become answers.

    Attributes:
        spec: what the manifest says of it.
        labels: the answers there are, in the order of the columns; none where answers are no labels.
        columns: names of what `as_lines` shows of an answer.
        tensors: outputs by name, those that a client gets who names none in `default_tensors`.
        ranked: whether the best few answers of a row can be asked for.
        blank: `as_json` of an input that was not answered.
        schema: JSON Schema of `as_json`.
    """

    spec: HeadSpec
    labels: tuple[str, ...]
    columns: tuple[str, ...]
    tensors: Mapping[str, OutputTensor]
    default_tensors: tuple[str, ...]
    ranked: bool
    blank: Mapping[str, object]
    schema: AnswerSchema

    @property
    def width(self) -> int:
        """Columns of the logits."""

    def answer(self, logits: NDArray[np.float32], truncated: Sequence[bool]) -> list[Answer]:
        """An answer for each row; `truncated` says of each whether its input was cut."""

    def with_texts(self, answers: Sequence[Answer], texts: Sequence[str]) -> list[Answer]:
        """The answers with what the logits do not know of the texts; asked of heads on each token alone."""

    def scores(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Probabilities: (rows, width) float32.

        Raises:
            InputError: the answers have none.
        """

    def decide(self, logits: NDArray[np.float32]) -> NDArray[Any]:
        """What each row is answered, as an array whose first dimension is the rows."""

    def plain(self, decision: Any) -> Plain:
        """One row of `decide` as a JSON value, the same as the answer's own `plain`."""

    def as_json(self, answer: Answer, top: int | None) -> dict[str, object]:
        """An answer as a JSON object, with the scores of the `top` best."""

    def as_lines(self, answer: Answer, top: int | None) -> list[list[str]]:
        """An answer as lines of text, each a cell for each of `columns`; the `top` best one a line."""

    def misfit(self, case: GoldenCase) -> str:
        """Why a golden answer is none of this head, as the end of a sentence; empty where it is one."""

    def differs(self, case: GoldenCase, logits: NDArray[np.float32], tolerance: float) -> str:
        """How the answer of one row, (width,) float32, is not the packed one, as the end of a sentence; empty if it is.

        The logits lie within `tolerance` of the packed ones; an answer may differ only where that can turn it.
        """


# JSON Schemas that heads share.
SCORE: Mapping[str, object] = {"type": "number", "minimum": 0, "maximum": 1}
SCORES: Mapping[str, object] = {"type": "object", "additionalProperties": SCORE}
FLAG: Mapping[str, object] = {"type": "boolean"}


def answer_schema(required: str, properties: Mapping[str, Mapping[str, object]]) -> AnswerSchema:
    """The JSON Schema of an answer: an object with these properties, `truncated`, and the ones named always there."""
    named = {**properties, "truncated": FLAG}
    return {"type": "object", "properties": named, "required": [*required.split(), "truncated"]}


def open_head(spec: HeadSpec) -> Head:
    """The head that a manifest describes.

    Raises:
        BundleFormatError: this release has no head of this kind.
        BundleDamaged: its labels, thresholds or temperature do not fit its kind.
    """
    if spec.abstain_below is not None and spec.kind != "label":
        raise BundleDamaged(
            f"The head {spec.kind!r} of the manifest has abstain_below.", expected="it for a single label alone"
        )
    if spec.kind not in HEADS:
        raise BundleFormatError(
            f"The bundle answers with a head of the kind {spec.kind!r}.",
            expected=f"one of {', '.join(HEADS)}, which this edgetune reads",
            action="install a newer edgetune",
        )
    module, _, kind = HEADS[spec.kind][0].partition(":")
    return cast(Head, getattr(importlib.import_module(module), kind)(spec))


def describe_heads(specs: Sequence[HeadSpec], most: int) -> str:
    """As `describe_head`, of all heads, those of several tasks by their names."""
    if len(specs) == 1:
        return describe_head(specs[0], most)
    return "; ".join(f"{spec.name}: {describe_head(spec, most)}" for spec in specs)


def describe_head(spec: HeadSpec, most: int) -> str:
    """What a head answers in a few words, at most so many labels named; opens nothing."""
    if spec.kind not in HEADS:
        return f"{spec.kind} (of a newer edgetune)"
    shown = ", ".join(spec.labels[:most]) + (", ..." if len(spec.labels) > most else "")
    unsure = "" if spec.abstain_below is None else f"; unsure below {spec.abstain_below:.4g}"
    return HEADS[spec.kind][1].format(labels=f"{len(spec.labels)} labels: {shown}", width=spec.width) + unsure


def abstaining(spec: HeadSpec, abstain_below: float | None) -> HeadSpec:
    """The head with another probability below which it is unsure; None leaves it as it was packed.

    Raises:
        InputError: it is no probability, or the head gives no single label.
    """
    if abstain_below is None:
        return spec
    if not 0 <= abstain_below <= 1:
        raise InputError(f"abstain_below is {abstain_below}.", expected="a probability from 0 to 1")
    if spec.kind != "label":
        raise InputError(
            f"This bundle's answers are of the kind {spec.kind!r}, which is never unsure.",
            expected="a bundle that gives each input one label",
            action="leave abstain_below away",
        )
    return msgspec.structs.replace(spec, abstain_below=abstain_below)
