"""A bundle measured where it runs: golden answers first, then times, memory and cold start in processes of their own.

The sides, blocks and samples are those of a build's race (benchmarks/timing), so that a p50 here means what it means
in a report. Needs the floor only.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetune import __version__
from edgetune.benchmarks.measure.drift import measure_drift
from edgetune.benchmarks.measure.measurement import MeasuredBundle, Measurement, SettingTime, Throughput
from edgetune.benchmarks.measure.workload import MeasuredInputs, bundle_inputs
from edgetune.benchmarks.timing.blocks import BLOCK, timed_blocks
from edgetune.benchmarks.timing.machine import describe_machine
from edgetune.benchmarks.timing.quick import TIE, quick_race
from edgetune.benchmarks.timing.runtime import setting_name, settings_to_try
from edgetune.benchmarks.timing.samples import flat, summarize
from edgetune.benchmarks.timing.side import ContestantProcess, Side
from edgetune.serve.bundle import Bundle
from edgetune.serve.cores import usable_cores
from edgetune.serve.identity import bundle_digest
from edgetune.serve.proving import Proof, prove
from edgetune.tune.data.rows import Input

if TYPE_CHECKING:  # what training needs is not on the floor
    from edgetune.tune.training.progress import Progress

# Seconds that single calls, the sweep of threads, and each size of batch may take; a p50 needs five calls, a p90 29.
LATENCY_SECONDS, SWEEP_SECONDS, BATCH_SECONDS = 8.0, 10.0, 2.0
SAMPLES, LEAST_SAMPLES, SWEEP_SAMPLES = 400, 40, 200
BATCHES, BATCH_INPUTS = (1, 8, 32), 512
COLD_STARTS = 3
DRIFT_SECONDS = 10.0


@dataclass(frozen=True)
class MeasureOptions:
    """How much is measured: seconds of calls without a pause, the threads (None is the bundle's own), the inputs."""

    drift_seconds: float = DRIFT_SECONDS
    threads: int | None = None
    given: list[Input] | None = None


def measure(bundle: Bundle, options: MeasureOptions, progress: Progress) -> Measurement:
    """Measure a bundle of any task that answers by one run of its graph, or by tables.

    Raises:
        BundleDamaged: it does not give its golden answers here, and nothing was timed.
        EdgetuneError: it cannot be opened here, or its process ended.
    """
    began = time.monotonic()
    progress.say("replaying the golden answers")
    proof = prove(bundle)
    with tempfile.TemporaryDirectory(prefix="edgetune-measure-") as folder:
        inputs = bundle_inputs(bundle, options.given, Path(folder))
        progress.say(f"timed on {inputs.used.remark}")
        side = Side("bundle", bundle.folder, threads=options.threads)
        settings, best = _sweep(bundle, side, inputs, progress)
        return _timed(side, inputs, proof, options, progress, _Facts(bundle, settings, best, began))


@dataclass(frozen=True)
class _Facts:
    """What is known before times are taken."""

    bundle: Bundle
    settings: list[SettingTime]
    best: SettingTime | None
    began: float


def _timed(
    side: Side, inputs: MeasuredInputs, proof: Proof, options: MeasureOptions, progress: Progress, facts: _Facts
) -> Measurement:
    texts, bundle = inputs.inputs, facts.bundle
    with ExitStack() as stack:
        process = stack.enter_context(ContestantProcess(side, texts[0]))
        call_ms = float(np.mean(process.ask("latency", texts=texts[:BLOCK], warm_ms=50)["ms"]))
        samples = samples_within(LATENCY_SECONDS, call_ms, SAMPLES)
        timed = timed_blocks({"bundle": process}, texts, samples, progress, "latency")
        verdict = timed.verdict()
        throughput = [_throughput(process, texts, batch, call_ms, progress) for batch in BATCHES]
        memory = process.ask("memory")["memory"]["rss_peak_bytes"]
        placement = process.ask("placement")["placement"]
        opened = process.ask("opened")
        drift = measure_drift(_round(process, texts, call_ms), options.drift_seconds, progress)
        cold = [process.cold_start_ms]
    for done in range(1, COLD_STARTS):
        with ContestantProcess(side, texts[0]) as process:
            cold.append(process.cold_start_ms)
        progress.advance(done, COLD_STARTS - 1, "cold start")
    return Measurement(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        edgetune=__version__,
        seconds=round(time.monotonic() - facts.began, 1),
        bundle=measured_bundle(bundle, proof),
        machine=describe_machine(opened["threads"]),
        providers=opened["providers"],
        placement=placement,
        golden=proof.replays,
        inputs=inputs.used,
        latency_ms=summarize(flat(timed.ms["bundle"])),
        throughput=throughput,
        settings=facts.settings,
        best=facts.best,
        rss_peak_bytes=memory,
        cold_start_ms=float(np.median(cold)),
        drift=drift,
        others_cores=timed.others_cores,
        timing_valid=verdict.valid,
        timing_remark=verdict.remark,
    )


def measured_bundle(bundle: Bundle, proof: Proof) -> MeasuredBundle:
    """Which bundle this is, and what of it answers here."""
    manifest = bundle.manifest
    return MeasuredBundle(
        name=manifest.name,
        task=manifest.task,
        digest=bundle_digest(bundle),
        size_bytes=bundle.size_bytes,
        variant=proof.variant,
        reason=proof.reason,
    )


def samples_within(seconds: float, call_ms: float, most: int, least: int = LEAST_SAMPLES) -> int:
    """Calls of `call_ms` that fit into the seconds: at most `most`, and `least` however long they take."""
    return int(min(max(least, 1000 * seconds / max(call_ms, 1e-3)), most))


def _throughput(
    process: ContestantProcess, texts: list[Input], batch: int, call_ms: float, progress: Progress
) -> Throughput:
    count = samples_within(BATCH_SECONDS, call_ms, BATCH_INPUTS, batch)
    inputs = [texts[place % len(texts)] for place in range(count)]
    process.ask("throughput", texts=inputs[:batch], batch_size=batch)  # the first of a shape allocates
    seconds = process.ask("throughput", texts=inputs, batch_size=batch)["seconds"]
    progress.advance(BATCHES.index(batch) + 1, len(BATCHES), f"throughput, batches of {batch}")
    return Throughput(batch=batch, per_second=len(inputs) / seconds)


def _round(process: ContestantProcess, texts: list[Input], call_ms: float) -> Callable[[], float]:
    """One round of the drift: the mean ms of the same inputs each time, a fifth of a second or one call long."""
    inputs = texts[: max(1, min(len(texts), int(200 / max(call_ms, 1e-3))))]

    def run() -> float:
        return float(np.mean(process.ask("latency", texts=inputs)["ms"]))

    return run


def _sweep(
    bundle: Bundle, side: Side, inputs: MeasuredInputs, progress: Progress
) -> tuple[list[SettingTime], SettingTime | None]:
    """The median call by each setting of threads, in turn, and the best; nothing where there is no choice."""
    pairs = settings_to_try(usable_cores(), side.threads)
    if bundle.manifest.engine is not None or bundle.manifest.provider != "cpu" or len(pairs) < 2:
        return [], None
    sides = {setting_name(n, spins): Side("bundle", bundle.folder, threads=n, spinning=spins) for n, spins in pairs}
    with ContestantProcess(side, inputs.inputs[0]) as process:
        call_ms = float(np.mean(process.ask("latency", texts=inputs.inputs[:5])["ms"]))
    samples = samples_within(SWEEP_SECONDS / len(pairs), call_ms, SWEEP_SAMPLES)
    figures = quick_race(sides, inputs.inputs, progress, samples)
    times = [
        SettingTime(threads=n, spinning=spins, p50_ms=timed.p50_ms if timed.timing_valid else None)
        for (n, spins), timed in zip(pairs, figures.values(), strict=True)
    ]
    return times, best_setting(times)


def best_setting(times: list[SettingTime]) -> SettingTime | None:
    """The fastest; of those that tie the one with the fewest threads that do not spin, which leaves most to others."""
    measured = [(entry.p50_ms, entry) for entry in times if entry.p50_ms is not None]
    if not measured:
        return None
    fastest = min(ms for ms, _ in measured)
    tied = [entry for ms, entry in measured if ms <= fastest * (1 + TIE)]
    return min(tied, key=lambda entry: (entry.threads, entry.spinning))
