"""Who judges generated answers: a reward bundle that scores each, or a judge model that prefers one of two.

A judge model is asked in both orders (Zheng et al., "Judging LLM-as-a-Judge", NeurIPS 2023): many prefer what stands
first. An answer wins where it is preferred in both; everything else is a tie, and how often the first was preferred
is told.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetune.benchmarks.compare.address import Client
from edgetune.benchmarks.compare.questions import Question
from edgetune.serve.errors import InputError
from edgetune.serve.loading import load
from edgetune.tune.metrics import Metric, Statistics

_VERDICT = re.compile(r"\b(A|B|TIE)\b")
_VERDICT_TOKENS = 16
_INSTRUCTION = (
    "Two answers to the same request follow. Say which is better: more helpful, more correct, and to the point; length "
    "alone is no merit. Reply with A, B or TIE, and with nothing else."
)


def _share(expected: NDArray[np.float64], scores: NDArray[np.float64]) -> Statistics:
    return np.stack([np.asarray(scores, dtype=np.float64), np.ones(len(scores))], axis=1)


def mean_metric(name: str, *, is_share: bool = False) -> Metric:
    """The mean of scores that rows have already; where those are 0 or 1, as a share."""
    return Metric(name, _share, lambda sums: np.asarray(sums[..., 0] / sums[..., 1]), is_share=is_share)


REWARD, WIN_RATE = mean_metric("reward"), mean_metric("win_rate", is_share=True)


def rewards(folder: Path, questions: Sequence[Question], answers: Sequence[str]) -> NDArray[np.float64]:
    """What a reward bundle gives each answer: (answers,) float64.

    A bundle on pairs reads prompt and answer; one on single texts both with an empty line between them.

    Raises:
        InputError: the bundle answers with no number.
    """
    with load(folder) as predictor:
        if predictor.head.spec.kind != "number":
            raise InputError(
                f"The judge {folder} answers with a {predictor.head.spec.kind}.",
                expected="a bundle that gives a number",
            )
        pairs = [(question.shown, answer) for question, answer in zip(questions, answers, strict=True)]
        inputs = pairs if len(predictor.codec.parts) == 2 else [f"{prompt}\n\n{answer}" for prompt, answer in pairs]
        return np.asarray([float(each.value) for each in predictor.predict(inputs, batch_size=1)])


@dataclass(frozen=True)
class Preferences:
    """What a judge model preferred.

    Attributes:
        a, b: whether each side won, 1.0 or 0.0, (rows,) float64; both 0 at a tie.
        first_share: how often the answer that stood first was preferred, of all preferences; None without any.
        changed: rows on which the order changed the preference.
        unread: replies that named neither.
    """

    a: NDArray[np.float64]
    b: NDArray[np.float64]
    first_share: float | None
    changed: int
    unread: int

    @property
    def findings(self) -> list[str]:
        """Sentences on the judge."""
        first = "" if self.first_share is None else f", the answer shown first in {100 * self.first_share:.0f}%"
        ties = int(len(self.a) - self.a.sum() - self.b.sum())
        told = (
            f"The judge preferred A {int(self.a.sum()):,} times and B {int(self.b.sum()):,} times, {ties:,} ties{first}"
        )
        unread = f"; {self.unread:,} replies named neither" if self.unread else ""
        return [f"{told}; on {self.changed:,} rows the order changed its preference{unread}."]


def preferences(client: Client, questions: Sequence[Question], a: Sequence[str], b: Sequence[str]) -> Preferences:
    """Ask a judge model for its preference on each row, in both orders.

    Raises:
        EdgetuneError: it does not answer.
    """
    wins, firsts, changed, unread = np.zeros((2, len(a))), [], 0, 0
    for row, question in enumerate(questions):
        picked = []
        for swapped in (False, True):
            shown = (b[row], a[row]) if swapped else (a[row], b[row])
            verdict = _asked(client, question, shown)
            unread += verdict is None
            if verdict in (0, 1):
                firsts.append(verdict == 0)
            picked.append(None if verdict not in (0, 1) else verdict ^ swapped)
        changed += picked[0] != picked[1]
        if picked[0] == picked[1] and picked[0] is not None:
            wins[picked[0], row] = 1.0
    return Preferences(wins[0], wins[1], float(np.mean(firsts)) if firsts else None, changed, unread)


def _asked(client: Client, question: Question, shown: tuple[str, str]) -> int | None:
    """Which of the shown answers is preferred: 0, 1, or 2 for a tie; None where the reply names neither."""
    content = f"Request:\n{question.shown}\n\nAnswer A:\n{shown[0]}\n\nAnswer B:\n{shown[1]}"
    messages = [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": content}]
    found = _VERDICT.search(client.chat(messages, max_tokens=_VERDICT_TOKENS).upper())
    return None if found is None else ("A", "B", "TIE").index(found[1])
