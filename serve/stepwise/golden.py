"""Golden answers of a language model's bundle: does this machine give what the machine that built it gave?

The packed tokens are fed back one by one and every step is judged by itself, so that one close choice that falls
otherwise here does not spoil all that follow it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import GOLDEN_NAME, Bundle
from edgetune.serve.errors import BundleDamaged
from edgetune.serve.replay import Replay
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.sampling import Sampling

TOKENS = 16
TOP_LOGITS = 10

# Logits are told by the ten largest alone, so there is no spread to compare with.
Tolerance = Annotated[float, msgspec.Meta(ge=0, le=100)]


class GenerationCase(msgspec.Struct, frozen=True, omit_defaults=True):
    """A prompt with what the packed graph gave for it: `tokens` greedily, and before the first of them `top`, the ids
    and logits of the likeliest. `adapter` is the first cache that it starts from, None the bundle's only one."""

    prompt: str
    input_ids: list[int]
    tokens: list[int]
    top: list[tuple[int, float]]
    adapter: str | None = None


class GenerationGolden(msgspec.Struct, frozen=True):
    """Prompts to replay. `tolerance` is the largest allowed difference of a logit."""

    tolerance: Tolerance
    cases: list[GenerationCase]


def record(
    generator: Generator, prompts: Sequence[str], *, tolerance: float, tokens: int = TOKENS, top: int = TOP_LOGITS
) -> GenerationGolden:
    """Answer prompts as they are to be replayed.

    Args:
        generator: opened on the graph that is packed.
        prompts: plain texts.
        tolerance: the largest difference of a logit that another machine may show.
        tokens: of each answer, at most.
        top: how many of the first step's logits are kept.

    Raises:
        InputError: a prompt cannot be answered.
    """
    cases = []
    for prompt in prompts:
        ids = generator.encode(prompt)
        answer = generator.decoder.generate_ids([ids], Sampling(max_tokens=tokens))[0]
        logits = generator.decoder.prefill([ids])[0][0]
        best = np.argsort(-logits, kind="stable")[:top]
        cases.append(GenerationCase(prompt, ids, answer, [(int(place), float(logits[place])) for place in best]))
    return GenerationGolden(tolerance, cases)


def read_golden(bundle: Bundle) -> GenerationGolden:
    """The golden answers of a language model's bundle.

    Raises:
        BundleDamaged: they cannot be read.
    """
    return bundle.read(GOLDEN_NAME, GenerationGolden)


def replay(generator: Generator, golden: GenerationGolden) -> Replay:
    """Answer the golden prompts and compare ids, logits and tokens.

    A token may differ only where both lie so close that two logits off by the tolerance explain it.

    Raises:
        BundleDamaged: a prompt tokenizes differently, a logit is off, or another token is chosen; all are listed.
    """
    if not golden.cases:
        raise BundleDamaged("The golden answers are empty.", expected="at least one case to replay")
    faults, largest = [], 0.0
    for case in golden.cases:
        fault, difference = _replay_case(generator, case, golden.tolerance)
        largest = max(largest, difference)
        if fault:
            faults.append(f"{case.prompt[:40]!r} {fault}")
    if faults:
        raise BundleDamaged(
            f"{len(faults)} of {len(golden.cases)} golden answers differ: " + "; ".join(faults) + ".",
            expected="the answers that were packed",
            action="do not use the bundle on this machine; build it here, or pack the fp32 scheme",
        )
    return Replay(len(golden.cases), largest, golden.tolerance)


def _replay_case(generator: Generator, case: GenerationCase, tolerance: float) -> tuple[str, float]:
    """What is wrong with a case, or nothing, and the largest difference of its first logits."""
    decoder = generator.decoder
    if generator.codec.encode(case.prompt) != case.input_ids:
        return "tokenizes differently", 0.0
    if any(not 0 <= token < decoder.spec.vocabulary for token in (*case.tokens, *(token for token, _ in case.top))):
        return "was packed for another vocabulary", 0.0
    if case.adapter is not None and case.adapter not in decoder.first.names:
        return f"was packed with an adapter {case.adapter!r}, which is not there", 0.0
    start = decoder.start(1, coming=len(case.input_ids), adapter=case.adapter)
    logits, cache = decoder.prefill([case.input_ids], start)
    difference = max((abs(float(logits[0, token]) - logit) for token, logit in case.top), default=0.0)
    if not difference <= tolerance:
        return f"is off by {difference:.4g} (allowed {tolerance:.4g})", difference
    for number, token in enumerate(case.tokens):
        if not _may_be_chosen(logits[0], token, tolerance):
            return f"goes on with token {int(logits[0].argmax())} instead of {token} at place {number}", difference
        if number + 1 < len(case.tokens):
            logits, cache = decoder.run(np.array([[token]], dtype=np.int64), cache)
    return "", difference


def _may_be_chosen(logits: NDArray[np.float32], token: int, tolerance: float) -> bool:
    """Whether a token is the likeliest, or may have been with other roundings."""
    return bool(logits.max() - logits[token] <= 2 * tolerance)
