"""Timing base against bundle: fresh processes, the same threads, the same texts, in turn, block by block."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from edgetune.benchmarks.recipe import BenchmarkRecipe
from edgetune.benchmarks.timing.blocks import BLOCK, timed_blocks
from edgetune.benchmarks.timing.memory import settled_memory_used
from edgetune.benchmarks.timing.quiet import TimingVerdict
from edgetune.benchmarks.timing.samples import flat, ratio_interval, summarize
from edgetune.benchmarks.timing.side import ContestantProcess, Side
from edgetune.serve.report import (
    GridCell,
    LatencyComparison,
    Memory,
    MemoryComparison,
    Pair,
    Speedup,
)
from edgetune.tune.data.rows import Input
from edgetune.tune.training.progress import Progress

# Of the bundle against itself: blocks, each so long that one interruption by another program does not decide it.
NOISE_BLOCKS, NOISE_BLOCK_MS, MOST_CALLS_A_BLOCK = 8, 80, 1000
BATCHES, LENGTHS = (1, 8, 32), (16, 64, 128)
THROUGHPUT_TEXTS, THROUGHPUT_ROUNDS = 512, 3


@dataclass(frozen=True)
class Race:
    """Who runs: the base and the chosen bundle. `max_tokens` bounds the grid's lengths."""

    base: Side
    bundle: Side
    max_tokens: int

    @property
    def sides(self) -> dict[str, Side]:
        """Both, by the name that the report gives them."""
        return {"base": self.base, "bundle": self.bundle}


@dataclass(frozen=True)
class Timing:
    """All figures of one race, as the report holds them.

    `answers` are what the bundle gave while it was timed, by input, so that what was timed can be held against what was
    judged. Where `verdict` says that speed could not be judged, there are no ratios.
    """

    latency_ms: LatencyComparison
    grid_ms: list[GridCell]
    throughput_per_second: Pair
    memory: MemoryComparison
    cold_start_ms: Pair
    placement: dict[str, int]
    answers: dict[Input, Any]
    verdict: TimingVerdict


def race(race: Race, texts: Sequence[Input], recipe: BenchmarkRecipe, progress: Progress) -> Timing:
    """Time both sides on `texts`, in the order given, repeated as often as the samples need.

    Raises:
        EdgetuneError: one side's process ended; its last line of error output is told.
    """
    with ExitStack() as stack:
        sides = {name: stack.enter_context(ContestantProcess(side, texts[0])) for name, side in race.sides.items()}
        timed = timed_blocks(sides, texts, recipe.samples, progress)
        verdict = timed.verdict(_noise(race.bundle, texts, progress, flat(timed.ms["bundle"])))
        throughput = _throughputs(sides, texts, progress)
        # Memory before the grid: its largest batches are no part of answering the user's texts.
        memory = {side: _memory(process) for side, process in sides.items()}
        grid = _grid(sides, race.max_tokens, progress) if recipe.grid else []
        placement = sides["bundle"].ask("placement")["placement"]
        warm = {side: process.cold_start_ms for side, process in sides.items()}
    memory = {name: _with_device(race.sides[name], found, texts) for name, found in memory.items()}
    cold = _cold_starts(race, texts[0], recipe.cold_starts, warm, progress)
    return Timing(
        latency_ms=_compare(timed.ms["base"], timed.ms["bundle"], verdict),
        grid_ms=grid,
        throughput_per_second=throughput,
        memory=MemoryComparison(**memory),
        cold_start_ms=cold,
        placement=placement,
        answers=timed.answers["bundle"],
        verdict=verdict,
    )


def _noise(side: Side, texts: Sequence[Input], progress: Progress, ms: Sequence[float]) -> list[float]:
    """95% interval of how many times faster a second copy of the bundle is than the first: on a quiet machine, 1.

    Both are as new, since what answers in microseconds is faster once it has met many words. `ms` are calls of it, by
    which blocks are made long enough.
    """
    calls = math.ceil(NOISE_BLOCK_MS / max(float(np.mean(ms)), 1e-3))
    size = min(max(calls, BLOCK), MOST_CALLS_A_BLOCK)
    note = "noise, the bundle against itself"
    with ContestantProcess(side, texts[0]) as bundle, ContestantProcess(side, texts[0]) as copy:
        sides = {"bundle": bundle, "copy": copy}
        blocks = timed_blocks(sides, texts, NOISE_BLOCKS * size, progress, note, size).ms
    return ratio_interval(blocks["bundle"], blocks["copy"])


def _compare(
    base_blocks: list[list[float]], bundle_blocks: list[list[float]], verdict: TimingVerdict
) -> LatencyComparison:
    base, bundle = summarize(flat(base_blocks)), summarize(flat(bundle_blocks))
    if not verdict.valid:
        return LatencyComparison(base=base, bundle=bundle, speedup=Speedup(p50=None, p90=None, ci95=None))
    speedup = Speedup(
        p50=_ratio(base.p50, bundle.p50),
        p90=_ratio(base.p90, bundle.p90),
        ci95=ratio_interval(base_blocks, bundle_blocks),
    )
    return LatencyComparison(base=base, bundle=bundle, speedup=speedup)


def _ratio(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first / second


def _throughputs(sides: dict[str, ContestantProcess], texts: Sequence[Input], progress: Progress) -> Pair:
    batch = list(itertools.islice(itertools.cycle(texts), THROUGHPUT_TEXTS))
    seconds: dict[str, list[float]] = {"base": [], "bundle": []}
    for done in range(1, THROUGHPUT_ROUNDS + 1):
        for side, process in sides.items():
            seconds[side].append(process.ask("throughput", texts=batch)["seconds"])
        progress.advance(done, THROUGHPUT_ROUNDS, "throughput, batches of 32")
    return Pair(**{side: len(batch) / float(np.median(samples)) for side, samples in seconds.items()})


def _memory(process: ContestantProcess) -> Memory:
    return Memory(**process.ask("memory")["memory"])


def _with_device(side: Side, memory: Memory, texts: Sequence[Input]) -> Memory:
    """With the rise of the whole device's use while one side alone answers; as it is where there is no device.

    Both share the device while they race, so each gets a process of its own for this, one after the other.
    """
    before = settled_memory_used()
    if before is None:
        return memory
    batch = list(itertools.islice(itertools.cycle(texts), THROUGHPUT_TEXTS))
    with ContestantProcess(side, texts[0]) as process:
        process.ask("throughput", texts=batch)
        used = settled_memory_used()
    return msgspec.structs.replace(memory, gpu_device_bytes=None if used is None else used - before)


def _grid(sides: dict[str, ContestantProcess], max_tokens: int, progress: Progress) -> list[GridCell]:
    cells = []
    shapes = [(batch, tokens) for batch in BATCHES for tokens in LENGTHS]
    for done, (batch, tokens) in enumerate(shapes, start=1):
        ms: dict[str, float | None] = {"base": None, "bundle": None}
        if tokens <= max_tokens:
            for side, process in sides.items():
                ms[side] = float(np.median(process.ask("forward", batch=batch, tokens=tokens)["ms"]))
        cells.append(GridCell(batch=batch, tokens=tokens, base_ms=ms["base"], bundle_ms=ms["bundle"]))
        progress.advance(done, len(shapes), f"grid, batch {batch} of {tokens} tokens")
    return cells


def _cold_starts(race: Race, first: Input, starts: int, seen: dict[str, float], progress: Progress) -> Pair:
    """Median time from process start to first answer, the start of the race counted as one of them."""
    ms = {side: [value] for side, value in seen.items()}
    for done in range(1, starts):
        for side in ms:
            with ContestantProcess(race.sides[side], first) as process:
                ms[side].append(process.cold_start_ms)
        progress.advance(done, starts - 1, "cold start")
    return Pair(**{side: float(np.median(samples)) for side, samples in ms.items()})
