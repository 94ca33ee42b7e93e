"""Scores of generated answers against their references: BLEU, chrF, ROUGE-L, exact match, or a function of the user's.

Every score lies between 0 and 1, one a row beside the whole: two models are compared by pairs of rows. The packages are
imported when a metric is asked for; a missing one is told with the command that brings it.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.dependencies import require
from edgetune.serve.errors import DataError, RecipeError

if TYPE_CHECKING:
    from types import ModuleType

Score = Callable[[str, str], float]

# Han, kana and hangul: scripts that are written without spaces, or counted by syllables.
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]")
_WORDS = re.compile(rf"{_UNSPACED.pattern}|[^\W\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff]+")


@dataclass(frozen=True)
class GenerationScores:
    """A metric on generated answers.

    Attributes:
        metric: its name.
        value: over all answers, 0 to 1 (a user's function may leave that range). BLEU and chrF count over the whole
            corpus, so their value is no mean of the rows.
        rows: each answer's own, (answers,) float64.
    """

    metric: str
    value: float
    rows: NDArray[np.float64]


def score_answers(metric: str, answers: Sequence[str], references: Sequence[str]) -> GenerationScores:
    """Score generated answers.

    Args:
        metric: `bleu`, `chrf`, `rouge_l`, `exact_match`, or `module:function` or `file.py:function`, called with an
            answer and its reference.

    Raises:
        DataError: there is not one reference for each answer.
        RecipeError: there is no such metric, or the function gives no number.
        MissingDependency: a metric's package is not installed.
    """
    if len(answers) != len(references) or not answers:
        raise DataError(f"{len(answers)} answers cannot be scored against {len(references)} references.")
    if metric in METRICS:
        return METRICS[metric](answers, references)
    function = load_function(metric)
    rows = np.array([checked_score(metric, function(*pair)) for pair in zip(answers, references, strict=True)])
    return GenerationScores(metric, float(rows.mean()), rows)


def bleu(answers: Sequence[str], references: Sequence[str]) -> GenerationScores:
    """BLEU (Papineni et al. 2002) by sacrebleu, rows with their effective order; Chinese text is split by character."""
    require("llm", "sacrebleu")
    from sacrebleu.metrics.bleu import BLEU

    splitter = "zh" if any(_UNSPACED.search(text) for text in references) else "13a"
    whole = BLEU(tokenize=splitter).corpus_score(list(answers), [list(references)]).score
    one = BLEU(tokenize=splitter, effective_order=True)
    return _hundredths("bleu", whole, [one.sentence_score(*pair).score for pair in _paired(answers, references)])


def chrf(answers: Sequence[str], references: Sequence[str]) -> GenerationScores:
    """chrF (Popović 2015): F-score of character n-grams up to 6, by sacrebleu."""
    require("llm", "sacrebleu")
    from sacrebleu.metrics.chrf import CHRF

    one = CHRF()
    whole = one.corpus_score(list(answers), [list(references)]).score
    return _hundredths("chrf", whole, [one.sentence_score(*pair).score for pair in _paired(answers, references)])


def rouge_l(answers: Sequence[str], references: Sequence[str]) -> GenerationScores:
    """ROUGE-L (Lin 2004): F-score of the longest common subsequence of words, by rouge-score.

    Its own tokenizer knows a to z and digits alone, and gives every Chinese answer 0: ours takes words of any script.
    """
    require("llm", "rouge_score")
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], tokenizer=_Words())
    rows = np.array(
        [
            scorer.score(reference, answer)["rougeL"].fmeasure
            for answer, reference in zip(answers, references, strict=True)
        ]
    )
    return GenerationScores("rouge_l", float(rows.mean()), rows)


def exact_match(answers: Sequence[str], references: Sequence[str]) -> GenerationScores:
    """Share of answers that are their reference, white space around them aside."""
    rows = np.array([float(a.strip() == b.strip()) for a, b in zip(answers, references, strict=True)])
    return GenerationScores("exact_match", float(rows.mean()), rows)


METRICS: dict[str, Callable[[Sequence[str], Sequence[str]], GenerationScores]] = {
    "bleu": bleu,
    "chrf": chrf,
    "rouge_l": rouge_l,
    "exact_match": exact_match,
}


def load_function(name: str, *, noun: str = "metric", takes: str = "an answer and its reference") -> Score:
    """The function of two texts that `module:function` or `file.py:function` names.

    Args:
        noun: what it is, for errors.
        takes: what it is called with.

    Raises:
        RecipeError: there is no such metric, module, file or function, or it takes no two arguments.
    """
    place, _, function_name = name.rpartition(":")
    if not place or not function_name.isidentifier():
        known = f"{', '.join(METRICS)}, or a function" if noun == "metric" else "a function"
        raise RecipeError(f"There is no {noun} {name!r}.", expected=f"{known} as module:function or file.py:function")
    module = _module_of_file(Path(place), noun) if place.endswith(".py") else _module(place, noun)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise RecipeError(f"{place} has no function {function_name!r}.", expected=f"a function of {takes}")
    try:
        inspect.signature(function).bind("", "")
    except TypeError as error:
        raise RecipeError(f"{name} cannot be called with {takes}: {error}.") from error
    return function


def _module(name: str, noun: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise RecipeError(
            f"The {noun}'s module {name!r} cannot be imported: {error}.",
            action="install it, or name the file: path/to/file.py:function",
        ) from error


def _module_of_file(path: Path, noun: str) -> ModuleType:
    if not path.is_file():
        raise RecipeError(f"The {noun}'s file {path} does not exist.", action="check its path")
    spec = importlib.util.spec_from_file_location(f"edgetune_{noun}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise RecipeError(f"The {noun}'s file {path} cannot be imported.", expected="a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def checked_score(metric: str, value: object) -> float:
    """The number that a function of the user's gave.

    Raises:
        RecipeError: it is none, or no finite one.
    """
    if not isinstance(value, int | float | np.integer | np.floating) or not math.isfinite(value):
        raise RecipeError(f"{metric} gave {value!r} for an answer.", expected="a finite number")
    return float(value)


def _paired(answers: Sequence[str], references: Sequence[str]) -> list[tuple[str, list[str]]]:
    return [(answer, [reference]) for answer, reference in zip(answers, references, strict=True)]


def _hundredths(metric: str, whole: float, rows: Sequence[float]) -> GenerationScores:
    return GenerationScores(metric, whole / 100, np.array(rows) / 100)


class _Words:
    """Lower-cased words of any script, each character of an unspaced one by itself, as rouge-score takes them."""

    def tokenize(self, text: str) -> list[str]:
        return _WORDS.findall(text.lower())
