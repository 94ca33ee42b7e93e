"""Which processor this is and what it can do: its name and instruction sets, as the system tells them.

A bundle brings settings that were measured on one class of machine; this tells whether it runs on that class.
"""

from __future__ import annotations

import os
from pathlib import Path

from edgetune.serve.cores import PROC

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

# Names a file that stands for /proc/cpuinfo where flags are asked for: an emulator computes as another processor, and
# the system goes on describing its own.
CPUINFO_VARIABLE = "EDGETUNE_CPUINFO"
# Characters of /proc/cpuinfo in which the first processor's flags stand, of which there may be 200.
_FIRST_PROCESSOR = 8192


def cpu_name(proc: Path = PROC) -> str:
    """The processor's name as the system tells it; on Arm, which has none, the board or the part's number."""
    for key in ("model name", "Model"):
        if name := _cpu_field(proc, key):
            return name
    if board := read_text(proc / "device-tree" / "model").strip("\0\n "):
        return board
    import platform

    implementer, part = _cpu_field(proc, "CPU implementer"), _cpu_field(proc, "CPU part")
    if implementer and part:
        return f"{platform.machine()}, implementer {implementer}, part {part}"
    return platform.processor() or platform.machine()


def instruction_sets(proc: Path = PROC) -> list[str]:
    """Those of INSTRUCTION_SETS that the processor has, in that order; none without a /proc/cpuinfo."""
    known = flags(proc)
    return [name for name in INSTRUCTION_SETS if name in known]


def flags(proc: Path = PROC) -> frozenset[str]:
    """All that the first processor can do, by the names in /proc/cpuinfo; none where there is no such file."""
    described = os.environ.get(CPUINFO_VARIABLE)
    try:
        with (Path(described) if described else proc / "cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            # Of many cores the whole file takes milliseconds, and the kernel writes it as far as it is read.
            head = lines.read(_FIRST_PROCESSOR)
    except OSError:
        return frozenset()
    return frozenset(f"{field(head, 'flags')} {field(head, 'Features')}".split())


def _cpu_field(proc: Path, key: str) -> str:
    return field(read_text(proc / "cpuinfo"), key)


def field(lines: str, key: str) -> str:
    """The value of the first `key : value` line, or "" without one."""
    for line in lines.splitlines():
        name, colon, value = line.partition(":")
        if colon and name.strip() == key:
            return value.strip()
    return ""


def read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
