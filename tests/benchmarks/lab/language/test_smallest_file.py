"""The page on the smallest file, from candidates by hand; nothing is tuned here."""

from __future__ import annotations

import msgspec
import pytest

from benchmarks.lab.language.smallest_file import MARKERS, page
from edgetune.serve.stepwise.report import LanguageCandidate

INT8 = LanguageCandidate(
    scheme="int8", size_bytes=160_000_000, dtypes={}, quantized=1.0, value=4.26, rise=0.002,
    rise_interval=[0.001, 0.003],
    kl=0.001, agreement=0.99, gate="pass", accepted=True, reason="", made_by="121 matrices in 8 bits, 100.0% of all",
)  # fmt: skip
INT4 = msgspec.structs.replace(INT8, scheme="int4", size_bytes=80_000_000, rise=0.087, made_by="121 matrices in 4 bits")
MIXED = msgspec.structs.replace(INT8, scheme="mixed", size_bytes=101_250_000, rise=0.017, rise_interval=[0.012, 0.023])
SPEEDS = {"int4": 130.4, "mixed": 91.6, "int8": 80.0}


@pytest.mark.parametrize(
    ("limit", "found"), [(0.02, "`mixed` with 101.2 MB"), (0.1, "`int4` with 80.0 MB"), (0, "none")]
)
def test_the_smallest_within_the_limit_is_told(limit: float, found: str) -> None:
    lines = page("small", [INT4, MIXED, INT8], limit, SPEEDS).splitlines()
    assert (lines[0], lines[-1]) == (MARKERS.start, MARKERS.end)
    assert lines[3].endswith(f"The smallest within {100 * limit:g}% of its perplexity is {found}.")


def test_every_rung_has_its_row() -> None:
    rows = [line for line in page("small", [INT4, MIXED, INT8], 0.02, SPEEDS).splitlines() if line.startswith("| ")][2:]
    assert rows[1] == "| mixed | 101.2 | +1.70% | +1.20% to +2.30% | 0.0010 | 99.0% | 92 | 121 matrices in 8 bits |"
    assert len(rows) == 3
