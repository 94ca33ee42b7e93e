"""How many threads, and which attention, train fastest here: measured on a batch before a training of some length.

Threads that join after every operation wait for each other where anything else runs: two on shared cores took 81
seconds of processor time and 713 of the clock where one took 33 and 241. Attention written out as matrix products is
faster on a CPU than the fused kernel for short texts and slower for long ones (docs/log.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.stored import Stored
from edgetune.tune.training.processes import process_count

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model

# A training of fewer steps is not worth the measurement; a pass is timed so often, and the fastest counts.
FEWEST_STEPS, TIMES = 100, 3
# An attention or a number of threads is changed only where it saves this share: less is noise.
LEAST_SAVING = 0.05


@dataclass(frozen=True)
class Pace(Stored):
    """How training runs.

    Attributes:
        threads: that compute.
        attention: as transformers names it; "" for a model that has no name for it.
    """

    file_name: ClassVar[str] = "pace.json"
    noun: ClassVar[str] = "pace"
    command: ClassVar[str] = "tune"

    threads: int
    attention: str


@contextmanager
def best_pace(
    model: Model,
    encoder: Encoder,
    rows: Sequence[dict[str, Any]],
    batch_size: int,
    pass_tokens: int,
    *,
    bf16: bool,
    steps: int = FEWEST_STEPS,
    folder: Path | None = None,
) -> Iterator[Pace]:
    """Train at the fastest pace inside the block; what it was before comes back after it.

    Measured on the CPU alone, by one process alone, for a training of some steps.

    Args:
        rows: encoded, of which a batch of middle lengths is timed.
        steps: that the training may take.
        folder: where the pace is stored, so that a continued run keeps it.
    """
    inside = model.get_base_model() if hasattr(model, "get_base_model") else model
    usual = Pace(torch.get_num_threads(), getattr(inside.config, "_attn_implementation", None) or "")
    pace = usual
    if folder is not None and (folder / Pace.file_name).is_file():
        pace = Pace.open(folder)
    elif model.device.type == "cpu" and process_count() == 1 and steps >= FEWEST_STEPS:
        batch = _middle_batch(encoder, rows, batch_size, pass_tokens)
        pace = _measured(usual, inside, lambda: _pass(model, batch, bf16))
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            pace.save(folder)
    try:
        _set(pace, inside)
        yield pace
    finally:
        _set(usual, inside)


def _middle_batch(
    encoder: Encoder, rows: Sequence[dict[str, Any]], batch_size: int, pass_tokens: int
) -> dict[str, torch.Tensor]:
    by_length = sorted(rows, key=encoder.size)
    start = max(0, (len(by_length) - batch_size) // 2)
    known = [{name: row[name] for name in row if name != "labels"} for row in by_length[start : start + batch_size]]
    return encoder.split(dict(encoder.pad(known)), pass_tokens)[0]


def _pass(model: Model, batch: dict[str, torch.Tensor], bf16: bool) -> None:
    """A pass forward and back, whose gradients are dropped."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logits = model(**batch).logits
    logits.float().square().mean().backward()
    model.zero_grad()


def _measured(usual: Pace, inside: Model, run: Callable[[], None]) -> Pace:
    """The fastest of one thread and all, and of the usual attention and eager."""
    inside.train()
    with torch.random.fork_rng(devices=[]):  # dropout draws as if nothing had been timed
        paces = [usual]
        if usual.attention == "sdpa":
            paces.append(Pace(usual.threads, "eager"))
        best = _fastest(paces, inside, run)
        return _fastest([best, Pace(1, best.attention)], inside, run) if usual.threads > 1 else best


def _fastest(paces: Sequence[Pace], inside: Model, run: Callable[[], None]) -> Pace:
    """The first of the paces, unless another saves enough; each is timed in turn."""
    seconds = dict.fromkeys(paces, float("inf"))
    if len(paces) == 1:
        return paces[0]
    for _ in range(1 + TIMES):  # the first warms up, and can only be slower
        for pace in paces:
            _set(pace, inside)
            start = time.perf_counter()
            run()
            seconds[pace] = min(seconds[pace], time.perf_counter() - start)
    best = min(paces, key=lambda pace: seconds[pace])
    return best if seconds[best] < (1 - LEAST_SAVING) * seconds[paces[0]] else paces[0]


def _set(pace: Pace, inside: Model) -> None:
    if pace.threads != torch.get_num_threads():
        torch.set_num_threads(pace.threads)
    if pace.attention and pace.attention != inside.config._attn_implementation:
        inside.base_model.set_attn_implementation(pace.attention)
