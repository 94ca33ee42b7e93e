"""The machine on which figures are taken: processor, instruction sets, usable cores and memory, GPU.

Unknown hardware is None or left out, never a guess. Stands apart from what it describes, so that a base
install can use it: it imports no torch by itself, and asks torch only where someone has imported it.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgetune.serve.cores import PROC, usable_cores, usable_memory_bytes
from edgetune.serve.report import Machine

# The instruction sets that decide how fast int8 and bf16 products are, by their name in /proc/cpuinfo;
# from "asimd" on they are Arm's.
INSTRUCTION_SETS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_int8",
    "amx_bf16",
    "asimd",
    "asimddp",
    "sve",
    "i8mm",
    "bf16",
)

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


def cpu_name(proc: Path = PROC) -> str:
    """The processor's name as the system tells it; on Arm, which has none, the board or the part's number."""
    for key in ("model name", "Model"):
        if name := _cpu_field(proc, key):
            return name
    if board := _text(proc / "device-tree" / "model").strip("\0\n "):
        return board
    implementer, part = _cpu_field(proc, "CPU implementer"), _cpu_field(proc, "CPU part")
    if implementer and part:
        return f"{platform.machine()}, implementer {implementer}, part {part}"
    return platform.processor() or platform.machine()


def instruction_sets(proc: Path = PROC) -> list[str]:
    """Those of INSTRUCTION_SETS that the processor has, in that order; none without a /proc/cpuinfo."""
    flags = set(f"{_cpu_field(proc, 'flags')} {_cpu_field(proc, 'Features')}".split())
    return [name for name in INSTRUCTION_SETS if name in flags]


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
        first = pynvml.nvmlDeviceGetHandleByIndex(0)
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
    texts = [_text(file) for file in sorted(proc.glob("driver/nvidia/gpus/*/information"))]
    names = [_field(text, "Model") for text in texts]
    return Gpu(name=names[0], memory_bytes=None, count=len(names)) if names else None


def _cpu_field(proc: Path, key: str) -> str:
    return _field(_text(proc / "cpuinfo"), key)


def _field(text: str, key: str) -> str:
    """The value of the first `key : value` line, or "" without one."""
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() == key:
            return value.strip()
    return ""


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
