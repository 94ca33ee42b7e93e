"""A language model's bundle measured where it runs: first tokens by length of prompt, then tokens a second.

The side's process is that of a build's race (benchmarks/stepwise). Needs the floor only.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np

from edgetune import __version__
from edgetune.benchmarks.measure.drift import measure_drift
from edgetune.benchmarks.measure.measure import COLD_STARTS, MeasureOptions, best_setting, measured_bundle
from edgetune.benchmarks.measure.measurement import FirstTokenTime, Measurement, SettingTime, Throughput
from edgetune.benchmarks.measure.workload import bundle_prompts
from edgetune.benchmarks.stepwise.side import GenerationSide
from edgetune.benchmarks.timing.load import LoadMeter
from edgetune.benchmarks.timing.machine import describe_machine
from edgetune.benchmarks.timing.quiet import Conditions, TimingVerdict, judge_timing
from edgetune.benchmarks.timing.runtime import settings_to_try
from edgetune.benchmarks.timing.side import ContestantProcess
from edgetune.serve.bundle import Bundle
from edgetune.serve.cores import affinity_cores, usable_cores
from edgetune.serve.json_types import JsonObject
from edgetune.serve.kept_settings import kept_settings
from edgetune.serve.processor import cpu_name
from edgetune.serve.proving import prove
from edgetune.serve.session import PROVIDERS
from edgetune.serve.stepwise.golden import read_golden

if TYPE_CHECKING:  # what training needs is not on the floor
    from edgetune.tune.training.progress import Progress

# Lengths that every build times too, so that both can be held against each other.
COMMON_PROMPTS, DECODE_PROMPT = (16, 128), 16
NEW_TOKENS, BATCHES, ROUNDS = 32, (1, 4), 5
# Rounds of one shape end after so many seconds, though not before the second.
SHAPE_SECONDS, WARM_MS = 4.0, 50


@dataclass(frozen=True)
class _Prompts:
    """Prompts of any length and number, made of the golden ones' ids again and again."""

    ids: Sequence[int]

    def batch(self, rows: int, tokens: int) -> list[list[int]]:
        """(rows, tokens) ids, each row beginning elsewhere."""
        return [list(itertools.islice(itertools.cycle(self.ids), row, row + tokens)) for row in range(rows)]


def measure_decoder(
    bundle: Bundle, options: MeasureOptions, prompt_tokens: list[int] | None, progress: Progress
) -> Measurement:
    """Measure a language model's bundle; arguments as for `measure`, `prompt_tokens` those of the user's own prompts.

    Raises:
        BundleDamaged: it does not give its golden answers here, and nothing was timed.
        EdgetuneError: it cannot be opened here, or its process ended.
    """
    began = time.monotonic()
    progress.say("replaying the golden answers")
    proof, golden = prove(bundle), read_golden(bundle)
    lengths = bundle_prompts(bundle, [len(case.input_ids) for case in golden.cases], prompt_tokens)
    progress.say(f"timed on {lengths.used.remark}")
    prompts = _Prompts([token for case in golden.cases for token in case.input_ids])
    side = GenerationSide(
        "bundle", bundle.folder, threads=options.threads, runtime="bundle", device=bundle.manifest.provider
    )
    settings = _sweep(bundle, side, prompts, progress)
    with ExitStack() as stack:
        process = _opened(stack, side, prompts)
        load = LoadMeter([process.pid])
        first = [_first_token(process, prompts, tokens) for tokens in _lengths(bundle, lengths.tokens)]
        progress.advance(1, 3, "first tokens")
        single = _decode(process, prompts, 1)
        memory = process.ask("memory")["memory"]["rss_peak_bytes"]
        others = load.others()
        verdict = _verdict(single, others, process.threads)
        batches = [] if _takes_one(bundle) else [_decode(process, prompts, batch) for batch in BATCHES[1:]]
        progress.advance(2, 3, "tokens a second")
        drift = measure_drift(_round(process, prompts), options.drift_seconds, progress)
        cold = [process.cold_start_ms]
    for _ in range(1, COLD_STARTS):
        with ExitStack() as stack:
            cold.append(_opened(stack, side, prompts).cold_start_ms)
    kept = kept_settings(bundle, bundle.manifest.scheme, cpu_name(), usable_cores())
    return Measurement(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        edgetune=__version__,
        seconds=round(time.monotonic() - began, 1),
        bundle=measured_bundle(bundle, proof),
        machine=describe_machine(options.threads or (kept.threads if kept else usable_cores())),
        providers=[PROVIDERS[bundle.manifest.provider]],
        golden=proof.replays,
        inputs=lengths.used,
        first_token_ms=first,
        throughput=[Throughput(batch=done.batch, per_second=done.per_second) for done in (single, *batches)],
        settings=settings,
        best=best_setting(settings),
        rss_peak_bytes=memory,
        cold_start_ms=float(np.median(cold)),
        drift=drift,
        others_cores=others,
        timing_valid=verdict.valid,
        timing_remark=verdict.remark,
    )


@dataclass(frozen=True)
class _Decoded:
    """Rounds of decoding `batch` prompts together: mean ms of a step in each, and processor over wall time."""

    batch: int
    step_ms: list[float]
    cpu_share: float

    @property
    def per_second(self) -> float:
        """Tokens a second of all prompts together, by the median round."""
        return 1000 * self.batch / float(np.median(self.step_ms))


def _opened(stack: ExitStack, side: GenerationSide, prompts: _Prompts) -> ContestantProcess:
    return stack.enter_context(ContestantProcess(side, json.dumps(prompts.batch(1, DECODE_PROMPT)[0])))


def _lengths(bundle: Bundle, tokens: Sequence[int]) -> list[int]:
    """The data's own lengths and those that every build times, with room for an answer."""
    most = bundle.manifest.max_tokens - NEW_TOKENS - 1
    return sorted({max(1, min(length, most)) for length in (*tokens, *COMMON_PROMPTS)})


def _takes_one(bundle: Bundle) -> bool:
    spec = bundle.manifest.generation
    return spec is not None and spec.batch_one


def _first_token(process: ContestantProcess, prompts: _Prompts, tokens: int) -> FirstTokenTime:
    """The median of a few prompts; the first of a length allocates and is not counted."""
    times = [reply["first_ms"] for reply in _replies(process, prompts.batch(1, tokens), 0)]
    return FirstTokenTime(prompt_tokens=tokens, ms=float(np.median(times)))


def _decode(process: ContestantProcess, prompts: _Prompts, batch: int) -> _Decoded:
    replies = _replies(process, prompts.batch(batch, DECODE_PROMPT), NEW_TOKENS)
    shares = [reply["cpu_share"] for reply in replies]
    return _Decoded(batch, [float(np.mean(reply["steps_ms"])) for reply in replies], float(np.median(shares)))


def _replies(process: ContestantProcess, batch: list[list[int]], new_tokens: int) -> list[JsonObject]:
    """Up to `ROUNDS` answers after one that is not counted, and two however long they take."""
    command = {"prompts": batch, "new_tokens": new_tokens, "warm_ms": WARM_MS}
    process.ask("generate", **{**command, "new_tokens": min(new_tokens, 4)})
    began, replies = time.monotonic(), list[JsonObject]()
    while len(replies) < 2 or (len(replies) < ROUNDS and time.monotonic() - began < SHAPE_SECONDS):
        replies.append(process.ask("generate", **command))
    return replies


def _round(process: ContestantProcess, prompts: _Prompts) -> Callable[[], float]:
    """One round of the drift: the mean ms of a step of the same answer."""
    batch = prompts.batch(1, DECODE_PROMPT)

    def run() -> float:
        return float(np.mean(process.ask("generate", prompts=batch, new_tokens=16)["steps_ms"]))

    return run


def _verdict(decoded: _Decoded, others: float | None, threads: int) -> TimingVerdict:
    return judge_timing(
        Conditions(
            blocks={"bundle": [[ms] for ms in decoded.step_ms]},
            cpu_share={"bundle": decoded.cpu_share},
            others_cores=others,
            cores=affinity_cores(),
            threads=threads,
        )
    )


def _sweep(bundle: Bundle, side: GenerationSide, prompts: _Prompts, progress: Progress) -> list[SettingTime]:
    """The median step by each number of threads, each in a process of its own; nothing where there is no choice."""
    numbers = sorted({threads for threads, _ in settings_to_try(usable_cores(), side.threads)})
    if bundle.manifest.provider != "cpu" or len(numbers) < 2:
        return []
    settings = []
    for done, threads in enumerate(numbers, start=1):
        with ExitStack() as stack:
            process = _opened(stack, replace(side, threads=threads), prompts)
            load = LoadMeter([process.pid])
            decoded = _decode(process, prompts, 1)
            valid = _verdict(decoded, load.others(), threads).valid
        p50 = float(np.median(decoded.step_ms)) if valid else None
        settings.append(SettingTime(threads=threads, spinning=True, p50_ms=p50))
        progress.advance(done, len(numbers), "threads")
    return settings
