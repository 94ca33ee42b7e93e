"""The facts that `edgetune doctor` tells: what is installed, what really works, what the machine can do.

Facts alone: what is wrong with them is judged in cli/problems.py and printed in commands/doctor.py.
Must run in a base install, so ONNX Runtime and torch are imported only where they are installed.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from edgetune import __version__
from edgetune.benchmarks.targets.emulation import prover_of
from edgetune.benchmarks.timing.machine import Gpu, find_gpu
from edgetune.extras import Extra, installed_extras, installed_version, runtime_wheels
from edgetune.providers import ProviderTrial, try_providers
from edgetune.serve.cores import usable_cores, usable_memory_bytes
from edgetune.serve.processor import cpu_name, instruction_sets
from edgetune.serve.targets import TARGETS

INT8_SETS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")
BF16_SETS = ("avx512_bf16", "amx_bf16", "bf16")
# Settings that decide where models are looked for; none of them is a secret.
HUB_VARIABLES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_ENDPOINT", "HF_HOME")


@dataclass(frozen=True)
class RuntimeFacts:
    """ONNX Runtime. `error` says why it cannot be imported; `version` is what the import answers to."""

    wheels: dict[str, str]
    version: str | None
    error: str | None
    telemetry_off: bool
    providers: dict[str, ProviderTrial]


@dataclass(frozen=True)
class TorchFacts:
    """torch. `cuda` says whether it reaches a GPU, `cuda_build` for which CUDA it was built, if for any."""

    version: str
    error: str | None
    cuda: bool
    cuda_build: str | None
    cuda_reason: str | None


@dataclass(frozen=True)
class Diagnosis:
    """All facts. `int8_fast` and `bf16_fast` are None where the system does not tell its instruction sets.

    `targets` says of each class of processors how a build would prove a bundle for it.
    """

    edgetune: str
    python: str
    os: str
    extras: dict[str, Extra]
    onnxruntime: RuntimeFacts
    torch: TorchFacts | None
    cpu: str
    cores: int
    host_cores: int | None
    omp_num_threads: str | None
    memory_bytes: int | None
    isa: list[str]
    int8_fast: bool | None
    bf16_fast: bool | None
    gpu: Gpu | None
    free_disk_bytes: int
    targets: dict[str, str]
    hub: dict[str, str]


def diagnose() -> Diagnosis:
    """Look at everything; takes as long as torch takes to import, where it is installed."""
    isa = instruction_sets()
    # The runtime before torch, whose import would load CUDA libraries that a bundle must find without it.
    runtime = runtime_facts()
    return Diagnosis(
        edgetune=__version__,
        python=platform.python_version(),
        os=platform.platform(),
        extras=installed_extras(),
        onnxruntime=runtime,
        torch=torch_facts(),
        cpu=cpu_name(),
        cores=usable_cores(),
        host_cores=os.cpu_count(),
        omp_num_threads=os.environ.get("OMP_NUM_THREADS"),
        memory_bytes=usable_memory_bytes(),
        isa=isa,
        int8_fast=_has_one(INT8_SETS, isa),
        bf16_fast=_has_one(BF16_SETS, isa),
        gpu=find_gpu(),
        free_disk_bytes=shutil.disk_usage(Path.cwd()).free,
        targets={name: f"{prover.proof}: {prover.reason}" for name in TARGETS if (prover := prover_of(name))},
        hub={name: os.environ[name] for name in HUB_VARIABLES if name in os.environ},
    )


def runtime_facts() -> RuntimeFacts:
    """What ONNX Runtime is installed, and what it really does here."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # it counts only before the first import
    wheels = runtime_wheels()
    runtime, error = _import("onnxruntime")
    # Without its wheel's files the folder that a broken uninstall leaves is an empty namespace package.
    if runtime is not None and not hasattr(runtime, "InferenceSession"):
        runtime, error = None, "the package has no InferenceSession: its files are damaged"
    return RuntimeFacts(
        wheels=wheels,
        version=runtime.__version__ if runtime else None,
        error=error if wheels else None,
        telemetry_off=os.environ["ORT_DISABLE_TELEMETRY"] == "1",
        providers=try_providers(runtime) if runtime else {},
    )


def torch_facts() -> TorchFacts | None:
    """What torch is installed, and whether it reaches a GPU; None where it is not installed."""
    version = installed_version("torch")
    if version is None:
        return None
    torch, error = _import("torch")
    if torch is None:
        return TorchFacts(version=version, error=error, cuda=False, cuda_build=None, cuda_reason=None)
    with warnings.catch_warnings(record=True) as caught:  # torch warns of a driver that it cannot use
        warnings.simplefilter("always")
        cuda = bool(torch.cuda.is_available())
    reason = str(caught[-1].message).splitlines()[0] if caught and not cuda else None
    return TorchFacts(version=version, error=None, cuda=cuda, cuda_build=torch.version.cuda, cuda_reason=reason)


def _import(name: str) -> tuple[ModuleType | None, str | None]:
    """The module, or in one line why it cannot be imported: OSError is a shared library that is missing."""
    try:
        return importlib.import_module(name), None
    except (ImportError, OSError) as error:
        return None, str(error).splitlines()[0]


def _has_one(instructions: tuple[str, ...], isa: list[str]) -> bool | None:
    return any(name in isa for name in instructions) if isa else None
