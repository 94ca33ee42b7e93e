"""What one side of a generation race showed, and two sides held against each other as the report has it.

Apart from the race, so that figures kept in a file can be told again. Must not import torch or onnxruntime.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np

from edgetune.benchmarks.timing.quiet import TimingVerdict
from edgetune.benchmarks.timing.samples import ratio_interval
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.report import Memory, MemoryComparison, Pair
from edgetune.serve.stepwise.report import Decoding, FirstToken, OtherEngine

UNMEASURED = Memory(rss_peak_bytes=None)


class SideFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One side's figures. What is absent or None was not measured; `reason` says why where something failed.

    `first_ms` holds ms from a prompt to its first token, by prompt length, one sample a round. `step_ms` holds ms a
    step while decoding, by batch: the mean over the tokens of one round, one sample a round. `memory` was read
    before, `memory_batches` after, the batches above one. `answer` is the first round's greedy token ids of batch 1;
    `modules` the heavy packages that its process had imported; `size_bytes` the weights' files.
    """

    side: str
    first_ms: dict[int, list[float]] = msgspec.field(default_factory=dict)
    step_ms: dict[int, list[float]] = msgspec.field(default_factory=dict)
    memory: Memory = UNMEASURED
    memory_batches: Memory = UNMEASURED
    cold_start_ms: list[float] = msgspec.field(default_factory=list)
    size_bytes: int | None = None
    answer: list[int] = msgspec.field(default_factory=list)
    modules: list[str] = msgspec.field(default_factory=list)
    reason: str = ""

    def first_token_ms(self, prompt_tokens: int) -> float | None:
        """Median ms to the first token of a prompt so long."""
        return _median(self.first_ms.get(prompt_tokens, []))

    def tokens_per_second(self, batch: int) -> float | None:
        """Tokens a second of all rows together while `batch` prompts are decoded, by the median round."""
        step = _median(self.step_ms.get(batch, []))
        return None if step is None else 1000 * batch / step

    @property
    def cold_ms(self) -> float | None:
        """Median ms from the start of the process to its first token."""
        return _median(self.cold_start_ms)


class RaceFigures(msgspec.Struct, frozen=True, kw_only=True):
    """All sides of one race by name, in the order they were given, and what they were asked.

    `timing_remark` says why the machine was too busy for a verdict on speed; empty where it was quiet.
    """

    sides: dict[str, SideFigures]
    prompt_tokens: list[int]
    batches: list[int]
    decode_prompt_tokens: int
    new_tokens: int
    rounds: int
    threads: int
    timing_remark: str = ""


@dataclass(frozen=True)
class GenerationTiming:
    """Base against bundle, with the fields that a LanguageReport holds under the same names.

    Where `verdict` says that speed could not be judged, there are no ratios.
    """

    first_token_ms: list[FirstToken]
    decoding: list[Decoding]
    memory: MemoryComparison
    cold_start_ms: Pair
    size_bytes: Pair
    verdict: TimingVerdict
    engines: list[OtherEngine] = field(default_factory=list)


def compared(race: RaceFigures, base: str, bundle: str) -> GenerationTiming:
    """Two sides of a race as the report tells them, and the others beside the second.

    Raises:
        EdgetuneError: one of them did not finish; why is told.
    """
    first, second = race.sides[base], race.sides[bundle]
    for one in (first, second):
        if one.reason:
            raise EdgetuneError(f"The benchmark did not finish: {one.reason}")
    rows = [decoding(first, second, batch) for batch in race.batches]
    if race.timing_remark:
        rows = [msgspec.structs.replace(row, speedup=None, ci95=None) for row in rows]
    return GenerationTiming(
        first_token_ms=[
            FirstToken(prompt_tokens=one, base_ms=first.first_token_ms(one), bundle_ms=second.first_token_ms(one))
            for one in race.prompt_tokens
        ],
        decoding=rows,
        memory=MemoryComparison(base=first.memory, bundle=second.memory),
        cold_start_ms=Pair(base=first.cold_ms, bundle=second.cold_ms),
        size_bytes=Pair(base=first.size_bytes, bundle=second.size_bytes),
        verdict=TimingVerdict(not race.timing_remark, race.timing_remark),
        engines=[_engine(side, second, race) for name, side in race.sides.items() if name not in (base, bundle)],
    )


def _engine(side: SideFigures, bundle: SideFigures, race: RaceFigures) -> OtherEngine:
    """A further side beside the bundle; without a ratio where the machine was too busy for one."""
    ratio = decoding(side, bundle, 1)
    equal, tokens = agreement(side, bundle) or (0, 0)
    return OtherEngine(
        name=side.side,
        tokens_per_second=ratio.base_per_second,
        first_token_ms=side.first_token_ms(max(race.prompt_tokens, default=0)),
        bundle_speedup=None if race.timing_remark else ratio.speedup,
        ci95=None if race.timing_remark else ratio.ci95,
        equal_tokens=equal,
        tokens=tokens,
        reason=side.reason,
    )


def decoding(base: SideFigures, bundle: SideFigures, batch: int) -> Decoding:
    """How many times faster `bundle` decodes a batch: ratio of the median rounds, 95% interval over paired rounds."""
    pairs = list(zip(base.step_ms.get(batch, []), bundle.step_ms.get(batch, []), strict=False))
    first, second = base.tokens_per_second(batch), bundle.tokens_per_second(batch)
    return Decoding(
        batch=batch,
        base_per_second=first,
        bundle_per_second=second,
        speedup=None if first is None or second is None else second / first,
        ci95=ratio_interval([[one] for one, _ in pairs], [[other] for _, other in pairs]) if pairs else None,
    )


def agreement(side: SideFigures, reference: SideFigures) -> tuple[int, int] | None:
    """How many tokens of a greedy answer equal the reference's before the first that differs, and of how many."""
    if not side.answer or not reference.answer:
        return None
    equal = [one == other for one, other in zip(side.answer, reference.answer, strict=False)]
    return (equal.index(False) if False in equal else len(equal)), len(equal)


def _median(samples: list[float]) -> float | None:
    return float(np.median(samples)) if samples else None
