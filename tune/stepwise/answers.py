"""Answers that a model generates to encoded rows, and their scores: what perplexity does not show.

Question and reference come from the rows' own labels, so that every format and template is asked as it was trained.
Greedy, by transformers: bundles have the runtime's own loop, and what it gives is turned into text and scored here too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import GenerationConfig

from edgetune.serve.errors import DataError
from edgetune.tune.stepwise.batches import IGNORED
from edgetune.tune.stepwise.context import position_limit
from edgetune.tune.stepwise.first_cache import first_tokens
from edgetune.tune.stepwise.metrics import GenerationScores, score_answers
from edgetune.tune.training.progress import Progress, Silent

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edgetune.tune.models.types import Model

ANSWER_BATCH = 16
_SPARE_TOKENS = 8  # beyond the longest reference, so that an answer which does not end is seen to be longer


@dataclass(frozen=True)
class Question:
    """What a row asks and what it answers last, as token ids."""

    prompt: tuple[int, ...]
    reference: tuple[int, ...]


def find_questions(rows: Sequence[dict[str, list[int]]]) -> list[Question]:
    """The last answer of each row, asked with all that stands before it; none of a row without, as plain texts are."""
    questions = []
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
            questions.append(Question(tuple(ids[:start]), tuple(ids[start : end + 1])))
    return questions


def questions_of(rows: Sequence[dict[str, list[int]]]) -> list[Question]:
    """The questions of `find_questions`, at least one.

    Raises:
        DataError: no row has an answer with something before it.
    """
    questions = find_questions(rows)
    if not questions:
        raise DataError(
            f"None of the {len(rows)} rows asks for an answer that could be generated.",
            expected="rows with a prompt before their answer",
            action="leave tune.metrics away for plain text, which perplexity measures",
        )
    return questions


def answer_tokens(questions: Sequence[Question]) -> int:
    """How many tokens every model may answer with: a few more than the longest reference."""
    return max(len(question.reference) for question in questions) + _SPARE_TOKENS


def generate_answers(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    max_tokens: int | None = None,
    ends: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[str]:
    """What `model` answers to each question, plainly greedily whatever its own settings, without special tokens.

    Args: as `generate_ids` takes them.
    """
    ids = generate_ids(model, tokenizer, questions, max_tokens=max_tokens, ends=ends, progress=progress)
    return answer_texts(tokenizer, ids)


def generate_ids(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    *,
    max_tokens: int | None = None,
    ends: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> list[list[int]]:
    """As `generate_answers`, token ids up to and with the one that ends each answer.

    Args:
        model: a causal language model of transformers, asked on the device where it is.
        tokenizer: the one that encoded the questions.
        questions: of any length within the model's context, which ends an answer as a bundle's does.
        max_tokens: of an answer; None takes `answer_tokens`.
        ends: the tokens that end one; None takes the tokenizer's, the model's and what closes most references.
        progress: told how many are answered.
    """
    progress = progress or Silent()
    most = max_tokens or answer_tokens(questions)
    ends = _ends(model, tokenizer, questions) if ends is None else ends
    answers: dict[int, list[int]] = {}
    model.eval()
    for indices, room in _batches(questions, most, _context_tokens(model, tokenizer)):
        ids, mask = _left_padded([questions[index].prompt for index in indices])
        with torch.inference_mode(), _greedy(model, min(most, room), ends):
            generated = model.generate(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))
        drawn = generated[:, ids.shape[1] :].cpu().tolist()
        answers.update((index, _ended(one, ends)) for index, one in zip(indices, drawn, strict=True))
        progress.advance(len(answers), len(questions), "answers")
    return [answers[index] for index in range(len(questions))]


def _ended(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    """Ids up to the first that ends an answer, that one included: a batch goes on to its longest."""
    last = next((place for place, token in enumerate(ids) if token in ends), len(ids) - 1)
    return list(ids[: last + 1])


def answer_texts(tokenizer: PreTrainedTokenizerBase, ids: Sequence[Sequence[int]]) -> list[str]:
    """The text of each answer, without special tokens: the same whoever gave the ids."""
    texts: list[str] = tokenizer.batch_decode([list(one) for one in ids], skip_special_tokens=True)
    return texts


def score_texts(
    tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question], answers: Sequence[str], metrics: Sequence[str]
) -> list[GenerationScores]:
    """Score an answer to each question by each metric, in the order of `metrics`."""
    references = answer_texts(tokenizer, [question.reference for question in questions])
    return [score_answers(metric, answers, references) for metric in metrics]


def score_model(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[Question],
    metrics: Sequence[str],
    *,
    progress: Progress | None = None,
) -> list[GenerationScores]:
    """Generate an answer to each question and score them by each metric, in the order of `metrics`."""
    answers = generate_answers(model, tokenizer, questions, progress=progress)
    return score_texts(tokenizer, questions, answers, metrics)


def _ends(model: Model, tokenizer: PreTrainedTokenizerBase, questions: Sequence[Question]) -> list[int]:
    """The tokenizer's, the model's, and the special token that closes most references.

    A template often ends its turns with a special token that the model's own settings do not name.
    """
    stops = model.generation_config.eos_token_id
    closing, _ = Counter(question.reference[-1] for question in questions).most_common(1)[0]
    special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    known = {tokenizer.eos_token_id, *(stops if isinstance(stops, list) else [stops])}
    return sorted((known | ({closing} & (special | set(tokenizer.all_special_ids)))) - {None})


def _context_tokens(model: Model, tokenizer: PreTrainedTokenizerBase) -> int:
    """The most tokens of prompt and answer together, as a bundle's spec has it."""
    limit = int(tokenizer.model_max_length)  # of a tokenizer that knows none a number beyond any context
    positions = position_limit(model.config.get_text_config())
    return (limit if positions is None else min(limit, positions)) - first_tokens(model)


def _batches(questions: Sequence[Question], most: int, context: int) -> Iterator[tuple[list[int], int]]:
    """The questions in groups of like length, each with the room behind it in the context.

    What the context may cut short is asked alone: in a batch the longest prompt would cut all the others' answers.
    """
    order = sorted(range(len(questions)), key=lambda index: len(questions[index].prompt))
    free = [index for index in order if len(questions[index].prompt) + most <= context]
    for first in range(0, len(free), ANSWER_BATCH):
        yield free[first : first + ANSWER_BATCH], most
    for index in order[len(free) :]:
        yield [index], max(1, context - len(questions[index].prompt))


@contextmanager
def _greedy(model: Model, max_tokens: int, ends: Sequence[int]) -> Iterator[None]:
    """The model's own settings put aside: a penalty or an end of theirs would fill what is left open here."""
    own = model.generation_config
    model.generation_config = GenerationConfig(
        do_sample=False,
        max_new_tokens=max_tokens,
        eos_token_id=list(ends) or None,
        pad_token_id=min(ends, default=0),
    )
    try:
        yield
    finally:
        model.generation_config = own


def _left_padded(prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids and attention_mask, (rows, tokens) int64, padded on the left."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    return ids, mask
