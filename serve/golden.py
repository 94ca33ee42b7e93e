"""Replaying a bundle's golden answers: does this machine give what the machine that built it gave?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.errors import BundleDamaged
from edgetune.serve.golden_cases import Golden, GoldenCase
from edgetune.serve.heads import PER_TOKEN, Head
from edgetune.serve.predictor import Predictor
from edgetune.serve.replay import Replay
from edgetune.serve.targets import target_here
from edgetune.serve.token_outputs import logits_of

if TYPE_CHECKING:
    from numpy.typing import NDArray


def replay_all(predictor: Predictor) -> dict[str, Replay]:
    """The golden answers of the graph that answers, by its scheme, and of a cascade those of its small model before.

    Raises:
        BundleDamaged: as `replay_golden`.
    """
    small, replays = predictor.small, {}
    if small is not None:
        golden = predictor.bundle.golden(small.golden)
        replays[small.scheme] = _replay(predictor, golden, lambda row: small.engine.logits([row])[0])
    return {**replays, predictor.variant: replay_golden(predictor)}


def replay_golden(predictor: Predictor) -> Replay:
    """Answer the golden inputs of the predictor's graph and compare ids, logits and answers, as the head compares them.

    Raises:
        BundleDamaged: an input is encoded differently or a logit is off by more than the tolerance; all are listed.
    """
    # One input a run: int8 scales are taken over the whole batch, so neighbours would change the logits.
    golden = _for_this_processor(predictor.golden(), predictor)
    if predictor.head.spec.kind in PER_TOKEN:
        return _replay(predictor, golden, lambda row: predictor.logits([row], batch_size=1)[0])
    return _replay(predictor, golden, lambda row: predictor.run(predictor.feed([row]))[0])


def _for_this_processor(golden: Golden, predictor: Predictor) -> Golden:
    """The golden answers with the tolerance that was measured for processors of this class, where one was."""
    targets = predictor.bundle.manifest.targets
    here = target_here() if any(entry.tolerance is not None for entry in targets) else ""
    entry = next((one for one in targets if (one.name, one.scheme) == (here, predictor.variant)), None)
    if entry is None or entry.tolerance is None or entry.tolerance >= golden.tolerance:
        return golden
    return Golden(entry.tolerance, golden.cases)


def _replay(predictor: Predictor, golden: Golden, answer: Callable[[EncodedText], NDArray[np.float32]]) -> Replay:
    if not golden.cases:
        raise BundleDamaged(
            f"The golden answers of {predictor.bundle.folder} are empty.", expected="at least one case to replay"
        )
    rows = predictor.encode([case.input for case in golden.cases])
    faults, largest = [], 0.0
    for case, row in zip(golden.cases, rows, strict=True):
        fault, difference = _replay_case(predictor, case, row, golden, answer)
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


def _replay_case(
    predictor: Predictor,
    case: GoldenCase,
    row: EncodedText,
    golden: Golden,
    answer: Callable[[EncodedText], NDArray[np.float32]],
) -> tuple[str, float]:
    """What is wrong with one answer, empty where nothing is, and the largest difference of a logit."""
    if row.all_ids != case.input_ids or (case.type_ids and row.type_ids != case.type_ids):
        return "tokenizes differently", 0.0
    if misfit := predictor.head.misfit(case):
        return misfit, 0.0
    logits = answer(row)
    largest = 0.0
    for head, one, values, tolerance in _of_each(predictor.head, case, logits, golden):
        by = f" by the task {head.spec.name}" if golden.tolerances else ""
        given, packed = logits_of(values), np.asarray(one.logits, dtype=np.float32)
        if given.shape != packed.shape:
            return f"has {len(given)} logits instead of {len(packed)}{by}", 0.0
        difference = float(np.abs(given - packed).max(initial=0.0))
        # Of several tasks as a share of each one's tolerance, in that of all.
        largest = max(largest, difference if not golden.tolerances else difference / tolerance * golden.tolerance)
        if not difference <= tolerance:
            return f"is off by {difference:.4g} (allowed {tolerance:.4g}){by}", largest
        if fault := head.differs(one, values, tolerance):
            return f"{fault}{by}", largest
    return "", largest


def _of_each(
    head: Head, case: GoldenCase, logits: NDArray[np.float32], golden: Golden
) -> list[tuple[Head, GoldenCase, NDArray[np.float32], float]]:
    """The heads that answer one input, each with its golden answer, its logits and its tolerance."""
    from edgetune.serve.heads.tasks import TasksHead

    if not isinstance(head, TasksHead):
        return [(head, case, logits, golden.tolerance)]
    parts = head.split(logits[None])
    return [
        (one, head.case_of(case, task), parts[task][0], golden.tolerances.get(task, golden.tolerance))
        for task, one in head.heads.items()
    ]
