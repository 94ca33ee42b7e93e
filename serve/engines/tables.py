"""The tables of a static model: all that its answers need beside a tokenizer. numpy alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class StaticTables:
    """Rows of tokens and of neighbouring pairs, summed, and a linear head.

    Features of an input are, of its token ids as the codec `text` gives them, special tokens included, every token with
    a row and every adjacent pair with a row; the special tokens thereby mark start and end in pairs. The vector is
    `sum of their rows / sqrt(count)`, `count` the number of features, 1 where there is none; the outputs are
    `vector @ head + bias`.

    Attributes:
        rows: (n, width) int8; row r stands for `rows[r] * scales[r]`, and row 0 is zero.
        scales: (n,) float32.
        token_rows: (vocabulary,) int32, the row of each token id; 0 where it says nothing: special, or never seen.
        pair_keys: (m,) int64, ascending: first id * 2**32 + second id.
        pair_rows: (m,) int32, the row of each key, never 0.
        head: (width, outputs) float32.
        bias: (outputs,) float32.
    """

    rows: NDArray[np.int8]
    scales: NDArray[np.float32]
    token_rows: NDArray[np.int32]
    pair_keys: NDArray[np.int64]
    pair_rows: NDArray[np.int32]
    head: NDArray[np.float32]
    bias: NDArray[np.float32]
