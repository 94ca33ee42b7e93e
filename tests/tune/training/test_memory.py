"""Memory that runs out while training: every way in which it is said becomes one error, and nothing else does."""

import errno
import mmap

import pytest
import torch

from edgetune.serve.errors import OutOfMemory
from edgetune.tune.training.memory import told_out_of_memory


def allocate_too_much():
    torch.empty(1 << 55)  # what torch's own allocator says, whatever its words are in this release


def map_too_much():
    mmap.mmap(-1, 1 << 62)


def raising(error):
    def run():
        raise error

    return run


@pytest.mark.parametrize(
    "greedy",
    [
        allocate_too_much,
        map_too_much,
        raising(MemoryError()),
        raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nDetails")),
        raising(RuntimeError("unable to mmap 8 bytes from file <model.safetensors>: Cannot allocate memory (12)")),
        raising(OSError(errno.ENOMEM, "Cannot allocate memory")),
    ],
    ids=["torch", "mmap", "python", "cuda", "file", "system"],
)
def test_memory_that_runs_out_is_told_with_what_to_change(greedy):
    with (
        pytest.raises(OutOfMemory, match=r"^Training ran out of memory on cuda: .") as told,
        told_out_of_memory("cuda", lambda: ["one", "other"], cost="time"),
    ):
        greedy()
    assert told.value.action == "change one of these, the first first: one; other"
    assert told.value.cost == "time"
    assert told.value.expected
    assert "Details" not in str(told.value)
    assert told.value.__cause__ is not None


@pytest.mark.parametrize(
    "error", [RuntimeError("a bug"), OSError(errno.ENOSPC, "No space left on device"), ValueError("memory")]
)
def test_what_is_no_lack_of_memory_stays_what_it_was(error):
    asked = []
    with pytest.raises(type(error)) as told, told_out_of_memory("cpu", lambda: asked.append(1) or []):
        raise error
    assert told.value is error
    assert asked == []
