"""Entities: the spans of a text that are names of things, each of a type, learnt as a tag for each token.

A target is the spans of a text in characters; tags are made of them where a text meets a tokenizer: the first word of
a span is learnt as `B-`, the others as `I-`, each by its first token (Devlin et al. 2019, arXiv 1810.04805, section
5.3), or every token is (`tune.tag_unit`). Words are those of the text as it is served, `serve/codecs/tokens.py` has
them, and not those that a file had.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import HeadSpec
from edgetune.serve.errors import CompressError, DataError
from edgetune.serve.heads.entities import BEGINS, INSIDE, OUTSIDE, EntitiesHead, Spans
from edgetune.serve.report import ClassQuality, Confusion
from edgetune.serve.token_outputs import by_position
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.columns import Columns
from edgetune.tune.data.rows import Span, Target
from edgetune.tune.data.spans import choose_span_columns, read_span_rows, spans_in, word_of
from edgetune.tune.metrics import ENTITY_F1, ENTITY_MACRO_F1, Metric
from edgetune.tune.tasks.objective import UNSEEN, FloatArray, Head, HeldOut, Solver, TokenObjective, support_vectors
from edgetune.tune.tasks.task import Guess, Summary, Task
from edgetune.tune.tasks.text_classification import LogisticSolver, of_classes

if TYPE_CHECKING:
    import torch

    from edgetune.serve.codecs.tokens import EncodedTokens
    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.data.reading import Table
    from edgetune.tune.data.rows import Input, Parts, Rows

MOST_CONFUSIONS = 12


@dataclass(frozen=True)
class Entities(TokenObjective):
    """The spans of each text; `expected` and answers are `Spans`, one a text, `learnt` are tags of words or
    tokens.

    Labels are the tags: O, and B- and I- of each type.
    """

    problem_type: ClassVar[str] = ""

    def configure(self, config: Any) -> None:
        config.num_labels = len(self.labels)
        config.id2label = dict(enumerate(self.labels))
        config.label2id = {label: place for place, label in enumerate(self.labels)}

    @cached_property
    def head(self) -> EntitiesHead:
        """What makes spans of a model's outputs."""
        return EntitiesHead(HeadSpec(kind="entities", labels=list(self.labels)))

    @property
    def strengths(self) -> tuple[float, ...]:
        """One: a row is a token here, and there are tens of thousands."""
        return (1.0,)

    def expected(self, targets: Sequence[Target]) -> NDArray[np.object_]:
        spans: NDArray[np.object_] = np.empty(len(targets), dtype=object)
        for row, target in enumerate(targets):
            spans[row] = Spans(tuple((start, end, self.labels[kind][len(BEGINS) :]) for start, end, kind in target))  # type: ignore[union-attr,misc]
        return spans

    @property
    def outside(self) -> int:
        return self.labels.index(OUTSIDE)

    def tags(self, text: EncodedTokens, target: Target) -> list[list[int]]:
        spans: Sequence[Span] = target  # type: ignore[assignment]
        return [self._window_tags(window, spans) for window in text.windows]

    def _window_tags(self, window: EncodedTokens, target: Sequence[Span]) -> list[int]:
        places = {label: place for place, label in enumerate(self.labels)}
        tags, spans, before = [UNSEEN] * window.size, iter(sorted(target)), None
        span = next(spans, None)
        for place, (start, end) in zip(window.places, window.borders, strict=True):
            while span is not None and span[1] <= start:
                span = next(spans, None)
            if span is None or end <= span[0]:
                tags[place], before = places[OUTSIDE], None
                continue
            # A span whose beginning stands in the window before goes on here.
            begins = span != before and start <= span[0]
            kind = self.labels[span[2]][len(BEGINS) :]
            tags[place], before = places[(BEGINS if begins or span != before else INSIDE) + kind], span
        return tags

    def restored(self, learnt: NDArray[Any]) -> NDArray[np.object_]:
        """The spans of rows of tags (rows, tokens), or of all tokens in one row (tokens,), by places of tokens."""
        rows = np.atleast_2d(learnt)
        hot = np.zeros((*rows.shape, self.width), dtype=np.float32)
        np.put_along_axis(hot, np.maximum(rows, 0)[:, :, None], 1.0, axis=2)
        return self.head.decide(by_position(hot, rows != UNSEEN))

    def answers(self, logits: FloatArray) -> NDArray[np.object_]:
        """The spans of rows whose outputs stand by places of tokens (rows, tokens, 2 + width)."""
        return self.head.decide(logits)

    def visible(self, logits: FloatArray, learnt: NDArray[Any]) -> FloatArray:
        return by_position(logits, learnt != UNSEEN)

    def value(self, learnt: NDArray[Any], logits: FloatArray) -> float:
        rows, outputs = np.atleast_2d(learnt), logits if logits.ndim == 3 else logits[None]
        return self.metric.of(self.restored(rows), self.answers(self.visible(outputs, rows)))

    def loss(self, logits: torch.Tensor, learnt: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        from torch.nn import functional

        return functional.cross_entropy(
            logits.flatten(0, 1), learnt.flatten(), weight=weights, ignore_index=UNSEEN, reduction="sum"
        )

    def imitation(self, logits: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        raise CompressError("no scheme that is taught suits entities yet")

    def solver(self, *, balanced: bool) -> Solver:
        return LogisticSolver(self.width, balanced=balanced)

    def linear_head(self, features: Any, learnt: NDArray[Any]) -> Head:
        return of_classes(support_vectors(features, learnt), np.unique(learnt), self.width)

    def head_spec(self, held_out: HeldOut) -> HeadSpec:
        return HeadSpec(kind="entities", labels=list(self.labels))

    def constants(self, expected: NDArray[Any]) -> NDArray[np.object_]:
        """No entity in any text."""
        nothing: NDArray[np.object_] = np.empty(1, dtype=object)
        nothing[0] = Spans()
        return nothing

    def figures(self, expected: NDArray[Any], answers: NDArray[Any]) -> dict[str, float]:
        """Shares of the answered entities: of the right type with another border, and of another type in the place."""
        given = right_type = other_type = 0
        for wanted, spans in zip(expected, answers, strict=True):
            left = set(wanted.items) - set(spans.items)
            given += len(spans.items)
            for start, end, kind in set(spans.items) - set(wanted.items):
                touching = [span[2] for span in left if span[0] < end and start < span[1]]
                right_type += kind in touching
                other_type += bool(touching) and kind not in touching
        return {"wrong_border": right_type / max(given, 1), "wrong_type": other_type / max(given, 1)}

    def classes(self, expected: NDArray[Any], answers: NDArray[Any]) -> list[ClassQuality]:
        """Precision, recall and F1 of each type by exact spans."""
        right: Counter[str] = Counter()
        given: Counter[str] = Counter()
        wanted: Counter[str] = Counter()
        for mine, theirs in zip(expected, answers, strict=True):
            right.update(span[2] for span in set(mine.items) & set(theirs.items))
            given.update(span[2] for span in theirs.items)
            wanted.update(span[2] for span in mine.items)
        qualities = [
            ClassQuality(
                label=kind,
                precision=right[kind] / max(given[kind], 1),
                recall=right[kind] / count,
                f1=2 * right[kind] / (given[kind] + count),
                rows=count,
            )
            for kind, count in wanted.items()
        ]
        return sorted(qualities, key=lambda quality: quality.f1)

    def confusions(self, expected: NDArray[Any], answers: NDArray[Any], inputs: Sequence[Input]) -> list[Confusion]:
        """Entities missed, made up, or given another type or border: each such pair with its first example."""
        pairs: dict[tuple[str, str], list[str]] = {}
        for wanted, given, text in zip(expected, answers, inputs, strict=True):
            for pair, (start, end) in _mistakes(set(wanted.items), set(given.items)):
                pairs.setdefault(pair, []).append(f"{str(text)[start:end]} (in: {text})")
        ordered = sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0]))
        return [
            Confusion(expected=right, predicted=wrong, rows=len(examples), example=examples[0])
            for (right, wrong), examples in ordered[:MOST_CONFUSIONS]
        ]


def _mistakes(
    wanted: set[tuple[int, int, str]], given: set[tuple[int, int, str]]
) -> list[tuple[tuple[str, str], tuple[int, int]]]:
    """What was expected and what was answered, of each mistake in one text, and where."""
    mistakes = []
    answered = given - wanted
    for start, end, kind in sorted(wanted - given):
        over = next((span for span in sorted(answered) if span[0] < end and start < span[1]), None)
        if over is None:
            mistakes.append(((kind, "nothing"), (start, end)))
            continue
        answered.discard(over)
        mistakes.append(((kind, over[2] if over[2] != kind else f"{kind}, other border"), (start, end)))
    return mistakes + [(("nothing", kind), (start, end)) for start, end, kind in sorted(answered)]


class TokenClassification(Task):
    """The spans of a text that are entities; in clean rows a word is the JSON list of [start, end, type]."""

    name: ClassVar[str] = "token-classification"
    kind: ClassVar[str] = "entities"
    summary: ClassVar[str] = "Entities in a text: spans, each of a type."
    codec: ClassVar[str] = "tokens"
    stratum: ClassVar[str] = "rarest type"
    has_labels: ClassVar[bool] = False
    one_label: ClassVar[bool] = False
    per_token: ClassVar[bool] = True
    metrics: ClassVar[tuple[Metric, ...]] = (ENTITY_F1, ENTITY_MACRO_F1)

    def recognises(self, columns: Mapping[str, Sequence[Any]], section: Mapping[str, Any]) -> Guess:
        """Columns of words and tags, or spans with borders beside a text."""
        reason = spans_in(columns, section)
        # Above lists of labels, which tags of words look like.
        return Guess(1.1, reason) if reason else Guess()

    def choose_columns(self, table: Table, recipe: DataRecipe) -> Columns:
        self._refuse_keys(recipe, "text_pair", "separator")
        return choose_span_columns(table, recipe.text, self._one_column(recipe))

    def read_rows(self, table: Table, columns: Columns) -> Rows:
        return read_span_rows(table, columns)

    def labels(self, parts: Parts, source: str, order: Sequence[str] | None) -> tuple[str, ...]:
        counts = Counter(kind for word in parts.train.labels for _, _, kind in word_of(word))
        if not counts:
            raise DataError(
                f"None of the {counted(len(parts.train), 'row')} of {source} has an entity.",
                expected="texts with spans, or words with tags other than O.",
                action="name the column of spans or tags with --set data.label=...",
            )
        for name in ("validation", "test"):
            self._check_types(name, parts.given.get(name), counts)
        tags = (OUTSIDE, *(prefix + kind for kind in sorted(counts) for prefix in (BEGINS, INSIDE)))
        return tuple(order) if order is not None and sorted(order) == sorted(tags) else tags

    def _check_types(self, name: str, rows: Rows | None, seen: Mapping[str, int]) -> None:
        for place, word in enumerate(rows.labels if rows else (), start=1):
            unseen = next((kind for _, _, kind in word_of(word) if kind not in seen), None)
            if unseen is not None:
                raise DataError(
                    f"Row {place} of the {name} part has an entity of the type {unseen!r}, which no training row has.",
                    expected=f"one of {', '.join(map(repr, sorted(seen)[:20]))}.",
                    action="add training rows with it, mend its name, or remove these entities.",
                )

    def target(self, word: str, labels: Mapping[str, int]) -> tuple[Span, ...]:
        return tuple((start, end, labels[BEGINS + kind]) for start, end, kind in word_of(word))

    def places(self, target: Target) -> tuple[int, ...]:
        """The place of each entity's `B-` tag."""
        return tuple(kind for _, _, kind in target)  # type: ignore[union-attr,misc]

    def strata(self, targets: Sequence[Target]) -> list[Hashable]:
        """The type of a text's entities that fewest texts have; -1 of a text without any."""
        kinds = [set(self.places(target)) for target in targets]
        counts = Counter(kind for row in kinds for kind in row)
        return [min(row, key=lambda kind: (counts[kind], kind), default=-1) for row in kinds]

    def describe(self, labels: Sequence[str], targets: Sequence[Target]) -> Summary:
        counts = Counter(labels[kind][len(BEGINS) :] for target in targets for kind in self.places(target))
        without = sum(not target for target in targets)
        listed = ", ".join(f"{kind} ({count:,})" for kind, count in counts.most_common(12))
        sentence = f"{counted(sum(counts.values()), 'entity', 'entities')} of {counted(len(counts), 'type')}: {listed}"
        sentence += f"; {counted(without, 'row')} without any."
        return Summary(sentence, {"entities": dict(counts.most_common()), "rows_without": without})

    def linear_features(self, inputs: Sequence[Input]) -> Any:
        from edgetune.tune.ngrams.words import WordFeatures

        return WordFeatures()

    def objective(self, labels: Sequence[str], metric: str, targets: Sequence[Target]) -> Entities:
        return Entities(tuple(labels), self.metric(metric))
