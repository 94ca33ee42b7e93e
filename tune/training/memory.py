"""Memory that runs out while training, told as an error with what can be lowered.

Apart from the trainings of the tasks, since torch has several ways to say it. What the system kills for its memory
cannot say anything: the same command continues from the last checkpoint. Must not import transformers.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

from edgetune.serve.errors import OutOfMemory

# How torch's allocators and its file mapping say it where they raise no error of their own.
_WORDS = ("can't allocate memory", "not enough memory", "Cannot allocate memory", "CUDA out of memory")


@contextmanager
def told_out_of_memory(device: str, remedies: Callable[[], Sequence[str]], *, cost: str = "") -> Iterator[None]:
    """Turn every way in which Python and torch say that memory ran out into `OutOfMemory`.

    Args:
        device: where the training runs.
        remedies: what can be lowered, the first first; asked only when it is needed.
        cost: what they cost.

    Raises:
        OutOfMemory: memory ran out inside.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:
        if not _ran_out(error):
            raise
        first = str(error).partition("\n")[0]
        raise OutOfMemory(
            f"Training ran out of memory on {device}: {first or 'no more to be had'}",
            expected="gradients, optimizer states and activations to fit beside the weights",
            action="change one of these, the first first: " + "; ".join(remedies()),
            cost=cost,
        ) from error


def _ran_out(error: BaseException) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return any(words in str(error) for words in _WORDS)
