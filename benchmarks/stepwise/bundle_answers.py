"""What the bundle itself answers to held-out prompts: scored as base and tuned model were, and shown beside theirs.

The prompts are those of the tune stage, token by token, and so are the most tokens of an answer. The bundle answers by
its own runtime; base and tuned model are opened for the few answers that are shown, since scores alone are kept.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.report import SampleAnswers
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.tune.data.slices import frozen_rows
from edgetune.tune.stepwise.answers import (
    ANSWER_BATCH,
    Question,
    answer_texts,
    answer_tokens,
    find_questions,
    generate_answers,
    score_texts,
)
from edgetune.tune.training.progress import Progress

SAMPLES = 4
SAMPLE_TOKENS = 192
SAMPLE_CHARACTERS = 600
_CUT = "…"


@dataclass(frozen=True)
class Interview:
    """Who is asked what.

    Attributes:
        rows: encoded rows that base and tuned model were measured on, in that order.
        metrics: that their answers were scored by; none asks for no scores.
        scored_rows: how many questions they answered for the scores.
        seed: that drew these.
        tokenizer: the one that encoded the rows.
        models: opens the base and the tuned model in PyTorch, by name.
    """

    rows: Sequence[dict[str, list[int]]]
    metrics: tuple[str, ...]
    scored_rows: int
    seed: int
    tokenizer: Any
    models: Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class BundleAnswers:
    """The bundle's scores by metric on `answers` answers of at most `answer_tokens` tokens, and a few of them shown.

    `remark` says what was not done, and why; or what a reader of the samples must know.
    """

    metrics: dict[str, float]
    answers: int
    answer_tokens: int
    samples: tuple[SampleAnswers, ...]
    remark: str


def answer_held_out(interview: Interview, draft: Path, threads: int | None, progress: Progress) -> BundleAnswers:
    """Let the draft of a bundle answer.

    Args:
        interview: the rows, and what they are scored by.
        draft: a bundle's folder.
        threads: of a run; None takes the cores that this process may use.
        progress: told the scores.

    Raises:
        RecipeError, MissingDependency: a metric cannot be computed.
        EdgetuneError: the graph gives logits that are no numbers.
    """
    questions = find_questions(interview.rows)
    if not questions:
        return BundleAnswers({}, 0, 0, (), "No answers were generated: the rows are plain texts, which ask nothing.")
    with Generator.open(draft, threads=threads) as generator:
        if not interview.metrics:
            return _unscored(interview, generator, _spread(questions), progress)
        return _scored(interview, generator, frozen_rows(questions, interview.scored_rows, interview.seed), progress)


def _unscored(
    interview: Interview, generator: Generator, shown: Sequence[Question], progress: Progress
) -> BundleAnswers:
    most = min(answer_tokens(shown), SAMPLE_TOKENS)
    ids = _answer_ids(generator, shown, most, progress)
    remark = f"Generated answers were not scored, since tune.metrics names no metric. {_remark(most)}"
    ends = generator.decoder.spec.eos_ids
    return BundleAnswers({}, 0, 0, _samples(interview, shown, ids, most, ends, progress), remark)


def _scored(
    interview: Interview, generator: Generator, questions: Sequence[Question], progress: Progress
) -> BundleAnswers:
    most = answer_tokens(questions)
    ids = _answer_ids(generator, questions, most, progress)
    texts = answer_texts(interview.tokenizer, ids)
    scores = score_texts(interview.tokenizer, questions, texts, interview.metrics)
    for score in scores:
        progress.say(f"{score.metric}: bundle {score.value:.4f} on {len(questions):,} answers")
    shown, short = _spread(questions), min(most, SAMPLE_TOKENS)
    # Greedy: an answer of fewer tokens is the beginning of a longer one.
    of_shown = [ids[questions.index(question)][:short] for question in shown]
    return BundleAnswers(
        metrics={score.metric: score.value for score in scores},
        answers=len(questions),
        answer_tokens=most,
        samples=_samples(interview, shown, of_shown, short, generator.decoder.spec.eos_ids, progress),
        remark=_remark(short),
    )


def _remark(most: int) -> str:
    return f"The sample answers are greedy and end after {most} tokens at the latest."


def _spread(questions: Sequence[Question]) -> list[Question]:
    """A few questions from all over the rows, no prompt twice."""
    unlike = list({question.prompt: question for question in reversed(questions)}.values())[::-1]
    last, count = len(unlike) - 1, min(SAMPLES, len(unlike))
    return [unlike[last * number // max(1, count - 1)] for number in range(count)]


def _answer_ids(generator: Generator, questions: Sequence[Question], most: int, progress: Progress) -> list[list[int]]:
    """The token ids of each answer, in order; batches are those of the tune stage, prompts of like length together."""
    order = sorted(range(len(questions)), key=lambda index: len(questions[index].prompt))
    answers: dict[int, list[int]] = {}
    for first in range(0, len(order), ANSWER_BATCH):
        indices = order[first : first + ANSWER_BATCH]
        prompts = [questions[index].prompt for index in indices]
        ids = generator.decoder.generate_ids(prompts, Sampling(max_tokens=most), batch_size=ANSWER_BATCH)
        answers.update(zip(indices, ids, strict=True))
        progress.advance(len(answers), len(order), "the bundle's answers")
    return [answers[index] for index in range(len(questions))]


def _samples(
    interview: Interview,
    shown: Sequence[Question],
    ids: Sequence[Sequence[int]],
    most: int,
    ends: Sequence[int],
    progress: Progress,
) -> tuple[SampleAnswers, ...]:
    """The questions that are shown, with the answers of all; `ids` are the bundle's, and `ends` what ends them."""
    tokenizer = interview.tokenizer
    prompts, references = (
        answer_texts(tokenizer, [getattr(question, part) for question in shown]) for part in ("prompt", "reference")
    )
    answers = {"bundle": answer_texts(tokenizer, ids)}
    for name, open_model in interview.models.items():
        answers[name] = generate_answers(open_model(), tokenizer, shown, max_tokens=most, ends=ends, progress=progress)
        gc.collect()  # a model's modules hold each other: its memory is wanted for the next one, and for the race
    return tuple(
        SampleAnswers(
            prompt=_end_of(prompts[place]),
            reference=_beginning_of(references[place]),
            base=_beginning_of(answers["base"][place]),
            tuned=_beginning_of(answers["tuned"][place]),
            bundle=_beginning_of(answers["bundle"][place]),
        )
        for place in range(len(shown))
    )


def _beginning_of(text: str) -> str:
    text = text.strip()
    return text if len(text) <= SAMPLE_CHARACTERS else text[: SAMPLE_CHARACTERS - 1].rstrip() + _CUT


def _end_of(text: str) -> str:
    """Of a prompt its end: what is asked stands there, behind the system's words and earlier turns."""
    text = text.strip()
    return text if len(text) <= SAMPLE_CHARACTERS else _CUT + text[1 - SAMPLE_CHARACTERS :].lstrip()
