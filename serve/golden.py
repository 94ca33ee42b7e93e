"""Replaying a bundle's golden answers: does this machine give what the machine that built it gave?"""

from __future__ import annotations

import numpy as np

from edgetune.serve.bundle import GoldenCase
from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.errors import BundleDamaged
from edgetune.serve.predictor import Predictor
from edgetune.serve.replay import Replay


def replay_golden(predictor: Predictor) -> Replay:
    """Answer the golden inputs of the predictor's graph and compare ids, logits and answers, as the head compares them.

    Raises:
        BundleDamaged: an input is encoded differently or a logit is off by more than the tolerance; all are listed.
    """
    golden = predictor.golden()
    if not golden.cases:
        raise BundleDamaged(
            f"The golden answers of {predictor.bundle.folder} are empty.", expected="at least one case to replay"
        )
    rows = predictor.encode([case.input for case in golden.cases])
    faults, largest = [], 0.0
    for case, row in zip(golden.cases, rows, strict=True):
        fault, difference = _replay_case(predictor, case, row, golden.tolerance)
        largest = max(largest, difference)
        if fault:
            faults.append(f"{case.text[:40]!r} {fault}")
    if faults:
        raise BundleDamaged(
            f"{len(faults)} of {len(golden.cases)} golden answers differ: " + "; ".join(faults) + ".",
            expected="the answers that were packed",
            action="do not use the bundle on this machine; build it here, or pack the fp32 scheme",
        )
    return Replay(len(golden.cases), largest, golden.tolerance)


def _replay_case(predictor: Predictor, case: GoldenCase, row: EncodedText, tolerance: float) -> tuple[str, float]:
    """What is wrong with one answer, empty where nothing is, and the largest difference of a logit."""
    if row.ids != case.input_ids or (case.type_ids and row.type_ids != case.type_ids):
        return "tokenizes differently", 0.0
    if misfit := predictor.head.misfit(case):
        return misfit, 0.0
    # One input a call: int8 scales are taken over the whole batch, so neighbours would change the logits.
    logits = predictor.logits([row])[0]
    difference = float(np.abs(logits - np.asarray(case.logits, dtype=np.float32)).max())
    if not difference <= tolerance:
        return f"is off by {difference:.4g} (allowed {tolerance:.4g})", difference
    return predictor.head.differs(case, logits, tolerance), difference
