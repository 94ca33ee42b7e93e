"""One changed bit anywhere in a bundle: it is refused, or answers as it always did. Nothing in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgetune.serve import load
from tests.serve.flips import COUNTS, flip_each, packed

from .conftest import GOLDEN

TEXTS = ["where is my parcel", "i still money card", "you charged me twice"]


@pytest.mark.parametrize("flips", COUNTS)
def test_a_flipped_bit_is_refused_or_harmless(tmp_path: Path, flips: int) -> None:
    folder = packed(GOLDEN, tmp_path / "bundle")

    def answers() -> object:
        with load(folder, threads=1) as predictor:
            scores = np.round(predictor.scores(TEXTS), 6).tolist()
            return predictor.labels, scores, predictor.bundle.manifest

    refused = flip_each(folder, flips, answers, seed=7)
    # Whatever the manifest lists is refused whole; of the manifest itself a blank or the digest's own name may change.
    per_file = flips // len(refused)
    assert all(count >= per_file for name, count in refused.items() if name != "manifest.json")
    assert refused["manifest.json"] >= per_file / 2
