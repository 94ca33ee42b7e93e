"""What was learnt as the tables of a bundle, rows in int8."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.static_student.features import Features
from edgetune.serve.engines.tables import StaticTables
from edgetune.tune.tasks.objective import Head

FloatArray = NDArray[np.float32]


def as_tables(features: Features, rows: FloatArray, head: Head) -> StaticTables:
    """The tables of rows (features, width) float32, row 0 zero, under a head in the user's units."""
    values, scales = quantize_rows(rows)
    return StaticTables(
        values,
        scales,
        features.token_rows,
        features.pair_keys,
        features.pair_rows,
        head=np.ascontiguousarray(head.weight.T, dtype=np.float32),
        bias=head.bias.astype(np.float32),
    )


def quantize_rows(rows: FloatArray) -> tuple[NDArray[np.int8], FloatArray]:
    """Rows (n, width) float32 as int8 with a scale each (n,) float32, symmetric: off by half a scale at most."""
    scales = (np.abs(rows).max(axis=1, initial=0) / 127).astype(np.float32)
    divisors = np.where(scales > 0, scales, 1)[:, None]
    return np.rint(rows / divisors).astype(np.int8), scales
