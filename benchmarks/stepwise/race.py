"""A race of language models: fresh processes, the same threads, the same prompts, in turn, round by round.

A side that does not open, or that ends on the way, keeps its reason in the place of its figures; the others go on.
Must not import torch: it would share the machine with what is timed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.benchmarks.stepwise.figures import (
    UNMEASURED,
    RaceFigures,
    SideFigures,
)
from edgetune.benchmarks.stepwise.recipe import GenerationBenchmarkRecipe
from edgetune.benchmarks.stepwise.side import GenerationSide
from edgetune.benchmarks.timing.load import LoadMeter
from edgetune.benchmarks.timing.memory import device_memory_used
from edgetune.benchmarks.timing.quiet import Conditions, TimingVerdict, judge_timing
from edgetune.benchmarks.timing.samples import ratio_interval
from edgetune.benchmarks.timing.side import ContestantProcess
from edgetune.serve.cores import affinity_cores, usable_cores
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.json_types import JsonObject
from edgetune.serve.report import Memory
from edgetune.tune.training.progress import Progress

DECODE_PROMPT = 16
WARM_MS = 50
COLD_STARTS = 3
NOISE_ROUNDS = 4


@dataclass(frozen=True)
class Workload:
    """What all sides are asked.

    Attributes:
        vocabulary: prompts are drawn from its ids, without the first three, which are special in most models.
        context_tokens: prompts that leave no room for an answer are left out.
        recipe: lengths, batches, rounds.
        seed: of the prompts.
    """

    vocabulary: int
    context_tokens: int
    recipe: GenerationBenchmarkRecipe
    seed: int = 0

    @property
    def threads(self) -> int:
        """Of each side."""
        return usable_cores() if self.recipe.threads == "auto" else self.recipe.threads

    @property
    def prompt_tokens(self) -> list[int]:
        """The prompt lengths that fit."""
        return [tokens for tokens in self.recipe.prompt_tokens if tokens < self.context_tokens]

    @property
    def new_tokens(self) -> int:
        """Steps of one decoding run behind the first token; fewer where the context ends before."""
        return max(1, min(self.recipe.new_tokens, self.context_tokens - DECODE_PROMPT - 1))

    def prompts(self, round_: int, batch: int, tokens: int) -> list[list[int]]:
        """The ids of a batch, the same for every side."""
        chosen = np.random.default_rng([self.seed, round_, batch, tokens])
        ids: list[list[int]] = chosen.integers(min(3, self.vocabulary - 1), self.vocabulary, (batch, tokens)).tolist()
        return ids


@dataclass
class _Running:
    """A side on its way: its process while it lives, and what it showed so far."""

    side: GenerationSide
    process: ContestantProcess | None = None
    first_ms: dict[int, list[float]] = field(default_factory=dict)
    step_ms: dict[int, list[float]] = field(default_factory=dict)
    memory: list[Memory] = field(default_factory=list)
    cold_ms: list[float] = field(default_factory=list)
    answer: list[int] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    cpu_shares: list[float] = field(default_factory=list)
    reason: str = ""

    def takes(self, batch: int) -> bool:
        """Whether it is still there and runs batches so large."""
        return self.process is not None and (self.side.most_batch is None or batch <= self.side.most_batch)

    def ask(self, do: str, arguments: dict[str, Any] | None = None) -> JsonObject:
        """Send a command; a side that has ended, or ends over it, gives nothing."""
        if self.process is None:
            return {}
        try:
            return self.process.ask(do, **(arguments or {}))
        except EdgetuneError as error:
            self.reason, self.process = error.found, None
            return {}

    def figures(self, name: str) -> SideFigures:
        """What it showed, frozen."""
        memory = [*self.memory, UNMEASURED, UNMEASURED][:2]
        return SideFigures(
            side=name,
            first_ms=self.first_ms,
            step_ms=self.step_ms,
            memory=memory[0],
            memory_batches=memory[1],
            cold_start_ms=self.cold_ms,
            size_bytes=self.side.size_bytes,
            answer=self.answer,
            modules=self.modules,
            reason=self.reason,
        )


def race(
    sides: dict[str, GenerationSide], workload: Workload, progress: Progress, checked: str = "bundle"
) -> RaceFigures:
    """All sides' figures: first tokens and batch 1, then memory, then the larger batches, then cold starts.

    The side called `checked` is raced against a second copy of itself too, which shows the machine's noise.
    """
    running = {name: _Running(side) for name, side in sides.items()}
    first = json.dumps(workload.prompts(0, 1, DECODE_PROMPT)[0])
    used = device_memory_used()
    with ExitStack() as stack:
        for one in running.values():
            _open(one, first, stack)
        load = LoadMeter(started.process.pid for started in running.values() if started.process)
        _rounds(running, workload, workload.prompt_tokens, [1] if 1 in workload.recipe.batches else [], progress)
        others = load.others()
        for one in running.values():
            _read_memory(one, used)
            one.modules = one.ask("modules").get("modules", [])
        verdict = _judge(running, workload, others, _noise(running.get(checked), workload, first, progress))
        _rounds(running, workload, [], [batch for batch in workload.recipe.batches if batch > 1], progress)
        for one in running.values():
            if max(one.step_ms, default=1) > 1:
                _read_memory(one, used)
    _cold_starts(running, first, progress)
    return RaceFigures(
        sides={name: one.figures(name) for name, one in running.items()},
        prompt_tokens=workload.prompt_tokens,
        batches=list(workload.recipe.batches),
        decode_prompt_tokens=DECODE_PROMPT,
        new_tokens=workload.new_tokens,
        rounds=workload.recipe.rounds,
        threads=workload.threads,
        timing_remark=verdict.remark,
    )


def _judge(
    running: dict[str, _Running], workload: Workload, others: float | None, noise: list[float] | None
) -> TimingVerdict:
    """Whether the machine was quiet while single prompts were answered."""
    steps = {name: side.step_ms.get(1, []) for name, side in running.items()}
    return judge_timing(
        Conditions(
            # Only sides that stayed to the end have as many rounds as the recipe says.
            blocks={
                name: [[mean] for mean in of_side]
                for name, of_side in steps.items()
                if len(of_side) == workload.recipe.rounds
            },
            cpu_share={name: float(np.median(side.cpu_shares)) for name, side in running.items() if side.cpu_shares},
            others_cores=others,
            cores=affinity_cores(),
            threads=workload.threads,
            noise_ci95=noise,
        )
    )


def _noise(checked: _Running | None, workload: Workload, first: str, progress: Progress) -> list[float] | None:
    """95% interval of how many times faster a second copy of a side decodes; None where it cannot be raced."""
    if checked is None or checked.process is None:
        return None
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    try:
        with ContestantProcess(checked.side, first) as copy:
            for round_ in range(NOISE_ROUNDS):
                command = _command(workload.prompts(round_, 1, DECODE_PROMPT), workload.new_tokens)
                for process, blocks in ((checked.process, ours), (copy, theirs)):
                    blocks.append(process.ask("generate", **command)["steps_ms"])
                progress.advance(round_ + 1, NOISE_ROUNDS, "noise, the bundle against itself")
    except EdgetuneError:
        return None  # no memory for a second one, perhaps; the first one's end is seen when it is asked next
    return ratio_interval(ours, theirs)


def _open(one: _Running, first: str, stack: ExitStack) -> None:
    try:
        one.process = stack.enter_context(ContestantProcess(one.side, first))
    except EdgetuneError as error:
        one.reason = error.found
        return
    one.cold_ms.append(one.process.cold_start_ms)


def _rounds(
    running: dict[str, _Running], workload: Workload, lengths: Sequence[int], batches: Sequence[int], progress: Progress
) -> None:
    """Every shape by every side in turn, the order turned each round; round 0 is short and not counted.

    The first run of a shape allocates what the later ones use again, in PyTorch and in ONNX Runtime alike.
    """
    shapes: list[Callable[[_Running, int], None]] = [_first_token(workload, tokens) for tokens in lengths]
    shapes += [_decode(workload, batch) for batch in batches]
    order = list(running)
    for round_ in range(workload.recipe.rounds + 1):
        turned = order[round_ % len(order) :] + order[: round_ % len(order)]
        for shape in shapes:
            for name in turned:
                shape(running[name], round_)
        if shapes:
            progress.advance(round_, workload.recipe.rounds, "generation, all sides in turn")


def _first_token(workload: Workload, tokens: int) -> Callable[[_Running, int], None]:
    def run(one: _Running, round_: int) -> None:
        if not one.takes(1):
            return
        reply = one.ask("generate", _command(workload.prompts(round_, 1, tokens), 0))
        if reply and round_:
            one.first_ms.setdefault(tokens, []).append(reply["first_ms"])

    return run


def _decode(workload: Workload, batch: int) -> Callable[[_Running, int], None]:
    def run(one: _Running, round_: int) -> None:
        if not one.takes(batch):
            return
        steps = workload.new_tokens if round_ else min(4, workload.new_tokens)
        reply = one.ask("generate", _command(workload.prompts(round_, batch, DECODE_PROMPT), steps))
        if reply and round_:
            one.step_ms.setdefault(batch, []).append(float(np.mean(reply["steps_ms"])))
            if batch == 1 and one.side.device == "cpu" and "cpu_share" in reply:
                one.cpu_shares.append(reply["cpu_share"])
            if batch == 1 and round_ == 1:
                one.answer = reply["tokens"][0]

    return run


def _command(prompts: list[list[int]], new_tokens: int) -> JsonObject:
    return {"prompts": prompts, "new_tokens": new_tokens, "warm_ms": WARM_MS}


def _read_memory(one: _Running, used_before: int | None) -> None:
    reply = one.ask("memory").get("memory")
    if reply is None:
        return
    used = device_memory_used()
    # All sides share the device while they race, so the rise of the whole device is told for none alone.
    rise = None if used is None or used_before is None else used - used_before
    one.memory.append(Memory(**{**reply, "gpu_device_bytes": rise}))


def _cold_starts(running: dict[str, _Running], first: str, progress: Progress) -> None:
    """Time from process start to first token, the start of the race counted as one of them."""
    for done in range(1, COLD_STARTS):
        for one in running.values():
            if one.reason:
                continue
            try:
                with ContestantProcess(one.side, first) as process:
                    one.cold_ms.append(process.cold_start_ms)
            except EdgetuneError as error:
                one.reason = error.found
        progress.advance(done, COLD_STARTS - 1, "cold start")


def weight_bytes(
    folder: Path, patterns: Sequence[str] = ("*.safetensors", "*.onnx", "*.onnx.data", "*.onnx_data")
) -> int:
    """Bytes of a folder's weights: safetensors, or ONNX with its external data."""
    files = [file for pattern in patterns for file in folder.glob(pattern)]
    return sum(file.stat().st_size for file in files)
