"""Why this answer: what each word of an input adds to it. numpy and the tokenizer, without torch.

Tables answer with a sum, so what a word adds to it is exact. A graph is asked again without each word (occlusion: Li,
Monroe and Jurafsky 2016, "Understanding Neural Networks through Representation Erasure"), all of them in one call.

What is explained is a sum of outputs: for a label its output less the mean of all outputs, which a softmax takes for
the same; for one of several labels, and for a number, the output itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs import describe_codec
from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.codecs.word_spans import SpanCodec, Word, words_of
from edgetune.serve.errors import InputError

if TYPE_CHECKING:
    from edgetune.serve.codecs import Input
    from edgetune.serve.engines import Engine
    from edgetune.serve.heads import Answer
    from edgetune.serve.predictor import Predictor

EXACT, OCCLUSION = "exact", "occlusion"
EXPLAINED = ("label", "labels", "number")  # kinds of heads


@dataclass(frozen=True)
class WordWeight:
    """A word of the input, where it stands, and what it adds: above 0 it speaks for the target, below against it.

    `part` names the text of a pair, else it is "text"; `start` and `end` are characters of that text.
    """

    part: str
    start: int
    end: int
    text: str
    weight: float


@dataclass(frozen=True)
class Explanation:
    """What the words of one input add to one answer.

    Attributes:
        target: the label that is explained; "value" where the answer is a number.
        answer: the whole answer.
        method: "exact" where the weights and `rest` sum to `total`, "occlusion" where each is what leaving the word
            away takes from it, and words that say the same thing may each have little.
        total: of the target, in logits; of a number, the number.
        rest: `total` less the sum of the weights.
        parts: names of the input's texts, "text" of a single one.
        texts: as they were encoded, one for each part.
        words: in the order of the input; those that were cut off are not among them.
    """

    target: str
    answer: Answer
    method: str
    total: float
    rest: float
    parts: tuple[str, ...]
    texts: tuple[str, ...]
    words: tuple[WordWeight, ...]

    @property
    def heaviest(self) -> float:
        """The largest weight of a word, whatever its sign; 0 where there is no word."""
        return max((abs(word.weight) for word in self.words), default=0.0)

    def as_json(self) -> dict[str, object]:
        """The target, method, total, rest and words as JSON types."""
        return {
            "target": self.target,
            "method": self.method,
            "total": self.total,
            "rest": self.rest,
            "words": [asdict(word) for word in self.words],
        }


def explain(predictor: Predictor, value: Input, target: str | None = None) -> Explanation:
    """What each word of an input adds to its answer.

    Args:
        predictor: of a bundle that gives labels or a number.
        value: one input, as `predict_one` takes it.
        target: the label to explain; None takes the answered one, of several labels the likeliest.

    Raises:
        InputError: the input is none, the bundle has no such label, or its answers are of another kind.
    """
    codec, kind = predictor.codec, predictor.head.spec.kind
    if kind not in EXPLAINED or not isinstance(codec, SpanCodec):
        raise InputError(
            f"Answers of the kind {kind!r} to {describe_codec(predictor.bundle.manifest.codec)} are not explained.",
            expected="a bundle that answers texts with labels or a number",
        )
    parts = list(codec.texts([value]))
    row, spans = codec.encode_spans(value)
    outputs = predictor.outputs([row])
    answer = predictor.answer(outputs, [row.truncated])[0]
    name, direction = _target(predictor, outputs.logits[0], target)
    words = words_of(parts, spans)
    tables = predictor.tables_for(row)
    if tables is not None:
        weights = _added(tables, row, words, direction)
    else:
        weights = _occluded(predictor, row, words, outputs.logits[0], direction)
    total = float(outputs.logits[0] @ direction)
    names = codec.parts
    return Explanation(
        name,
        answer,
        EXACT if tables is not None else OCCLUSION,
        total,
        total - sum(weights),
        tuple(names),
        tuple(parts),
        tuple(_weighed(word, names, parts, weight) for word, weight in zip(words, weights, strict=True)),
    )


def _target(predictor: Predictor, logits: NDArray[np.float32], label: str | None) -> tuple[str, NDArray[np.float32]]:
    """What is explained, and by how much it takes of each output: (width,) float32.

    Raises:
        InputError: there is no such label.
    """
    labels = predictor.labels
    if label is not None and label not in labels:
        raise InputError(
            f"The bundle has no label {label!r}.",
            expected=f"one of {', '.join(labels[:20])}{', ...' * (len(labels) > 20)}" if labels else "no label at all",
        )
    direction = np.zeros(predictor.head.width, dtype=np.float32)
    place = labels.index(label) if label is not None else int(logits.argmax())
    direction[place] = 1.0
    if predictor.head.spec.kind == "label":
        direction -= 1.0 / len(labels)
    return (labels[place] if labels else "value"), direction


def _added(tables: Engine, row: EncodedText, words: Sequence[Word], direction: NDArray[np.float32]) -> list[float]:
    """What the rows of each word add; of a pair of tokens half to each word, all where one is special or cut away."""
    tokens, pairs = tables.contributions(row)
    weights = [float((tokens[list(word.tokens)] @ direction).sum()) for word in words]
    owner = {token: place for place, word in enumerate(words) for token in word.tokens}
    for first, added in enumerate((pairs @ direction).tolist()):
        owners = [owner[token] for token in (first, first + 1) if token in owner]
        for place in owners:
            weights[place] += added / len(owners)
    return weights


def _occluded(
    predictor: Predictor,
    row: EncodedText,
    words: Sequence[Word],
    logits: NDArray[np.float32],
    direction: NDArray[np.float32],
) -> list[float]:
    """What the target loses with each word."""
    if not words:
        return []
    without = [_without(row, word, predictor) for word in words]
    kept: NDArray[np.float32] = predictor.graph_logits(without) @ direction
    return [float(value) for value in logits @ direction - kept]


def _without(row: EncodedText, word: Word, predictor: Predictor) -> EncodedText:
    """The row without the tokens of a word; of a row that has no others, what a blank input gives."""
    kept = [place for place in range(row.size) if place not in word.tokens]
    if not kept:
        return predictor.codec.samples([1])[0]
    return EncodedText(
        [row.ids[place] for place in kept], [row.type_ids[place] for place in kept], truncated=row.truncated
    )


def _weighed(word: Word, names: Sequence[str], parts: Sequence[str], weight: float) -> WordWeight:
    return WordWeight(
        names[word.span.part],
        word.span.start,
        word.span.end,
        parts[word.span.part][word.span.start : word.span.end],
        weight,
    )
