"""What is wrong with an installation or machine, each with what to do: the judgement over a Diagnosis.

An error stops `edgetune predict` or `edgetune build`; a note costs speed, disk or privacy. An install without
[build] is whole: an edge machine answers and does not train. Pure functions; nothing is looked up here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from edgetune.diagnosis import Diagnosis
from edgetune.extras import has_gpu_wheel, pip_install
from edgetune.providers import CPU, CUDA

# A work folder keeps several fp32 copies of the base, 0.1 GB each for a small encoder: a guess, not measured.
LITTLE_DISK_BYTES = 2 * 10**9


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and the command or setting that mends it."""

    level: Literal["error", "note"]
    what: str
    do: str


def find_problems(diagnosis: Diagnosis) -> list[Problem]:
    """All problems, errors first."""
    problems = [
        *_extra_problems(diagnosis),
        *_runtime_problems(diagnosis),
        *_torch_problems(diagnosis),
        *_gpu_problems(diagnosis),
        *_machine_problems(diagnosis),
    ]
    return sorted(problems, key=lambda problem: problem.level)


def _extra_problems(diagnosis: Diagnosis) -> Iterator[Problem]:
    base, build = diagnosis.extras["base"], diagnosis.extras["build"]
    if not base.complete:
        yield Problem("error", f"edgetune itself lacks {', '.join(base.missing)}.", base.do or "")
    if build.complete:
        return
    if diagnosis.torch is None:
        yield Problem("note", "[build] is not installed: bundles answer here but cannot be built.", build.do or "")
    else:
        yield Problem("error", f"[build] is incomplete: {', '.join(build.missing)}.", build.do or "")


def _runtime_problems(diagnosis: Diagnosis) -> Iterator[Problem]:
    runtime = diagnosis.onnxruntime
    if len(runtime.wheels) > 1:
        names = " and ".join(runtime.wheels)
        yield Problem("error", f"{names} are both installed and overwrite each other.", _one_wheel(diagnosis))
    elif not runtime.wheels and runtime.version is None:
        yield Problem("error", "No ONNX Runtime is installed: no bundle can answer.", _one_wheel(diagnosis))
    elif runtime.error:
        yield Problem("error", f"ONNX Runtime does not import: {runtime.error}.", _reinstall(runtime.wheels))
    elif not runtime.providers[CPU].works:
        what = f"ONNX Runtime does not answer on the CPU: {runtime.providers[CPU].reason}."
        yield Problem("error", what, _reinstall(runtime.wheels))
    else:
        yield from _old_wheel(diagnosis)
    if not runtime.telemetry_off:
        yield Problem("note", "ONNX Runtime's telemetry is on.", "export ORT_DISABLE_TELEMETRY=1")


def _old_wheel(diagnosis: Diagnosis) -> Iterator[Problem]:
    """The one wheel that is there is of a version that edgetune does not work with."""
    for name in ("cpu", "gpu"):
        extra = diagnosis.extras[name]
        if diagnosis.onnxruntime.wheels and extra.do:
            yield Problem("error", f"ONNX Runtime is too old: {', '.join(extra.missing)}.", extra.do)


def _torch_problems(diagnosis: Diagnosis) -> Iterator[Problem]:
    torch = diagnosis.torch
    if torch is None:
        return
    if torch.error:
        do = "pip install --force-reinstall torch"
        yield Problem("error", f"torch {torch.version} does not import: {torch.error}.", do)
    elif diagnosis.gpu and not torch.cuda_build:
        what = f"torch {torch.version} is built without CUDA: training does not use the {diagnosis.gpu.name}."
        yield Problem("note", what, "pip uninstall -y torch && pip install torch")
    elif diagnosis.gpu and not torch.cuda:
        reason = torch.cuda_reason or "torch does not say why"
        do = f"install a driver for CUDA {torch.cuda_build}; see whether CUDA_VISIBLE_DEVICES hides the GPU"
        yield Problem("note", f"torch does not reach the {diagnosis.gpu.name}: {reason}.", do)


def _gpu_problems(diagnosis: Diagnosis) -> Iterator[Problem]:
    runtime = diagnosis.onnxruntime
    if diagnosis.gpu is None or runtime.version is None:
        return
    trial = runtime.providers.get(CUDA)
    if trial is None and has_gpu_wheel():
        what = f"This ONNX Runtime has no CUDA provider: bundles do not use the {diagnosis.gpu.name}."
        yield Problem("note", what, pip_install("gpu"))
    elif trial is not None and not trial.works:
        what = f"ONNX Runtime does not reach the {diagnosis.gpu.name}: {trial.reason}."
        yield Problem("note", what, 'pip install "onnxruntime-gpu[cuda,cudnn]"')


def _machine_problems(diagnosis: Diagnosis) -> Iterator[Problem]:
    threads = (diagnosis.omp_num_threads or "").split(",")[0].strip()
    if threads.isdecimal() and int(threads) > diagnosis.cores:
        what = f"OMP_NUM_THREADS={threads} is more than the {diagnosis.cores} cores that may be used."
        yield Problem("note", what, f"export OMP_NUM_THREADS={diagnosis.cores}")
    if diagnosis.int8_fast is False:
        what = "This CPU has neither VNNI nor a dot product: int8 gains less."
        yield Problem("note", what, "build with the --target of this CPU's class, and measure the bundle here")
    if diagnosis.free_disk_bytes < LITTLE_DISK_BYTES:
        what = f"Only {diagnosis.free_disk_bytes / 1e9:.1f} GB are free in this folder; a build may need more."
        yield Problem("note", what, "free some, or build with --out on another disk")


def _one_wheel(diagnosis: Diagnosis) -> str:
    """The command after which exactly one wheel is there: the one that the rest of the install asks for."""
    wants_gpu = diagnosis.gpu is not None and has_gpu_wheel()
    return pip_install("build" if diagnosis.torch else "gpu" if wants_gpu else "cpu")


def _reinstall(wheels: dict[str, str]) -> str:
    names = " ".join(wheels)
    return f"pip uninstall -y {names} && pip install {names}"
