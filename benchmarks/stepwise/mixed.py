"""The search for the smallest mixture of bits within the gate: aim, judge, and aim again by what was measured.

Losses of single matrices add up to the loss of all only roughly, and the gate judges other rows than they were measured
on: so what is aimed at is corrected by the measured rise, a few times. Must not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from edgetune.compress.gptq.allocation import allocate
from edgetune.compress.gptq.quantization import Choice
from edgetune.compress.gptq.sensitivity import Sensitivities
from edgetune.serve.stepwise.report import LanguageCandidate

# Share of the limit that is aimed at, and from which on what was reached is near enough; candidates made at most.
AIM, NEAR, MOST_TRIES = 0.8, 0.6, 3
# One measured rise corrects the aim by no more than this factor.
LARGEST_CORRECTION = 4.0

Judged = Callable[[int, Mapping[str, Choice]], LanguageCandidate]


def smallest_within(sensitivities: Sensitivities, limit: float, judged: Judged) -> tuple[int, LanguageCandidate]:
    """The smallest accepted candidate and its number; where none is accepted, the one with the least rise.

    Args:
        sensitivities: what each matrix loses.
        limit: the relative rise of perplexity that the gate allows; a rise of x is log(1 + x) nats a token.
        judged: makes and judges the candidate of a number, from 1, and of each matrix's choice.
    """
    nats = AIM * math.log1p(limit)
    tried: list[dict[str, Choice]] = []
    candidates: list[tuple[int, LanguageCandidate]] = []
    for number in range(1, MOST_TRIES + 1):
        choices = allocate(sensitivities, nats)
        if choices in tried:
            break
        tried.append(choices)
        candidate = judged(number, choices)
        candidates.append((number, candidate))
        if candidate.accepted and candidate.rise >= NEAR * limit:
            break
        nats *= _correction(candidate, limit)
    accepted = [pair for pair in candidates if pair[1].accepted]
    if accepted:
        return min(accepted, key=lambda pair: pair[1].size_bytes)
    return min(candidates, key=lambda pair: pair[1].rise)


def _correction(candidate: LanguageCandidate, limit: float) -> float:
    """What the aim is multiplied by after a candidate; at most a half where it was refused."""
    aim = AIM * limit
    largest = LARGEST_CORRECTION if candidate.accepted else 0.5
    if candidate.rise <= aim / LARGEST_CORRECTION:
        return largest
    return min(largest, max(1 / LARGEST_CORRECTION, aim / candidate.rise))
