"""A folder for a board without network: the bundle, the wheels of its platform, and a start script; Python alone is
needed there.

The wheels are fetched here by pip, for the platform that is named, in the versions that the bundle was proven with, and
stay wheels: `__main__.py` compares their digests and unpacks them beside them when it is first started. As for the
docker layout each is listed and fetched without its dependencies, since nothing here imports those.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgetune import __version__
from edgetune.export.layouts.docker import PINNED
from edgetune.export.layouts.edge_start import __file__ as START_FILE
from edgetune.export.layouts.embedded import bundle_faults, copy_bundle, read_json, write_json
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs import takes_files
from edgetune.serve.errors import BundleError, WorkError

HELP = "Board without network: the bundle, the pinned wheels of one platform and a start script; needs Python alone."
RUN = 'python3 FOLDER "a text"'

WHEELS_FOLDER, LIST_NAME, START_NAME = "wheels", "edge.json", "__main__.py"
# What answers; of an input kind or task, what it needs beside.
FLOOR = ("click", "msgspec", "numpy", "onnxruntime", "tokenizers")
PILLOW, JINJA, MARKUPSAFE, COLORAMA = "13.0.0", "3.1.6", "3.0.3", "0.4.6"


@dataclass(frozen=True)
class Platform:
    """A kind of machine: pip's tags, newest first, what Python calls the processor, and what loads its libraries."""

    tags: tuple[str, ...]
    system: str
    machines: tuple[str, ...]


PLATFORMS = {
    "linux-x86_64": Platform(
        ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
        "linux",
        ("x86_64", "AMD64"),
    ),
    "linux-aarch64": Platform(
        ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64"),
        "linux",
        ("aarch64", "arm64"),
    ),
    "macos-arm64": Platform(
        ("macosx_14_0_arm64", "macosx_13_0_arm64", "macosx_12_0_arm64", "macosx_11_0_arm64"), "darwin", ("arm64",)
    ),
    "windows-x86_64": Platform(("win_amd64",), "win32", ("AMD64", "x86_64")),
}
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


@dataclass(frozen=True)
class EdgeTarget:
    """The machine that a folder is for: one of PLATFORMS, its Python as "3.11", and a folder to take wheels from alone.

    Without `wheels` pip asks the index that it is set up for.
    """

    platform: str
    python: str
    wheels: Path | None = None


def here() -> EdgeTarget:
    """A target like this machine; of another processor or system, Linux on x86-64."""
    import platform

    machine = platform.machine()
    named = [name for name, one in PLATFORMS.items() if one.system == sys.platform and machine in one.machines]
    return EdgeTarget(named[0] if named else "linux-x86_64", f"{sys.version_info.major}.{sys.version_info.minor}")


def write(bundle: Bundle, folder: Path) -> None:
    """As `write_for`, for a machine like this one."""
    write_for(bundle, folder, here())


def write_for(bundle: Bundle, folder: Path, target: EdgeTarget) -> None:
    """Fill `folder` with the bundle, wheels/, edge.json and __main__.py.

    Raises:
        BundleError: the bundle was built for a GPU.
        WorkError: a wheel cannot be had for the platform; what pip said last is told.
    """
    if bundle.manifest.provider != "cpu":
        raise BundleError(
            f"The bundle {bundle.folder} was built for {bundle.manifest.provider}.",
            expected="a bundle for cpu: the folder brings no GPU libraries",
            action="build the bundle with --device cpu",
        )
    copy_bundle(bundle, folder)
    wheels = folder / WHEELS_FOLDER
    wheels.mkdir()
    _fetch(requirements(bundle, target.platform), target, wheels)
    write_own_wheel(wheels)
    names = sorted(path.name for path in wheels.iterdir())
    platform = PLATFORMS[target.platform]
    write_json(
        folder / LIST_NAME,
        {
            "platform": target.platform,
            "system": platform.system,
            "machines": list(platform.machines),
            "python": target.python,
            "wheels": {name: hashlib.sha256((wheels / name).read_bytes()).hexdigest() for name in names},
        },
    )
    shutil.copyfile(START_FILE, folder / START_NAME)


def requirements(bundle: Bundle, platform: str) -> dict[str, str]:
    """Packages and versions: numpy, onnxruntime and tokenizers as the bundle was proven with."""
    manifest = bundle.manifest
    proven: Mapping[str, str] = manifest.versions
    runtime = proven.get("onnxruntime", proven.get("onnxruntime-gpu", PINNED["onnxruntime"]))
    versions = {name: proven.get(name, PINNED[name]) for name in FLOOR} | {"onnxruntime": runtime}
    if takes_files(manifest.codec):
        versions["pillow"] = PILLOW
    if manifest.generation is not None:
        versions |= {"jinja2": JINJA, "markupsafe": MARKUPSAFE}
    if PLATFORMS[platform].system == "win32":
        versions["colorama"] = COLORAMA
    return versions


def _fetch(versions: Mapping[str, str], target: EdgeTarget, folder: Path) -> None:
    tags = [part for tag in PLATFORMS[target.platform].tags for part in ("--platform", tag)]
    version = target.python.replace(".", "")
    abis = [part for abi in (f"cp{version}", "abi3", "none") for part in ("--abi", abi)]
    source = [] if target.wheels is None else ["--no-index", "--find-links", str(target.wheels)]
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"),
        *("--only-binary=:all:", "--implementation", "cp", "--python-version", version, *abis, *tags, *source),
        *("--dest", str(folder), *(f"{name}=={number}" for name, number in versions.items())),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        reason = (errors or ["pip failed"])[-1]
        raise WorkError(
            f"The wheels for {target.platform} and Python {target.python} cannot be had: {reason}",
            expected=", ".join(f"{name} {number}" for name, number in versions.items()),
            action="name another --python, fetch them elsewhere and name the folder with --wheels, or install pip here",
        )


def write_own_wheel(folder: Path) -> None:
    """A wheel of this very edgetune, which no index needs to have; the same bytes each time."""
    spec = importlib.util.find_spec("edgetune")
    assert spec is not None
    package, info = Path(str(spec.origin)).parent, f"edgetune-{__version__}.dist-info"
    files = {
        f"edgetune/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in _walk(package)
        if path.is_file() and path.suffix in (".py", ".jinja", ".js") and "__pycache__" not in path.parts
    }
    files[f"{info}/METADATA"] = _metadata()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: edgetune\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/RECORD"] = b""
    with zipfile.ZipFile(folder / f"edgetune-{__version__}-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def _walk(folder: Path) -> list[Path]:
    """All files below a folder, through links to folders, which a development install may have."""
    found: list[Path] = []
    for path in sorted(folder.iterdir()):
        found += _walk(path) if path.is_dir() else [path]
    return found


def _metadata() -> bytes:
    text = importlib.metadata.distribution("edgetune").read_text("METADATA") or ""
    return (text or f"Metadata-Version: 2.1\nName: edgetune\nVersion: {__version__}\n").encode()


def check(folder: Path) -> list[str]:
    """The faults of a folder: the bundle, each wheel's digest, and what no start would do without."""
    faults: list[str] = []
    listed = read_json(folder / LIST_NAME, faults)
    wheels = listed.get("wheels")
    digests = wheels if isinstance(wheels, dict) else {}
    for name, digest in digests.items():
        path = folder / WHEELS_FOLDER / str(name)
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            faults.append(f"{name} has other bytes than {LIST_NAME} says")
    names = {str(name).partition("-")[0].lower() for name in digests}
    faults += [f"no wheel of {name}" for name in ("edgetune", *FLOOR) if digests and name not in names]
    if not (folder / START_NAME).is_file():
        faults.append(f"{START_NAME} is missing")
    return faults + bundle_faults(folder)
