"""Setting up what answers as an Arm processor here: a Python of Debian's and the floor's wheels, through apt and pip.

Nothing is installed: packages are unpacked into a folder that QEMU looks into, and thrown away with it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from edgetune.benchmarks.targets.emulation import (
    SETUP_NAME,
    SITE_NAME,
    SYSTEM_NAME,
    Setup,
    floor_versions,
    prover_of,
    setup_folder,
)
from edgetune.serve.errors import MissingDependency, WorkError

# python3 brings the standard library; ONNX Runtime's wheel is C++.
_SYSTEM_PACKAGES = ("python3", "libstdc++6")
_WHEEL_PLATFORMS = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
_SECONDS = 1800

Say = Callable[[str], None]


def set_up(say: Say) -> Path:
    """Fetch and unpack all into the folder of `setup_folder`, whole or not at all; what was there is replaced.

    Raises:
        MissingDependency: apt-get, dpkg or pip is not there.
        WorkError: a package cannot be fetched, or the folder not written.
    """
    missing = [name for name in ("apt-get", "dpkg") if shutil.which(name) is None]
    if missing:
        raise MissingDependency(
            f"There is no {' and no '.join(missing)} here.",
            expected="a Debian or Ubuntu, whose packages for Arm are unpacked",
            action="set it up on one, and copy the folder to where EDGETUNE_TARGETS points",
        )
    root = setup_folder()
    part = root.with_name(f".{root.name}.part")
    try:
        shutil.rmtree(part, ignore_errors=True)
        for name in (SYSTEM_NAME, SITE_NAME, "apt", "wheels"):
            (part / name).mkdir(parents=True)
        _unpack_system(part, say)
        versions = floor_versions()
        python = next((part / SYSTEM_NAME / "usr" / "bin").glob("python3.[0-9]*"), None)
        if python is None:
            raise WorkError("Debian's python3 for arm64 has no usr/bin/python3.N.", action="report this")
        _unpack_wheels(part, versions, python.name.removeprefix("python"), say)
        setup = Setup(versions=versions, python=f"usr/bin/{python.name}")
        (part / SETUP_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(setup)))
        for name in ("apt", "wheels"):
            shutil.rmtree(part / name)
        shutil.rmtree(root, ignore_errors=True)
        part.rename(root)
    except OSError as error:
        raise WorkError(
            f"{root} cannot be written: {error.strerror or error}.",
            expected="a disk with 300 MB that this user may write to",
            action="free space, or name another folder with EDGETUNE_TARGETS",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return root


def try_setup() -> str:
    """What an emulated Python says of its processor and ONNX Runtime; "" where there is no emulator yet.

    Raises:
        WorkError: it does not run.
    """
    import tempfile

    prover = prover_of("arm64")
    if prover.proof != "emulated":
        return ""
    program = "import onnxruntime, numpy, tokenizers; print('ONNX Runtime', onnxruntime.__version__)"
    with tempfile.TemporaryDirectory(prefix="edgetune-target-") as folder:
        command, variables = prover.start(Path(folder) / "root")
        return _run([*command, "-c", program], "what was set up does not run", variables).strip()


def _unpack_system(part: Path, say: Say) -> None:
    """Debian's packages for arm64 with all that they need, by this system's apt with a state of its own."""
    state = part / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True)
    (state / "status").touch()
    settings = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-q", *(word for key, value in settings.items() for word in ("-o", f"{key}={value}"))]
    say("fetching Debian's python3 for arm64")
    _run([*apt, "update"], "the list of packages for arm64 cannot be fetched")
    fetch = [*apt, "-y", "--no-install-recommends", "--download-only", "install", *_SYSTEM_PACKAGES]
    _run(fetch, "python3 for arm64 cannot be fetched")
    for package in sorted((state / "cache" / "archives").glob("*.deb")):
        _run(["dpkg", "-x", str(package), str(part / SYSTEM_NAME)], f"{package.name} cannot be unpacked")


def _unpack_wheels(part: Path, versions: dict[str, str], python: str, say: Say) -> None:
    """The wheels of the floor for Arm, in the versions that run here."""
    number = python.replace(".", "")
    wanted = [f"{name}=={version}" for name, version in versions.items()]
    platforms = [word for name in _WHEEL_PLATFORMS for word in ("--platform", f"{name}_aarch64")]
    abis = [word for abi in (f"cp{number}", "abi3", "none") for word in ("--abi", abi)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps"]
    pip += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python, *abis, *platforms]
    say(f"fetching {', '.join(wanted)}")
    _run([*pip, "--dest", str(part / "wheels"), *wanted], f"wheels for arm64 and Python {python} cannot be fetched")
    for wheel in sorted((part / "wheels").glob("*.whl")):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(part / SITE_NAME)


def _run(command: Sequence[str], failure: str, variables: dict[str, str] | None = None) -> str:
    """What a program prints.

    Raises:
        WorkError: it fails, with the last lines of what it said.
    """
    try:
        ended = subprocess.run(
            command, capture_output=True, check=False, timeout=_SECONDS, env={**os.environ, **(variables or {})}
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise WorkError(f"{failure[0].upper()}{failure[1:]}: {error}.") from error
    if ended.returncode != 0:
        lines = (ended.stderr or ended.stdout).decode(errors="replace").strip().splitlines()
        raise WorkError(
            f"{failure[0].upper()}{failure[1:]} ({Path(command[0]).name}, exit code {ended.returncode}): "
            + " ".join(lines[-3:])[:600],
            action="check the network and the system's package sources, and run the command again",
        )
    return ended.stdout.decode(errors="replace")
