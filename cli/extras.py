"""Which extras of edgetune are installed whole, and the pip command that completes each.

Reads the installed metadata, so that pyproject.toml stays the only list of packages. Versions are compared by
their numbers alone: a base install has no `packaging`. Imports the standard library alone.
"""

from __future__ import annotations

import importlib.metadata
import platform
import re
import sys
from dataclasses import dataclass

EXTRAS = ("base", "cpu", "gpu", "serve", "pictures", "build", "compare", "llm", "review", "sweep", "sign")

# Every wheel that brings the module `onnxruntime`: two of them in one environment overwrite each other.
RUNTIME_WHEELS = (
    "onnxruntime",
    "onnxruntime-gpu",
    "onnxruntime-directml",
    "onnxruntime-openvino",
    "onnxruntime-qnn",
    "onnxruntime-migraphx",
    "onnxruntime-rocm",
)

_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[[^]]*\])?(?P<range>[^;]*)(;.*extra == [\"'](?P<extra>\w+)[\"'])?")
_CLAUSE = re.compile(r"(>=|<)\s*([\d.]+)")


@dataclass(frozen=True)
class Extra:
    """One extra. `missing` names each package that is absent or of a wrong version; `do` is the pip command.

    `do` is None where nothing needs doing: the extra is complete, or another ONNX Runtime wheel stands in.
    """

    complete: bool
    missing: tuple[str, ...]
    do: str | None


def installed_extras() -> dict[str, Extra]:
    """Each of EXTRAS by name; "base" is what edgetune needs without any extra."""
    return {name: _extra(name) for name in EXTRAS}


def runtime_wheels() -> dict[str, str]:
    """The ONNX Runtime wheels that are installed, with their versions."""
    versions = {name: installed_version(name) for name in RUNTIME_WHEELS}
    return {name: version for name, version in versions.items() if version is not None}


def installed_version(name: str) -> str | None:
    """The version of an installed package, or None."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def has_gpu_wheel() -> bool:
    """Whether onnxruntime-gpu is published for this platform; there [build] brings it (pyproject.toml)."""
    return sys.platform == "win32" or (sys.platform == "linux" and platform.machine() == "x86_64")


def pip_install(extra: str) -> str:
    """The command that brings an extra.

    Where another ONNX Runtime wheel would clash with the extra's own, it takes away all of them first: the
    files that two wheels share are gone with either.
    """
    if extra == "base":
        return "pip install edgetune"
    wheels, own = runtime_wheels(), _wheel_of(extra)
    clash = own is not None and wheels.keys() - {own}
    return (f"pip uninstall -y {' '.join(wheels)} && " if clash else "") + f'pip install "edgetune[{extra}]"'


def _extra(name: str) -> Extra:
    missing = tuple(fault for line in _requirements(name) if (fault := _fault(name, line)))
    another = runtime_wheels().keys() - {_wheel_of(name)}
    is_needed = bool(missing) and not (name in ("cpu", "gpu") and another)
    return Extra(complete=not missing, missing=missing, do=pip_install(name) if is_needed else None)


def _requirements(extra: str) -> list[str]:
    """The lines of an extra in edgetune's metadata, as `name>=1.0; extra == "build"`."""
    lines = importlib.metadata.requires("edgetune") or []
    return [line for line in lines if (_parse(line)["extra"] or "base") == extra]


def _fault(extra: str, requirement: str) -> str | None:
    """What is wrong with one required package, or None."""
    parts = _parse(requirement)
    name, versions = parts["name"] or "", (parts["range"] or "").strip()
    if extra == "build" and name in RUNTIME_WHEELS:
        # Which wheel [build] wants hangs on the platform, and any wheel does the work.
        return None if runtime_wheels() or name != _wheel_of(extra) else name + versions
    version = installed_version(name)
    if version is None:
        return name + versions
    return None if _is_within(version, versions) else f"{name}{versions} ({version} is installed)"


def _wheel_of(extra: str) -> str | None:
    """The ONNX Runtime wheel that an extra brings; None for one that brings none."""
    if extra == "build":
        return "onnxruntime-gpu" if has_gpu_wheel() else "onnxruntime"
    return {"cpu": "onnxruntime", "gpu": "onnxruntime-gpu"}.get(extra)


def _parse(requirement: str) -> dict[str, str | None]:
    match = _REQUIREMENT.match(requirement)
    return match.groupdict() if match else {"name": requirement, "range": "", "extra": None}


def _is_within(version: str, versions: str) -> bool:
    installed = _release(version)
    for operator, bound in _CLAUSE.findall(versions):
        if (installed < _release(bound)) if operator == ">=" else (installed >= _release(bound)):
            return False
    return True


def _release(version: str) -> tuple[int, ...]:
    """The numbers of a version: "2.10.0+cpu" is (2, 10), since trailing zeros say nothing."""
    numbers = re.match(r"\d+(\.\d+)*", version)
    parts = [int(part) for part in numbers.group().split(".")] if numbers else []
    while parts and not parts[-1]:
        parts.pop()
    return tuple(parts)
