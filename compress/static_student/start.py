"""Where the student starts: each token's own vector by the tuned model, as model2vec has it (Tulkens, van Dongen 2024).

A token is read alone between the special tokens, as a text of one token is. What the head sees of it is centred and
turned onto its principal axes, so that a narrow student keeps the directions in which tokens differ most.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.static_student.recombination import EncodedRow, text_bounds

FloatArray = NDArray[np.float32]
# Root mean square of a row's length at the start: rows of half or double this learn as well.
LENGTH = 1.2


@dataclass(frozen=True)
class Frame:
    """What the tokenizer puts around a text: special tokens before and behind, by the name of each array."""

    before: EncodedRow
    behind: EncodedRow

    @classmethod
    def of(cls, rows: Sequence[EncodedRow], special: Collection[int]) -> Frame:
        """The frame of the first row that has a token of its own; none where there is no such row."""
        for row in rows:
            if bounds := text_bounds(row["input_ids"], special):
                return cls(
                    {name: values[: bounds[0]] for name, values in row.items()},
                    {name: values[bounds[1] :] for name, values in row.items()},
                )
        nothing: EncodedRow = {name: [] for name in rows[0]}
        return cls(nothing, nothing)

    def around(self, tokens: NDArray[np.int64]) -> list[EncodedRow]:
        """Each token (tokens,) int64 as a text of its own."""
        single = {"attention_mask": 1, "token_type_ids": 0}
        return [
            {name: [*self.before[name], single.get(name, token), *self.behind[name]] for name in self.before}
            for token in tokens.tolist()
        ]


def principal_rows(vectors: FloatArray, width: int) -> FloatArray:
    """Vectors (tokens, features) on their first `width` principal axes, all scaled alike: (tokens, width) float32."""
    centred = vectors.astype(np.float64) - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centred.T @ centred)  # ascending: the last axis is that of the widest spread
    rows = np.zeros((len(vectors), width), dtype=np.float32)
    used = min(width, vectors.shape[1])
    rows[:, :used] = centred @ axes[:, ::-1][:, :used]
    spread = float(np.sqrt(np.square(rows).sum(axis=1).mean()))
    return rows * np.float32(LENGTH / spread) if spread else rows
