"""How a plan times a pass of a model, also on a machine that has other work to do."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

Clock = Callable[[Callable[[], object]], float]


def choose_clock(run: Callable[[], object], device: str) -> Clock:
    """The clock to time passes with, which give seconds: wall time, with all threads.

    Where other work fills the cores, threads that join after every operation wait for each other, and a pass of 40 ms
    takes seconds. Passes are then timed by the processor time of one thread, which other work hardly touches: an upper
    bound of what they take with all.

    Args:
        run: a short pass, run five times; the first warms up, and of three with all threads the fastest counts,
            since threads that have just been woken are slow.
        device: "cpu" or "cuda".
    """
    run()
    if device != "cpu":
        return wall_seconds
    fastest = min(wall_seconds(run) for _ in range(3))
    return wall_seconds if fastest < one_thread_seconds(run) else one_thread_seconds


def wall_seconds(run: Callable[[], object]) -> float:
    """Wall time of a pass, a GPU's work included."""
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def one_thread_seconds(run: Callable[[], object]) -> float:
    """Processor time of a pass on the CPU that is run on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start = time.thread_time()
        run()
        return time.thread_time() - start
    finally:
        torch.set_num_threads(threads)
