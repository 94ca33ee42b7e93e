"""The small model of a cascade: which inputs it answers itself, and with what.

It answers where the margin of its best probability over the second reaches a threshold, unless most of the input is
unknown to it, and the bundle's graph answers the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgetune.serve.engines import open_engine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetune.serve.bundle import Bundle
    from edgetune.serve.codecs.text import EncodedText


class Outputs(msgspec.Struct, frozen=True):
    """Outputs (rows, width) float32, and the scheme that gave each row; None where one model gives all.

    Of a head on each token they are (texts, tokens, 2 + width), as `token_outputs` has them, and `texts` those whose
    tokens they are.
    """

    logits: NDArray[np.float32]
    answered_by: list[str] | None = None
    texts: list[str] | None = None


class FirstAnswers(msgspec.Struct, frozen=True):
    """What the small model gives: outputs (rows, width) float32, and the places of rows that are not its to answer."""

    logits: NDArray[np.float32]
    left: list[int]


class SmallModel:
    """The model that answers first.

    Attributes:
        scheme: its name in answers.
        engine: what gives its outputs.
        threshold: of the margin.
    """

    def __init__(self, bundle: Bundle, width: int) -> None:
        """Open it.

        Raises:
            BundleFormatError, BundleDamaged: as `open_engine` says.
        """
        spec = bundle.manifest.cascade
        assert spec is not None
        self.scheme, self.threshold, self.golden = spec.scheme, spec.threshold, spec.golden
        self._least_known, self._special_tokens = spec.least_known, spec.special_tokens
        self.engine = open_engine(spec.engine, bundle.folder, width)

    def answer(self, rows: Sequence[EncodedText]) -> FirstAnswers:
        """Its outputs for all rows, and which of them are not its to answer, as `CascadeSpec` says."""
        logits = self.engine.logits(rows)
        if len(rows) == 1:
            is_sure = [margin(logits[0]) >= self.threshold]
        else:
            is_sure = (margins(logits) >= self.threshold).tolist()  # not a number is no margin
        left = [place for place, row in enumerate(rows) if not (is_sure[place] and self._knows(row))]
        return FirstAnswers(logits, left)

    def _knows(self, row: EncodedText) -> bool:
        least = self._least_known * (row.size - self._special_tokens)
        return least <= 0 or self.engine.known_tokens(row) >= least


def margins(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Best minus second probability of each row, by a softmax: (rows, classes) float32 to (rows,) float32."""
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    total = odds.sum(axis=1)
    odds[np.arange(len(odds)), logits.argmax(axis=1)] = 0
    return np.asarray((1 - odds.max(axis=1)) / total)


def margin(row: NDArray[np.float32]) -> np.float32:
    """As `margins`, of one row (classes,) in a fifth of the time, which is that of a whole answer otherwise."""
    best = row.argmax()
    odds = np.exp(row - row[best])
    total = np.add.reduce(odds)
    odds[best] = 0
    margin: np.float32 = (1 - np.maximum.reduce(odds)) / total
    return margin
