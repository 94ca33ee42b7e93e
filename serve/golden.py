"""Replaying a bundle's golden answers: does this machine give what the machine that built it gave?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgetune.serve.bundle import GoldenCase
from edgetune.serve.errors import BundleDamaged
from edgetune.serve.predictor import Predictor


@dataclass(frozen=True)
class Replay:
    """How the golden answers came out here: cases replayed, the largest logit difference, what was allowed."""

    cases: int
    max_abs_diff: float
    tolerance: float


def replay_golden(predictor: Predictor) -> Replay:
    """Answer the golden texts of the predictor's graph and compare ids, logits and labels.

    A label may differ only where the packed logits of both labels lie within the tolerance of each other.

    Raises:
        BundleDamaged: a text tokenizes differently or a logit is off by more than the tolerance; all are listed.
    """
    golden = predictor.golden()
    if not golden.cases:
        raise BundleDamaged(
            f"The golden answers of {predictor.bundle.folder} are empty.", expected="at least one case to replay"
        )
    tokenized = predictor.tokenize([case.text for case in golden.cases])
    faults, largest = [], 0.0
    for case, text in zip(golden.cases, tokenized, strict=True):
        if text.ids != case.input_ids:
            faults.append(f"{case.text[:40]!r} tokenizes differently")
            continue
        if len(case.logits) != len(predictor.labels) or case.label not in predictor.labels:
            faults.append(f"{case.text[:40]!r} was packed for other labels")
            continue
        # One text a call: int8 scales are taken over the whole batch, so neighbours would change the logits.
        logits = predictor.logits([text])[0]
        difference = float(np.abs(logits - np.asarray(case.logits, dtype=np.float32)).max())
        largest = max(largest, difference)
        if not difference <= golden.tolerance:
            faults.append(f"{case.text[:40]!r} is off by {difference:.4g} (allowed {golden.tolerance:.4g})")
            continue
        answer = int(logits.argmax())
        if not _same_label(case, predictor.labels, answer, golden.tolerance):
            faults.append(f"{case.text[:40]!r} is answered {predictor.labels[answer]!r} instead of {case.label!r}")
    if faults:
        raise BundleDamaged(
            f"{len(faults)} of {len(golden.cases)} golden answers differ: " + "; ".join(faults) + ".",
            expected="the answers that were packed",
            action="do not use the bundle on this machine; build it here, or pack the fp32 scheme",
        )
    return Replay(len(golden.cases), largest, golden.tolerance)


def _same_label(case: GoldenCase, labels: Sequence[str], answer: int, tolerance: float) -> bool:
    """Whether the answer is the packed one, or one whose packed logit lies within the tolerance of it."""
    wanted = labels.index(case.label)
    return answer == wanted or abs(case.logits[answer] - case.logits[wanted]) <= tolerance
