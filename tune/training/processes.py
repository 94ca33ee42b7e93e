"""Several processes at the same work, as `accelerate launch -m edgetune` starts them: who writes, who waits.

One process alone, the usual case, pays nothing: accelerate is imported only where there are others to wait for.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def is_main() -> bool:
    """Whether this is the process that writes; a process that is alone is."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes work on this build."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_all() -> None:
    """Return when every process has come to this line."""
    if process_count() == 1:
        return
    import torch
    from accelerate import PartialState

    PartialState(cpu=not torch.cuda.is_available()).wait_for_everyone()


@contextmanager
def main_first() -> Iterator[None]:
    """The main process runs the block, then all others do, to find what it has left."""
    if not is_main():
        wait_for_all()
    yield
    if is_main():
        wait_for_all()
