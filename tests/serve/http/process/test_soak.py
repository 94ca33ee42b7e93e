"""An hour of twice the load that the server can answer: answers or honest refusals only, and memory that stays flat."""

from __future__ import annotations

import os
from pathlib import Path
from statistics import median

import pytest

from benchmarks.lab.load_sides import ours, started
from benchmarks.lab.serve_load import SOAK_CONNECTIONS, Bench
from edgetune.serve import load

from .conftest import GOLDEN

SECONDS = float(os.environ.get("EDGETUNE_SOAK_SECONDS", "3600"))
WORDS = "where is my parcel card login again please password refund was not today yesterday".split()


@pytest.mark.soak
def test_an_hour_at_twice_the_capacity(tmp_path: Path):
    bundle = Path(os.environ.get("EDGETUNE_TEST_BUNDLE", GOLDEN)).resolve()
    texts = [
        " ".join(WORDS[place % len(WORDS)] for place in range(first, first + 3 + first % 9)) for first in range(99)
    ]
    predictor = load(bundle, threads=1)
    bench = Bench(texts, [predictor.predict_one(text).label for text in texts], 5.0, tmp_path)
    side = ours("soak", bundle)
    with started(side, tmp_path / "log") as running:
        capacity = bench.measured(side, running, 32, None, bench.seconds).answered_per_second
        running.resident.clear()
        found = bench.measured(side, running, SOAK_CONNECTIONS, 2 * capacity, SECONDS)
        memory = running.resident

    assert found.faults == {}
    assert found.answered_per_second > capacity / 2
    assert found.p99_ms is not None
    assert found.p99_ms < 5_000
    assert found.agreement is not None
    assert found.agreement > 0.95  # int8 scales are taken over the batch, so neighbours may turn a close answer
    quarter = len(memory) // 4
    assert quarter > 5
    # The first quarter has met the shapes that there are: what still grows afterwards would never stop.
    assert median(memory[-quarter:]) < 1.05 * median(memory[quarter : 2 * quarter])
