"""Pictures as a few numbers: what a linear model can see of them, as the floor that a tuned model has to beat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgetune.serve.codecs.picture_file import read_picture
from edgetune.serve.codecs.picture_spec import PictureSpec
from edgetune.tune.data.pictures import name_of, source_of
from edgetune.tune.data.rows import Input

SIDE = 16
# Of deep pictures the range of the levels that 16 bits have: what is learnt here needs no more than an order.
_ANY = PictureSpec(size=(SIDE, SIDE), depth_range=(0.0, 65_535.0))


@dataclass(frozen=True)
class PixelFeatures:
    """Thumbnails of `SIDE` x `SIDE` pixels in three colours, each of length one around its mean."""

    rows: int

    @property
    def described(self) -> str:
        """What is learnt from, in words."""
        return f"{SIDE} x {SIDE} pixels"

    def transform(self, inputs: Sequence[Input]) -> Any:
        """(inputs, SIDE * SIDE * 3) float32 as a scipy CSR matrix."""
        from scipy.sparse import csr_matrix

        rows = np.empty((len(inputs), SIDE * SIDE * 3), np.float32)
        for place, value in enumerate(inputs):
            picture = read_picture(source_of(str(value)), name_of(str(value)), _ANY)
            levels = np.asarray(picture.resize((SIDE, SIDE)), np.float32).ravel()
            centred = levels - levels.mean()
            rows[place] = centred / max(float(np.linalg.norm(centred)), 1e-6)
        return csr_matrix(rows)
