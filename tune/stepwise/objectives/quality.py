"""What an objective came to: preferences and rewards of base and tuned model on held-out rows, and how far it drifted.

Beside the perplexity, which every language model is measured by: that says how well the rows' answers are foretold, and
neither which answers are preferred nor what is answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgetune.serve.stepwise.report import ObjectiveQuality, ObjectiveStage
from edgetune.tune.data.slices import frozen_indices
from edgetune.tune.stepwise.answers import Question, find_questions, generate_ids
from edgetune.tune.stepwise.objectives.pairs import PairNats, accuracy
from edgetune.tune.stepwise.objectives.rewards import Rewards
from edgetune.tune.stepwise.traces import EncodedRow
from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edgetune.tune.models.types import Model


@dataclass(frozen=True)
class Asked:
    """Held-out prompts that are answered: as token ids, and in words for what scores the answers."""

    questions: tuple[Question, ...]
    words: tuple[str, ...]
    max_tokens: int

    @classmethod
    def of(cls, rows: Sequence[EncodedRow], words: Sequence[str], most: int, max_tokens: int, seed: int) -> Asked:
        """At most `most` prompts of the rows, drawn by seed; `words` are those of each row."""
        places = frozen_indices(len(rows), most, seed).tolist()
        asked = [(find_questions([rows[place]]), words[place]) for place in places]
        kept = [(found[0], word) for found, word in asked if found]
        return cls(tuple(question for question, _ in kept), tuple(word for _, word in kept), max_tokens)

    def answered(
        self, model: Model, tokenizer: PreTrainedTokenizerBase, progress: Progress | None = None
    ) -> list[list[int]]:
        """What a model answers greedily, as token ids."""
        return generate_ids(model, tokenizer, self.questions, max_tokens=self.max_tokens, progress=progress)


def stage_of(
    name: str,
    margins: NDArray[np.float64] | None,
    answers: Sequence[Sequence[int]],
    rewards: NDArray[np.float64] | None,
    kl: float | None,
) -> ObjectiveStage:
    """One stage's figures.

    Args:
        margins: of the pairs in nats, (pairs,); None where there are none.
        answers: token ids.
        rewards: of the answers, (answers,); None where nothing scores.
        kl: from the base, nats a token.
    """
    return ObjectiveStage(
        stage=name,
        preference_accuracy=None if margins is None else accuracy(margins),
        ci95=None if margins is None or not margins.any() else wilson(int((margins > 0).sum()), len(margins)),
        margin=None if margins is None else float(margins.mean()),
        reward=None if rewards is None else float(rewards.mean()),
        reward_ci95=None if rewards is None else _mean_interval(rewards),
        answer_tokens=float(np.mean([len(one) for one in answers])) if answers else None,
        kl=kl,
    )


@dataclass(frozen=True)
class ObjectiveMeasure:
    """Measures base and tuned model by what an objective is for.

    Attributes:
        base, tuned: what both think of the held-out pairs; None where there are none.
        rewards: what scores answers; None for an objective that has no reward.
    """

    objective: str
    asked: Asked
    base: PairNats | None
    tuned: PairNats | None
    rewards: Rewards | None

    def measure(self, base: Model, tuned: Model, tokenizer: Any, progress: Progress) -> ObjectiveQuality:
        """Both models' answers, their rewards and the divergence, beside the margins that are known."""
        before, after = (self.asked.answered(model, tokenizer, progress) for model in (base, tuned))
        divergence = mean_divergence(tuned, base, self.asked.questions, after)
        own = None if self.base is None or self.tuned is None else self.tuned.margins(self.base)
        none = None if own is None else np.zeros(len(own))
        return ObjectiveQuality(
            objective=self.objective,
            pairs=0 if own is None else len(own),
            answers=len(self.asked.questions),
            answer_tokens=self.asked.max_tokens,
            stages=[
                stage_of("base", none, before, self._scored(before, tokenizer), None),
                stage_of("tuned", own, after, self._scored(after, tokenizer), divergence),
            ],
        )

    def _scored(self, answers: Sequence[Sequence[int]], tokenizer: Any) -> NDArray[np.float64] | None:
        if self.rewards is None or not answers:
            return None
        texts = tokenizer.batch_decode([list(one) for one in answers], skip_special_tokens=True)
        return self.rewards.score(self.asked.words, texts)


def mean_divergence(
    model: Model, reference: Model, questions: Sequence[Question], answers: Sequence[Sequence[int]]
) -> float | None:
    """KL(model || reference) in nats a token, over the whole vocabulary at each token of the model's own answers.

    None where nothing was answered.
    """
    total, tokens = 0.0, 0
    with torch.inference_mode():
        for question, answer in zip(questions, answers, strict=True):
            ids = torch.tensor([[*question.prompt, *answer]])
            start = len(question.prompt) - 1
            ours, theirs = (
                one(input_ids=ids.to(one.device), use_cache=False).logits[0, start:-1].float().log_softmax(dim=-1).cpu()
                for one in (model, reference)
            )
            total += float((ours.exp() * (ours - theirs)).sum())
            tokens += len(answer)
    return total / tokens if tokens else None


def wilson(right: int, rows: int) -> list[float]:
    """Wilson's 95% interval of a share."""
    from scipy import stats

    interval = stats.binomtest(right, rows).proportion_ci(0.95, method="wilson")
    return [float(interval.low), float(interval.high)]


def _mean_interval(values: NDArray[np.float64]) -> list[float]:
    """95% interval of a mean by Student's t; of fewer than two values the value itself."""
    from scipy import stats

    mean = float(values.mean())
    if len(values) < 2:
        return [mean, mean]
    half = float(stats.t.ppf(0.975, len(values) - 1)) * float(values.std(ddof=1)) / len(values) ** 0.5
    return [mean - half, mean + half]


def gained_by(quality: ObjectiveQuality) -> str:
    """What an objective gained on held-out rows, in a sentence or two."""
    base, tuned = quality.stages[0], quality.stages[1]
    said = []
    if tuned.preference_accuracy is not None and tuned.ci95 is not None:
        low, high = (100 * bound for bound in tuned.ci95)
        said.append(
            f"On {quality.pairs:,} pairs it prefers the chosen answer more than the base does in "
            f"{100 * tuned.preference_accuracy:.1f}% (95% interval {low:.1f} to {high:.1f})"
            + ("; more pairs are needed to tell that from chance." if tuned.ci95[0] <= 0.5 else ".")
        )
    if tuned.reward is not None and base.reward is not None:
        said.append(
            f"The mean reward of {quality.answers:,} answers went from {base.reward:.4g} to {tuned.reward:.4g}."
        )
    return " ".join(said)
