"""The race on a GPU: PyTorch in three types against the fused graphs, in turn, each side in a process of its own.

A side that does not open, or that ends on the way, keeps its reason in the place of its figures; the others go on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.benchmarks.timing.blocks import BLOCK
from edgetune.benchmarks.timing.memory import settled_memory_used
from edgetune.benchmarks.timing.race import BATCHES, LENGTHS
from edgetune.benchmarks.timing.samples import flat, percentile_or_none, ratio_interval
from edgetune.benchmarks.timing.side import ContestantProcess, Side
from edgetune.serve.errors import EdgetuneError
from edgetune.tune.data.rows import Input

SHAPES = tuple((batch, tokens) for batch in BATCHES for tokens in LENGTHS)
REFERENCE = "PyTorch fp32"


@dataclass(frozen=True)
class Kind:
    """How a side runs: PyTorch in a type, or the graph of a scheme; `on_cpu` where a CPU can run it too."""

    runtime: str
    format: str
    captured: bool = False
    on_cpu: bool = False


KINDS = {
    REFERENCE: Kind("torch", "float32", on_cpu=True),
    "PyTorch fp16": Kind("torch", "float16"),
    "PyTorch bf16": Kind("torch", "bfloat16", on_cpu=True),
    "fused fp16": Kind("onnx", "fp16", on_cpu=True),
    "fused fp16, CUDA graphs": Kind("onnx", "fp16", captured=True),
    "fused bf16": Kind("onnx", "bf16"),
}


@dataclass(frozen=True)
class GpuSide(Side):
    """A side of this race: `settings` as the contestant's process reads them."""

    settings: dict[str, Any] = field(default_factory=dict)

    def command(self, first: Input) -> list[str]:
        """The command line of its process; `first` is not used, the process makes its own first call."""
        module = ["-m", "benchmarks.lab.gpu_contestant"]
        return [sys.executable, *module, "--side", json.dumps(self.settings)]


@dataclass
class Measured:
    """One side's figures; what is None or absent was not measured, and `reason` says why where something failed.

    Attributes:
        blocks: by shape (batch, tokens), times in ms by block.
        logits: of the checked rows, (rows, labels).
        torch_peak_bytes: the most that torch's allocator held on the GPU.
        device_rise_bytes: NVML's rise of the device while this side alone ran every shape.
        reason: why a figure is missing.
    """

    blocks: dict[tuple[int, int], list[list[float]]] = field(default_factory=dict)
    logits: list[list[float]] | None = None
    torch_peak_bytes: int | None = None
    device_rise_bytes: int | None = None
    reason: str = ""

    def percentile(self, shape: tuple[int, int], percentile: float) -> float | None:
        """A percentile (0 to 1) of one shape's times in ms; None where there are too few."""
        return percentile_or_none(flat(self.blocks.get(shape, [])), percentile)


def faster(other: Measured, base: Measured, shape: tuple[int, int]) -> tuple[float, float, float] | None:
    """How many times faster `other` is than `base` by the median, with the 95% interval; None if one is missing."""
    first, second = base.percentile(shape, 0.5), other.percentile(shape, 0.5)
    if first is None or second is None:
        return None
    # A side that ended half-way has fewer blocks than the other.
    pairs = list(zip(base.blocks[shape], other.blocks[shape], strict=False))
    low, high = ratio_interval([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    return first / second, low, high


def agreement(found: Measured, reference: Measured) -> tuple[float, float] | None:
    """Share of rows with the same label as the reference (0 to 1), and the largest logit difference."""
    if found.logits is None or reference.logits is None:
        return None
    one, other = np.asarray(found.logits), np.asarray(reference.logits)
    if not np.isfinite(one).all():
        return float(np.mean((one.argmax(1) == other.argmax(1)) & np.isfinite(one).all(1))), float("inf")
    return float(np.mean(one.argmax(1) == other.argmax(1))), float(np.abs(one - other).max())


@dataclass(frozen=True)
class Workload:
    """What all sides are workload.

    Attributes:
        device: "cuda" or "cpu".
        model: the tuned model's folder.
        graphs: the graph of each format that could be made.
        reasons: why a format's graph could not be made.
        rows: a JSON file with lists of token ids, none longer than the longest shape.
        labels: width of the logits.
        pad: the padding token's id.
        shapes: (batch, tokens), the smallest first.
    """

    device: str
    model: Path
    graphs: dict[str, Path]
    reasons: dict[str, str]
    rows: Path
    labels: int
    pad: int
    shapes: Sequence[tuple[int, int]]

    def side(self, name: str) -> GpuSide:
        """The process of a side."""
        kind = KINDS[name]
        settings = {
            "side": name,
            "runtime": kind.runtime,
            "dtype": kind.format,
            "captured": kind.captured,
            "device": self.device,
            "model": str(self.model),
            "graph": str(self.graphs.get(kind.format, "")),
            "rows": str(self.rows),
            "labels": self.labels,
            "pad": self.pad,
            "shapes": list(self.shapes),
        }
        where = self.model if kind.runtime == "torch" else self.graphs[kind.format].parent
        return GpuSide("base", where, settings=settings)

    def absent(self, name: str) -> str:
        """Why a side cannot run here; empty where it can."""
        kind = KINDS[name]
        if self.device == "cpu" and not kind.on_cpu:
            return "needs a GPU"
        return self.reasons.get(kind.format, "") if kind.runtime == "onnx" else ""


def race(workload: Workload, samples: int) -> dict[str, Measured]:
    """All sides' figures: memory first, each side alone; then the times, all in turn; then the answers."""
    measured = {name: Measured(reason=workload.absent(name)) for name in KINDS}
    if workload.device == "cuda":
        for name, found in measured.items():
            if not found.reason:
                measure_memory(workload, name, found)
    with ExitStack() as stack:
        running = {}
        for name, found in measured.items():
            if found.reason:
                continue
            try:
                running[name] = stack.enter_context(ContestantProcess(workload.side(name), ""))
            except EdgetuneError as error:
                found.reason = error.found
        for shape in workload.shapes:
            for _ in range(0, samples, BLOCK):
                time_block(running, measured, shape)
        for name in list(running):
            answer = _ask(running, measured, name, {"do": "answer"})
            measured[name].logits = answer["logits"] if answer else None
    return measured


def measure_memory(workload: Workload, name: str, found: Measured) -> None:
    """Run every shape of one side with the device to itself; its process is gone afterwards."""
    before = settled_memory_used()
    try:
        with ContestantProcess(workload.side(name), "") as process:
            for batch, tokens in workload.shapes:
                process.ask("time", batch=batch, tokens=tokens, calls=1)
            after = settled_memory_used()
            found.torch_peak_bytes = process.ask("memory")["torch_peak_bytes"]
    except EdgetuneError as error:
        found.reason = error.found
        return
    found.device_rise_bytes = None if before is None or after is None else after - before


def time_block(running: dict[str, ContestantProcess], measured: dict[str, Measured], shape: tuple[int, int]) -> None:
    """One block of calls of one shape by every side that still runs."""
    command = {"do": "time", "batch": shape[0], "tokens": shape[1], "calls": BLOCK}
    for name in list(running):
        answer = _ask(running, measured, name, command)
        if answer:
            measured[name].blocks.setdefault(shape, []).append(answer["ms"])


def _ask(
    running: dict[str, ContestantProcess], measured: dict[str, Measured], name: str, command: dict[str, Any]
) -> dict[str, Any] | None:
    """A side's answer; None where its process ended, which takes it out of the race and keeps the reason."""
    try:
        return running[name].ask(**command)
    except EdgetuneError as error:
        measured[name].reason = error.found
        del running[name]
        return None
