"""Two language models judged on the same prompts: by what they think of the references, by scores, or by a judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.benchmarks.compare.address import Address, Client, is_address
from edgetune.benchmarks.compare.comparison import MOST_EXAMPLES, Compared, ComparisonRequest, Example
from edgetune.benchmarks.compare.judges import REWARD, WIN_RATE, mean_metric, preferences, rewards
from edgetune.benchmarks.compare.questions import BundleWriter, Question, Writer, open_writer, read_questions
from edgetune.benchmarks.compare.speed import timed
from edgetune.benchmarks.compare.verdict import Gain, gain_of
from edgetune.serve.errors import InputError
from edgetune.tune.metrics import PERPLEXITY, Metric, Statistics

if TYPE_CHECKING:
    from edgetune.tune.stepwise.conversation_recipe import ConversationRecipe
    from edgetune.tune.training.progress import Progress


def _bits(size: Any, nats: Any) -> Statistics:
    return np.stack([np.asarray(nats) / math.log(2), np.asarray(size, dtype=np.float64)], axis=1)


# Of two tokenizers a token is not the same, but a byte is.
BITS_PER_BYTE = Metric(
    "bits_per_byte", _bits, lambda sums: np.asarray(sums[..., 0] / sums[..., 1]), higher_is_better=False
)


@dataclass(frozen=True)
class Judging:
    """By what generated answers are judged, and how long they may be.

    Attributes:
        judge: a reward bundle's folder, or the address of a judge model; "" for none.
        max_tokens: of an answer.
    """

    judge: str = ""
    max_tokens: int = 128


def compare_writers(
    names: tuple[str, str], recipe: ConversationRecipe, request: ComparisonRequest, judging: Judging, progress: Progress
) -> Compared:
    """Judge two language models on the prompts that a recipe names.

    Without a metric and a judge, two bundles are held against each other by the perplexity of the references, of two
    tokenizers by bits a byte; with a metric or a judge by their own greedy answers.

    Raises:
        DataError, RecipeError: the prompts or the metric cannot be used.
        InputError: the sides cannot be compared so.
        EdgetuneError: a side or the judge does not answer.
    """
    questions, findings = read_questions(recipe, request.rows, request.seed)
    writers = open_writer(names[0], request.key), open_writer(names[1], request.key)
    try:
        if not request.metric and not judging.judge:
            gains, more = [_by_references(writers, questions, request, progress)], list[str]()
            answers: list[list[str]] = [[], []]
        else:
            answers = [
                _answers(writer, questions, judging, progress, side) for writer, side in zip(writers, "AB", strict=True)
            ]
            gains, more = _by_answers(questions, answers, request, judging)
        most = min(judging.max_tokens, 16)
        timings = timed(
            [lambda given: writers[0].write(given, most), lambda given: writers[1].write(given, most)],
            questions,
            request.calls,
        )
        alike = [one == other for one, other in zip(*answers, strict=True)]
        return Compared(
            *(names[0], names[1], _task_of(writers), len(questions), tuple(gains)),
            agreement=float(np.mean(alike)) if alike else None,
            a_bytes=writers[0].size_bytes,
            b_bytes=writers[1].size_bytes,
            speed=timings,
            findings=(*findings, *more),
            examples=_examples(questions, answers),
        )
    finally:
        for writer in writers:
            writer.close()


def _task_of(writers: Sequence[Writer]) -> str:
    """The task of a bundle among them, in words where there is none."""
    return next((writer.task for writer in writers if isinstance(writer, BundleWriter)), "generated text")


def _answers(
    writer: Writer, questions: Sequence[Question], judging: Judging, progress: Progress, side: str
) -> list[str]:
    answers = []
    for done, question in enumerate(questions, start=1):
        answers.append(writer.write(question, judging.max_tokens))
        progress.advance(done, len(questions), f"answers of {side}")
    return answers


def _by_references(
    writers: tuple[Writer, Writer], questions: Sequence[Question], request: ComparisonRequest, progress: Progress
) -> Gain:
    a, b = writers
    if not isinstance(a, BundleWriter) or not isinstance(b, BundleWriter):
        raise InputError(
            "An address does not tell what it thinks of an answer.",
            action="judge what both write: --metric exact_match, rouge_l, bleu or chrf, or --judge",
        )
    scored = []
    for done, question in enumerate(questions, start=1):
        scored.append((*a.nats(question), *b.nats(question), len(question.reference.encode())))
        progress.advance(done, len(questions), "references")
    nats_a, tokens, nats_b, _, size = (np.asarray(column) for column in zip(*scored, strict=True))
    same = a.tokenizer_digest == b.tokenizer_digest
    metric, expected = (PERPLEXITY, tokens) if same else (BITS_PER_BYTE, size)
    return gain_of(metric, expected, nats_a, nats_b, confidence=request.confidence, seed=request.seed)


def _by_answers(
    questions: Sequence[Question], answers: Sequence[Sequence[str]], request: ComparisonRequest, judging: Judging
) -> tuple[list[Gain], list[str]]:
    gains, findings, nothing = [], list[str](), np.zeros(len(questions))
    if judging.judge and is_address(judging.judge):
        client = Client(Address.of(judging.judge), request.key)
        judged = preferences(client, questions, answers[0], answers[1])
        client.close()
        findings += judged.findings
        gains.append(gain_of(WIN_RATE, nothing, judged.a, judged.b, confidence=request.confidence, seed=request.seed))
    elif judging.judge:
        a, b = (rewards(Path(judging.judge), questions, given) for given in answers)
        gains.append(gain_of(REWARD, nothing, a, b, confidence=request.confidence, seed=request.seed))
    if request.metric:
        from edgetune.tune.stepwise.metrics import score_answers

        references = [question.reference for question in questions]
        a, b = (score_answers(request.metric, given, references).rows for given in answers)
        metric = mean_metric(request.metric, is_share=request.metric == "exact_match")
        gains.insert(0, gain_of(metric, nothing, a, b, confidence=request.confidence, seed=request.seed))
        findings.append(f"{request.metric} is the mean of the answers' own scores.")
    return gains, findings


def _examples(questions: Sequence[Question], answers: Sequence[Sequence[str]]) -> tuple[Example, ...]:
    rows = zip(questions, *answers, strict=True) if answers[0] else ()
    differing = [Example(question.shown, question.reference, a, b) for question, a, b in rows if a != b]
    return tuple(differing[:MOST_EXAMPLES])
