"""What scores answers: reward bundles, and functions of the user's, each with its weight.

A bundle answers by the runtime that it is served with. Must not import torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import MANIFEST_NAME
from edgetune.serve.errors import RecipeError
from edgetune.tune.stepwise.chats import Turn
from edgetune.tune.stepwise.metrics import checked_score, load_function

_TAKES = "a prompt and an answer"


def asked_words(turns: Sequence[Turn]) -> str:
    """A prompt as reward bundles and functions read it: the question's own words, or all turns with their roles."""
    if len(turns) == 1 and turns[0].role == "user":
        return turns[0].content
    return "\n".join(f"{turn.role}: {turn.content}" for turn in turns)


@dataclass(frozen=True)
class Rewards:
    """Everything that scores, by name: the reward is the sum of the scores times their weights."""

    scorers: Mapping[str, Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]]
    weights: Mapping[str, float]

    @classmethod
    def open(cls, named: Mapping[str, float]) -> Rewards:
        """Open what a recipe names: folders of bundles, and functions as module:function or file.py:function.

        Raises:
            RecipeError: a name is neither, or a bundle gives no number for a prompt and its answer.
            BundleError: a bundle cannot be opened.
        """
        return cls({name: _scorer(name) for name in named}, dict(named))

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
        """The reward of each answer to its prompt, (answers,) float64."""
        total = np.zeros(len(answers))
        for name, scorer in self.scorers.items():
            total += self.weights[name] * scorer(prompts, answers)
        return total


def rewards_state(named: Iterable[str]) -> dict[str, str]:
    """SHA-256 of what scores, by name: of a bundle its manifest, of a function its file; "" for a module's."""
    files = {name: Path(name) / MANIFEST_NAME for name in named if (Path(name) / MANIFEST_NAME).is_file()}
    functions = {name: Path(name.rpartition(":")[0]) for name in named if name not in files}
    return {
        name: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for name, path in {**files, **functions}.items()
    }


def _scorer(name: str) -> Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]:
    if (Path(name) / MANIFEST_NAME).is_file():
        return _bundle_scorer(name)
    if ":" not in name:
        raise RecipeError(
            f"tune.reward names {name!r}, which is no bundle and no function.",
            expected="the folder of a reward bundle, or a function as module:function or file.py:function",
            action="edgetune build --objective reward makes such a bundle",
        )
    function = load_function(name, noun="reward", takes=_TAKES)

    def score(prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
        return np.array([checked_score(name, function(*pair)) for pair in zip(prompts, answers, strict=True)])

    return score


def _bundle_scorer(name: str) -> Callable[[Sequence[str], Sequence[str]], NDArray[np.float64]]:
    from edgetune.serve import load

    bundle = load(name)
    heads = bundle.bundle.manifest.answer_heads
    if [head.kind for head in heads] != ["number"] or bundle.bundle.manifest.codec != "text-pair":
        raise RecipeError(
            f"The bundle {name} gives {', '.join(head.kind for head in heads)} for its inputs, and a reward is a "
            "number for a prompt and its answer.",
            expected="a reward bundle",
            action="make one of pairs of answers: edgetune build --objective reward",
        )

    def score(prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
        return np.array([one.value for one in bundle.predict(list(zip(prompts, answers, strict=True)))])

    return score
