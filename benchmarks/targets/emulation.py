"""Processors that QEMU computes in this system: which one stands for a class, and how a Python runs on it.

QEMU's user emulation (https://www.qemu.org/docs/master/user/main.html) runs a single program. On Arm ONNX Runtime reads
in /proc/cpuinfo what a processor can do, which QEMU leaves as it is: a file under the prefix stands for it.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import msgspec

from edgetune import __version__
from edgetune.serve import targets
from edgetune.serve.bundle import NOT_JSON
from edgetune.serve.processor import CPUINFO_VARIABLE
from edgetune.serve.targets import ARM, TARGETS, X86, ProofKind, architecture, target_here

INSTALL_QEMU = "apt-get install qemu-user"
SET_UP_ARM = "edgetune target setup arm64"

CACHE_VARIABLE = "EDGETUNE_TARGETS"
SYSTEM_NAME, SITE_NAME, SETUP_NAME = "system", "site", "setup.json"

_ARM = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
_ARM_8_2 = f"{_ARM} atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class Core:
    """An emulated processor: QEMU's name of it, the flags of its /proc/cpuinfo, on Arm its part number too."""

    cpu: str
    flags: str
    part: str = ""

    @property
    def cpuinfo(self) -> str:
        """What stands in /proc/cpuinfo of a machine with two such processors."""
        if not self.part:
            lines = f"model name\t: {self.cpu}, emulated\nflags\t\t: {self.flags}\n"
        else:
            lines = (
                f"BogoMIPS\t: 50.00\nFeatures\t: {self.flags}\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
                f"CPU variant\t: 0x0\nCPU part\t: {self.part}\nCPU revision\t: 1\n"
            )
        return "".join(f"processor\t: {number}\n{lines}\n" for number in range(2))


# The least able processor of each class; QEMU computes no AVX-512, so that VNNI has none.
CORES = {
    "x86-64-v2": Core("Nehalem", "sse sse2 ssse3 sse4_1 sse4_2 popcnt"),
    "x86-64-v3": Core("Haswell-noTSX", "sse sse2 ssse3 sse4_1 sse4_2 popcnt avx f16c fma bmi1 bmi2 avx2"),
    "arm64": Core("cortex-a72", _ARM, "0xd08"),
    "arm64-dotprod": Core("cortex-a76", _ARM_8_2, "0xd0b"),
    "arm64-i8mm": Core("max", f"{_ARM_8_2} i8mm bf16", "0xd40"),
}
# The class whose flags make ONNX Runtime add up sums that fit.
SATURATING = "x86-64-v3"
_PROGRAMS = {X86: "qemu-x86_64", ARM: "qemu-aarch64"}


class Setup(msgspec.Struct, frozen=True):
    """What `edgetune target setup` wrote: versions of the packages by name, and the Python that runs them."""

    versions: dict[str, str]
    python: str


@dataclass(frozen=True)
class Prover:
    """How answers of a class are found here.

    Attributes:
        proof: "unproven" where they are not.
        reason: how they are found, or why not and what would help, in a few words.
        core: the processor that is described to the process; None where it is this one.
        emulator: QEMU's program; empty where none is needed.
        root: an unpacked system of the other architecture with `python` in it; None where this Python runs.
    """

    proof: ProofKind
    reason: str
    core: Core | None = None
    emulator: str = ""
    root: Path | None = None

    def start(self, folder: Path) -> tuple[list[str], dict[str, str]]:
        """What starts a Python, and the variables it wants; the emulator's files are written into `folder`."""
        if self.core is None:
            return [sys.executable, "-P"], {}
        cpuinfo = folder / "proc" / "cpuinfo"
        cpuinfo.parent.mkdir(parents=True)
        cpuinfo.write_text(self.core.cpuinfo, encoding="ascii")
        variables = {CPUINFO_VARIABLE: str(cpuinfo)}
        if not self.emulator:
            return [sys.executable, "-P"], variables
        command = [self.emulator, "-cpu", self.core.cpu, "-L", str(folder)]
        if self.root is None:
            return [*command, sys.executable, "-P"], variables
        system = self.root / SYSTEM_NAME
        for path in system.iterdir():
            if path.name != "proc":
                (folder / path.name).symlink_to(path)
        link_floor(folder / "floor")
        variables["PYTHONPATH"] = f"{folder / 'floor'}:{self.root / SITE_NAME}"
        return [*command, str(system / read_setup(self.root).python), "-P"], variables


def prover_of(name: str) -> Prover:
    """How a class's answers are found on this machine."""
    target, here = TARGETS[name], target_here()
    if name == here:
        return Prover("native", "on this machine")
    core, emulator = CORES.get(name), shutil.which(_PROGRAMS[target.architecture])
    same = target.architecture == architecture()
    if core is not None and emulator is not None and same:
        return Prover("emulated", f"{core.cpu} by QEMU", core, emulator)
    if target.architecture == X86:
        if not same:
            return Prover("unproven", "there is no emulated x86-64 on another architecture yet")
        # Sums of products that fit are the same sums on every x86-64, and the rest of a graph is the same code.
        how = f"sums that fit, computed here; {INSTALL_QEMU} would prove it" if core else "sums that fit, computed here"
        return Prover("computed", how, CORES[SATURATING])
    if core is None or emulator is None:
        return Prover("unproven", f"there is no {_PROGRAMS[ARM]} ({INSTALL_QEMU})")
    root = setup_folder()
    if fault := setup_fault(root):
        return Prover("unproven", f"{fault} ({SET_UP_ARM})")
    return Prover("emulated", f"{core.cpu} by QEMU", core, emulator, root)


def setup_folder() -> Path:
    """Where `edgetune target setup arm64` keeps what runs on Arm: EDGETUNE_TARGETS, else the user's cache."""
    named, cache = os.environ.get(CACHE_VARIABLE), os.environ.get("XDG_CACHE_HOME")
    folder = Path(named) if named else (Path(cache) if cache else Path.home() / ".cache") / "edgetune" / "targets"
    return folder / "arm64"


def setup_fault(root: Path) -> str:
    """Why nothing can be answered with what is set up in a folder; empty where it can."""
    if not (root / SETUP_NAME).is_file():
        return "nothing is set up for it"
    try:
        setup = read_setup(root)
    except NOT_JSON:
        return f"{root / SETUP_NAME} cannot be read"
    if not (root / SYSTEM_NAME / setup.python).is_file():
        return f"{root} has no {setup.python}"
    wanted = floor_versions()
    other = [f"{name} {version}" for name, version in setup.versions.items() if version != wanted.get(name)]
    return f"what is set up has {', '.join(other)}, another version than runs here" if other else ""


def read_setup(root: Path) -> Setup:
    """What was written when it was set up."""
    return msgspec.json.decode((root / SETUP_NAME).read_bytes(), type=Setup)


def floor_versions() -> dict[str, str]:
    """Versions of what answering needs, by package name; ONNX Runtime's of whichever wheel is installed."""
    versions = {name: installed_version(name) for name in ("numpy", "tokenizers", "msgspec", "click")}
    versions["onnxruntime"] = installed_version("onnxruntime") or installed_version("onnxruntime-gpu")
    return {name: version for name, version in versions.items() if version is not None}


def installed_version(name: str) -> str | None:
    """The version of an installed package, None without it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def link_floor(folder: Path) -> None:
    """Write an `edgetune` into `folder` that has `edgetune.serve` alone: a Python of another system imports it."""
    package = folder / "edgetune"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(f'__version__ = "{__version__}"\n', encoding="utf-8")
    (package / "serve").symlink_to(Path(targets.__file__).resolve().parent)
