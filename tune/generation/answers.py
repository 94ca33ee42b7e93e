"""Answers that a model generates to encoded rows, and their scores: what perplexity does not show.

Question and reference come from the rows' own labels, so that every format and template is asked as it was trained.
Greedy, by transformers: the runtime's own loop is for bundles, and the base is measured here too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from edgetune.serve.errors import DataError
from edgetune.tune.generation.batches import IGNORED
from edgetune.tune.generation.metrics import GenerationScores, score_answers
from edgetune.tune.progress import Progress, Silent

_BATCH = 16
_SPARE_TOKENS = 8  # beyond the longest reference, so that an answer which does not end is seen to be longer


@dataclass(frozen=True)
class Question:
    """What a row asks and what it answers last, as token ids."""

    prompt: tuple[int, ...]
    reference: tuple[int, ...]


def questions_of(rows: Sequence[dict[str, list[int]]]) -> list[Question]:
    """The last answer of each row, asked with all that stands before it; rows without an answer are left out.

    Raises:
        DataError: no row has an answer with something before it.
    """
    found = []
    for row in rows:
        labels = row["labels"]
        ends = [place for place, label in enumerate(labels) if label != IGNORED]
        if not ends:
            continue
        start = end = ends[-1]
        while start > 0 and labels[start - 1] != IGNORED:
            start -= 1
        if start > 0:
            ids = row["input_ids"]
            found.append(Question(tuple(ids[:start]), tuple(ids[start : end + 1])))
    if not found:
        raise DataError(
            f"None of the {len(rows)} rows asks for an answer that could be generated.",
            expected="rows with a prompt before their answer",
            action="leave tune.metrics away for plain text, which perplexity measures",
        )
    return found


def generate_answers(
    model: Any, tokenizer: Any, questions: Sequence[Question], *, progress: Progress | None = None
) -> list[str]:
    """What `model` answers to each question, greedily, as text without special tokens."""
    progress = progress or Silent()
    longest = max(len(question.reference) for question in questions) + _SPARE_TOKENS
    stops = model.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])} - {None}
    texts: dict[int, str] = {}
    order = sorted(range(len(questions)), key=lambda index: len(questions[index].prompt))
    model.eval()
    for first in range(0, len(order), _BATCH):
        indices = order[first : first + _BATCH]
        ids, mask = _left_padded([questions[index].prompt for index in indices])
        with torch.inference_mode():
            generated = model.generate(
                input_ids=ids.to(model.device),
                attention_mask=mask.to(model.device),
                do_sample=False,
                max_new_tokens=longest,
                eos_token_id=sorted(ends) or None,
                pad_token_id=min(ends, default=0),
            )
        answers = tokenizer.batch_decode(generated[:, ids.shape[1] :].cpu().tolist(), skip_special_tokens=True)
        texts.update(zip(indices, answers, strict=True))
        progress.advance(len(texts), len(questions), "answers")
    return [texts[index] for index in range(len(questions))]


def score_model(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    metrics: Sequence[str],
    *,
    progress: Progress | None = None,
) -> list[GenerationScores]:
    """Generate an answer to each question and score them by each metric, in the order of `metrics`."""
    answers = generate_answers(model, tokenizer, questions, progress=progress)
    references = tokenizer.batch_decode([list(one.reference) for one in questions], skip_special_tokens=True)
    return [score_answers(metric, answers, references) for metric in metrics]


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids and attention_mask, (rows, tokens) int64, padded on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask
