"""The classes of processors that a bundle is proven for, and what each computes with products of bytes.

On x86-64, ONNX Runtime multiplies unsigned by signed bytes. VNNI sums four such products in 32 bits; before it, two of
them are summed in 16 bits and cut off where they do not fit (vpmaddubsw), so that the same graph answers otherwise.
`edgetune.serve.session` therefore asks ONNX Runtime for products in 16 bits there, which fit. Arm's always fit.
"""

from __future__ import annotations

import os
from collections.abc import Set
from dataclasses import dataclass
from typing import Literal

import msgspec

from edgetune.serve.processor import flags

HERE = "here"
X86, ARM = "x86_64", "aarch64"
_ARCHITECTURES = {"x86_64": X86, "amd64": X86, "aarch64": ARM, "arm64": ARM}


@dataclass(frozen=True)
class Target:
    """A class of processors.

    Attributes:
        name: as recipes name it.
        architecture: "x86_64" or "aarch64".
        summary: which processors these are.
        needs: flags of /proc/cpuinfo of which a processor of the class has one at least.
        saturates: whether sums of two products of bytes are cut off at 16 bits, unless ONNX Runtime is asked otherwise.
    """

    name: str
    architecture: str
    summary: str
    needs: tuple[str, ...]
    saturates: bool = False


# Of each architecture, from the least able to the most: what a class can do, those behind it can do too.
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("x86-64-v2", X86, "SSE4.2 without AVX2: Intel Atom, Celeron and Pentium until 2021", ("sse4_2",), True),
        Target("x86-64-v3", X86, "AVX2 without VNNI: Intel Core 4 to 10, AMD Zen 1 to 3", ("avx2",), True),
        Target(
            "x86-64-vnni",
            X86,
            "AVX-512 VNNI or AVX-VNNI: Intel Xeon from Cascade Lake, Core from 11, AMD from Zen 4",
            ("avx512_vnni", "avx_vnni", "amx_int8"),
        ),
        Target("arm64", ARM, "no dot products: Cortex-A53, A72 (Raspberry Pi 4)", ("asimd",)),
        Target("arm64-dotprod", ARM, "dot products: Cortex-A76 (Raspberry Pi 5), Neoverse N1, Apple M1", ("asimddp",)),
        Target("arm64-i8mm", ARM, "products of int8 matrices: Neoverse V1 and N2, Apple M2", ("i8mm",)),
    )
}


# How answers were found on a class: on such a processor, on an emulated one, on another one by sums that are the same
# on both, or not at all.
ProofKind = Literal["native", "emulated", "computed", "unproven"]


class TargetEntry(msgspec.Struct, frozen=True, kw_only=True):
    """What a bundle answers with on one class of processors, and how far that was proven.

    `scheme` is that of the graph to open there; `rows` of the test part were answered, a share `agreement` of them as
    where the bundle was built; golden logits may differ by `tolerance` there, None where that was not measured.
    """

    name: str
    scheme: str
    proof: ProofKind
    rows: int = 0
    agreement: float | None = None
    tolerance: float | None = None


def architecture() -> str:
    """ "x86_64" or "aarch64" under whatever name the system has it; any other as it is."""
    if hasattr(os, "uname"):
        machine = os.uname().machine.lower()
    else:
        import platform  # takes milliseconds to import

        machine = platform.machine().lower()
    return _ARCHITECTURES.get(machine, machine)


def target_of(known: Set[str], machine: str) -> str:
    """The most able class that a processor belongs to; "" where the system does not tell its flags, or it has none.

    Args:
        known: flags, as /proc/cpuinfo has them.
        machine: as `architecture` gives it.
    """
    names = [one.name for one in TARGETS.values() if one.architecture == machine and set(one.needs) & known]
    return names[-1] if names else ""


def target_here() -> str:
    """The class of this machine's processor; "" where the system does not tell."""
    return target_of(flags(), architecture())


def sums_saturate(known: Set[str], machine: str) -> bool:
    """Whether sums of products of bytes are cut off here; also where the system does not tell: right before fast."""
    if machine != X86:
        return False
    name = target_of(known, machine)
    return not name or TARGETS[name].saturates
