"""The probe of a task on tokens, and its rows: a linear head solved on the states of tokens, the frozen trunk's.

On entities it is many points below what training reaches: it is the base of comparisons and where the head starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgetune.tune.data.dataset import Dataset, Part
from edgetune.tune.data.rows import Span
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import seen_by_head
from edgetune.tune.models.token_rows import token_texts, window_rows
from edgetune.tune.tasks.objective import UNSEEN, TokenObjective
from edgetune.tune.training.probe import Learnable, Probe, fit_probe
from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from edgetune.tune.models.types import EncodedRow, Model

# Tokens with a tag that the head is solved on.
MOST_TOKENS, MOST_HELD_OUT_TOKENS = 60_000, 20_000
MOST_LOOKED = 4_000  # texts whose entities tell whether they are made of words


def labelled_windows(encoder: Encoder, part: Part, objective: TokenObjective) -> list[EncodedRow]:
    """The windows of a part's texts as the Trainer takes them, `labels` the tag of each token."""
    texts = token_texts(encoder, part.texts)
    rows = window_rows(encoder, texts)
    tags = [window for text, target in zip(texts, part.targets, strict=True) for window in objective.tags(text, target)]
    return [{**row, "labels": labels} for row, labels in zip(rows, tags, strict=True)]


def padded_tags(rows: Sequence[EncodedRow]) -> NDArray[np.int64]:
    """The tags of rows as one array (rows, tokens), `UNSEEN` behind each row's last token."""
    tags = np.full((len(rows), max(len(row["labels"]) for row in rows)), UNSEEN, dtype=np.int64)
    for place, row in enumerate(rows):
        tags[place, : len(row["labels"])] = row["labels"]
    return tags


def fit_token_probe(
    model: Model, encoder: Encoder, dataset: Dataset, objective: TokenObjective, *, bf16: bool, progress: Progress
) -> Probe:
    """Solve the head; the probe's `logits` are those of the validation part's windows, by places of tokens."""
    train = _first_tokens(labelled_windows(encoder, dataset.train, objective), MOST_TOKENS)
    validation = labelled_windows(encoder, dataset.validation, objective)
    states = [
        seen_by_head(model, encoder, _unlabelled(rows), bf16=bf16, progress=progress) for rows in (train, validation)
    ]
    totals = accumulate(map(_borne, validation))
    inside, total = _out_of_reach(encoder, dataset.validation)
    if inside:
        unit = "word" if encoder.codec == "words" else "token"
        progress.say(
            f"{inside:,} of {total:,} validation entities begin or end inside a {unit}: such an entity is never "
            "answered exactly by this base's tokenizer"
        )
    held_out = max(1, sum(1 for total in totals if total <= MOST_HELD_OUT_TOKENS))
    probe = fit_probe(
        _tokens(objective, train, states[0]),
        _tokens(objective, validation[:held_out], states[1][:held_out]),
        objective,
        balanced=False,
        progress=progress,
    )
    tags = padded_tags(validation)
    logits = np.zeros((*tags.shape, objective.width), dtype=np.float32)
    for place, features in enumerate(states[1]):
        logits[place, : len(features)] = probe.start.logits(features)
    outputs = objective.visible(logits, tags)
    value = objective.metric.of(objective.restored(tags), objective.answers(outputs))
    return replace(probe, logits=outputs, value=value)


def with_tag_unit(encoder: Encoder, part: Part, unit: str) -> tuple[Encoder, str]:
    """The encoder whose tags are borne by words, or by tokens; and what there is to say of it.

    Of `auto` words, of which the first token alone is learnt and answers, unless more entities than one of 200 begin or
    end inside a word: those of languages that join names to endings, or of codes within codes.

    Args:
        part: that is learnt from.
        unit: `word`, `token` or `auto`.
    """
    words = encoder.by("words")
    if unit != "auto":
        return (words if unit == "word" else encoder), ""
    sample = Part(part.texts[:MOST_LOOKED], part.targets[:MOST_LOOKED])
    lost, total = _out_of_reach(words, sample)
    lost -= _out_of_reach(encoder, sample)[0]
    if lost * 200 <= total:
        return words, ""
    return encoder, (
        f"{lost:,} of {total:,} training entities begin or end inside a word: tokens bear tags, and not words "
        "(tune.tag_unit)."
    )


def _out_of_reach(encoder: Encoder, part: Part) -> tuple[int, int]:
    """How many entities of a part begin or end inside what bears a tag, and how many there are."""
    inside = total = 0
    for text, target in zip(token_texts(encoder, part.texts), part.targets, strict=True):
        borders = [border for window in text.windows for border in window.borders]
        starts, ends = {start for start, _ in borders}, {end for _, end in borders}
        spans: tuple[Span, ...] = target  # type: ignore[assignment]
        total += len(spans)
        inside += sum(start not in starts or end not in ends for start, end, _ in spans)
    return inside, total


def _first_tokens(rows: list[EncodedRow], most: int) -> list[EncodedRow]:
    """Rows drawn with a fixed seed until they have so many tokens, in their order."""
    order = np.random.default_rng(0).permutation(len(rows))
    totals = accumulate(_borne(rows[place]) for place in order)
    taken = sum(1 for total in totals if total <= most)
    return [rows[place] for place in sorted(order[: max(1, taken)].tolist())]


def _borne(row: EncodedRow) -> int:
    """The tags of a row."""
    return sum(tag != UNSEEN for tag in row["labels"])


def _unlabelled(rows: Sequence[EncodedRow]) -> list[dict[str, list[int]]]:
    return [{name: values for name, values in row.items() if name != "labels"} for row in rows]


def _tokens(objective: TokenObjective, rows: Sequence[EncodedRow], states: Sequence[NDArray[np.float32]]) -> Learnable:
    """The tokens of rows that bear tags as rows of the probe, each row's first token before them: a special one is
    outside of everything, and parts two rows' spans."""
    tags = np.concatenate([np.asarray(row["labels"]) for row in rows])
    first = np.cumsum([0, *(len(row["labels"]) for row in rows[:-1])])
    borne = tags != UNSEEN
    borne[first] = True
    return np.concatenate(states)[borne], np.where(tags == UNSEEN, objective.outside, tags)[borne]
