"""Words of texts as features of a linear model: what a tagger sees that no pretrained model stands behind.

The word, its ends and its shape, and the words around it, as taggers had them before neural ones (Ratinov and Roth,
Design Challenges and Misconceptions in Named Entity Recognition, CoNLL 2009). Words are those of the codec `words`.
Must not import torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs.tokens import EncodedTokens, joined_words
from edgetune.serve.token_outputs import assemble

if TYPE_CHECKING:
    from edgetune.tune.data.dataset import Part
    from edgetune.tune.data.rows import Input
    from edgetune.tune.tasks.objective import FloatArray, TokenObjective

HASHED = 2**18
# A text is read up to here, as a base reads it up to some hundred tokens.
MOST_CHARACTERS = 20_000
_EDGE = ("", "")


@dataclass(frozen=True)
class WordFeatures:
    """Features of each word of a text, hashed."""

    @property
    def described(self) -> str:
        """What is learnt from, in words."""
        return "words, their ends and shapes, and their neighbours"

    def transform(self, inputs: Sequence[Input]) -> Any:
        """(words of all inputs, 2 to the 18) float32, a scipy CSR matrix."""
        from sklearn.feature_extraction import FeatureHasher

        hasher = FeatureHasher(HASHED, input_type="string", dtype=np.float32, alternate_sign=False)
        return hasher.transform(row for text in inputs for row in _rows(words_of_text(str(text))))

    def tags(self, objective: TokenObjective, part: Part) -> NDArray[np.int64]:
        """The tag of each word of all texts: (words,) int64."""
        texts = [words_of_text(str(text)) for text in part.texts]
        tags = [objective.tags(text, target)[0] for text, target in zip(texts, part.targets, strict=True)]
        return np.asarray([tag for row in tags for tag in row], dtype=np.int64)

    def outputs(self, inputs: Sequence[Input], logits: FloatArray) -> FloatArray:
        """Logits of all words (words, width) as outputs of texts, (inputs, words, 2 + width) float32."""
        texts = [words_of_text(str(text)) for text in inputs]
        ends = np.cumsum([len(text.places) for text in texts])[:-1]
        return assemble(texts, np.split(logits, ends), logits.shape[1])


def words_of_text(text: str) -> EncodedTokens:
    """The words of a text, each a token."""
    borders = [(place, place + 1) for place, sign in enumerate(text[:MOST_CHARACTERS]) if not sign.isspace()]
    places, words = joined_words(text, range(len(borders)), borders)
    places = list(range(len(words)))
    return EncodedTokens(places, [0] * len(words), False, text, places, words)


def _rows(text: EncodedTokens) -> Iterator[list[str]]:
    words = [text.text[start:end] for start, end in text.borders]
    seen = [_EDGE, _EDGE, *((word.lower(), _shape(word)) for word in words), _EDGE, _EDGE]
    for place, word in enumerate(words):
        around = seen[place : place + 5]
        row = [f"{step}={lowered}" for step, (lowered, _) in enumerate(around)]
        row += [f"{step}:{shape}" for step, (_, shape) in enumerate(around[1:4])]
        row += [f"{around[step][0]}|{around[step + 1][0]}|{step}" for step in (1, 2)]
        row += [f"^{word[:length].lower()}" for length in (2, 3)] + [f"{word[-length:].lower()}$" for length in (2, 3)]
        yield [*row, "1"]


def _shape(word: str) -> str:
    """Runs of capitals, small letters, digits and other signs, each as one letter: Mc-Donald7 is XxsXxd."""
    kinds = "".join("X" if c.isupper() else "x" if c.isalpha() else "d" if c.isdigit() else "s" for c in word)
    return re.sub(r"(.)\1+", r"\1", kinds)
