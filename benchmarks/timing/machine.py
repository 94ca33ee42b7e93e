"""The machine on which figures are taken: processor, instruction sets, usable cores and memory, GPU.

Unknown hardware is None or left out, never a guess. Stands apart from what it describes, so that a base
install can use it: it imports no torch by itself, and asks torch only where someone has imported it.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgetune.serve.cores import PROC, usable_cores, usable_memory_bytes
from edgetune.serve.processor import cpu_name, field, instruction_sets, read_text
from edgetune.serve.report import Machine

PACKAGES = (
    "edgetune",
    "numpy",
    "onnxruntime",
    "onnxruntime-gpu",
    "tokenizers",
    "torch",
    "transformers",
    "peft",
    "onnx",
)


@dataclass(frozen=True)
class Gpu:
    """The first NVIDIA GPU of the machine, and how many there are; `memory_bytes` is that of the first."""

    name: str
    memory_bytes: int | None
    count: int


def describe_machine(threads: int, proc: Path = PROC) -> Machine:
    """The machine as a report states it; `threads` is what the measured runtime was given."""
    gpu = find_gpu(proc)
    return Machine(
        cpu=cpu_name(proc),
        cores=usable_cores(proc),
        threads=threads,
        isa=instruction_sets(proc),
        gpu=gpu.name if gpu else None,
        os=platform.platform(),
        memory_bytes=usable_memory_bytes(proc),
        versions=versions(),
    )


def find_gpu(proc: Path = PROC) -> Gpu | None:
    """The NVIDIA GPU by its driver, or by torch where that is imported already; None without one."""
    return _gpu_by_nvml() or _gpu_by_torch() or _gpu_by_proc(proc)


def versions() -> dict[str, str]:
    """The version of Python and of each of PACKAGES that is installed."""
    return {"python": platform.python_version()} | dict(_installed(PACKAGES))


def _installed(names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for name in names:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue


def visible_device(nvml: Any) -> Any:
    """NVML's handle of the device that CUDA calls 0 in this process; None where it is shown none.

    NVML counts by the PCI bus and knows nothing of CUDA_VISIBLE_DEVICES; only a UUID means the same in both. torch has
    it where it is imported; else the variable says which, by UUID or by index.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        uuid = str(getattr(torch.cuda.get_device_properties(0), "uuid", ""))
        if uuid:
            return nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return nvml.nvmlDeviceGetHandleByIndex(0)
    first = named.split(",")[0].strip()
    if first.startswith(("GPU-", "MIG-")):
        return nvml.nvmlDeviceGetHandleByUUID(first)
    return nvml.nvmlDeviceGetHandleByIndex(int(first)) if first.isdecimal() else None


def _gpu_by_nvml() -> Gpu | None:
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver, no library or no permission: all mean that we cannot see a GPU
        return None
    try:
        count = pynvml.nvmlDeviceGetCount()
        if not count:
            return None
        first = visible_device(pynvml)
        if first is None:
            return None
        memory = int(pynvml.nvmlDeviceGetMemoryInfo(first).total)
        return Gpu(name=str(pynvml.nvmlDeviceGetName(first)), memory_bytes=memory, count=count)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()


def _gpu_by_torch() -> Gpu | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    first = torch.cuda.get_device_properties(0)
    return Gpu(name=first.name, memory_bytes=first.total_memory, count=torch.cuda.device_count())


def _gpu_by_proc(proc: Path) -> Gpu | None:
    """By the files of the Linux driver, for an install that has neither NVML's package nor torch."""
    texts = [read_text(file) for file in sorted(proc.glob("driver/nvidia/gpus/*/information"))]
    names = [field(text, "Model") for text in texts]
    return Gpu(name=names[0], memory_bytes=None, count=len(names)) if names else None
