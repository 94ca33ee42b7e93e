"""What the layouts' tests share: a bundle, 200 texts with the answers that every layout must give, and environments of
their own for other people's servers, with the floor of edgetune in them from a wheel of this checkout.

`EDGETUNE_TEST_ENVS` names a folder that keeps the environments between runs, `EDGETUNE_TEST_BUNDLE` another bundle than
the tiny one, `EDGETUNE_DATA` the folder of public data sets whose texts are then asked.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from filelock import FileLock

from edgetune.serve.bundle import Bundle

ROOT = Path(__file__).parent.parent.parent.parent
GOLDEN = ROOT / "tests" / "golden" / "bundle-v1"
PACKED = ("edgetune", "serve", "tune", "compress", "export", "benchmarks")
TEXTS = 200
INSTALL_SECONDS = 3600

ServerEnvironment = Callable[[str, Sequence[str]], Path]
RunServer = Callable[..., subprocess.Popen[str]]


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    """The bundle that the layouts are made of: never to be changed in place."""
    return Bundle.open(Path(os.environ.get("EDGETUNE_TEST_BUNDLE", GOLDEN)))


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """200 unlike texts, banking77's where the data folder is there, the demo's elsewhere; the last is far too long."""
    data = os.environ.get("EDGETUNE_DATA")
    path = Path(data, "text_en", "banking77", "test.csv") if data else ROOT / "examples" / "support_intents.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        found = dict.fromkeys(row["text"] for row in csv.DictReader(stream))
    # Evenly from the whole file, which may be sorted by label.
    chosen = list(found)[:: len(found) // TEXTS][:TEXTS]
    assert len(chosen) == TEXTS
    # A server that cuts it elsewhere than edgetune, or not at all, would go unseen on short texts.
    return [*chosen[:-1], " ".join(chosen)]


@pytest.fixture(scope="session")
def answers(bundle: Bundle, texts: list[str]) -> list[str]:
    """The label of each text by edgetune's own predictor, one text a call: int8 scales are taken over the batch."""
    from edgetune.serve import load

    # Of a bundle with several graphs, layouts have the main one.
    predictor = load(bundle.folder, threads=1, variant=bundle.manifest.scheme)
    labels = [predictor.predict_one(text).label for text in texts]
    assert len(set(labels)) > 1  # or a server that always says the same would pass
    return labels


@pytest.fixture(scope="session")
def server_environment(tmp_path_factory: pytest.TempPathFactory) -> ServerEnvironment:
    """`server_environment("mlserver", ["mlserver==1.7.1"])` is the Python of an environment with those packages and
    `edgetune[cpu]` as it stands in this checkout. Made at the first call and kept; edgetune is renewed when it changed.
    """
    kept = os.environ.get("EDGETUNE_TEST_ENVS")
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = Path(kept) if kept else shared / "environments"
    folder.mkdir(parents=True, exist_ok=True)

    def make(name: str, requirements: Sequence[str]) -> Path:
        wanted = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:12]
        environment = folder / f"{name}-{wanted}"
        with FileLock(f"{environment}.lock", timeout=INSTALL_SECONDS):
            return _environment(environment, requirements, folder)

    return make


def _environment(environment: Path, requirements: Sequence[str], folder: Path) -> Path:
    python = environment / ("Scripts" if os.name == "nt" else "bin") / "python"
    whole, installed = environment / "whole", environment / "edgetune.sha256"
    sources = _sources_digest()
    if whole.is_file() and installed.is_file() and installed.read_text() == sources:
        return python
    with FileLock(folder / "wheel.lock", timeout=INSTALL_SECONDS):
        wheel = _wheel(folder / f"wheel-{sources[:12]}")
    if not whole.is_file():
        shutil.rmtree(environment, ignore_errors=True)
        venv.create(environment, with_pip=True)
        _succeed([python, "-m", "pip", "install", "--quiet", *requirements, f"{wheel}[cpu]"])
        whole.touch()
    else:
        _succeed([python, "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheel])
    installed.write_text(sources)
    return python


def _source_files() -> list[Path]:
    files = (path for name in PACKED for path in (ROOT / name).rglob("*") if path.is_file())
    shipped = (path for path in files if not {"__pycache__", "peers"} & set(path.parts))
    return [ROOT / "pyproject.toml", *sorted(shipped)]


def _sources_digest() -> str:
    digest = hashlib.sha256()
    for path in _source_files():
        digest.update(path.relative_to(ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _wheel(folder: Path) -> Path:
    """A wheel of the checkout, built from a copy, since setuptools leaves a build folder where it works."""
    found = next(folder.glob("*.whl"), None)
    if found:
        return found
    source = folder / "source"
    shutil.rmtree(folder, ignore_errors=True)
    for path in (*_source_files(), ROOT / "README.md", ROOT / "LICENSE"):
        target = source / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    _succeed([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, source])
    return next(folder.glob("*.whl"))


def clean_environment(**more: str) -> dict[str, str]:
    """The variables for a process of another environment: nothing of this one's Python."""
    dropped = ("PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return {**kept, **more}


def _succeed(command: Sequence[str | Path]) -> None:
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=INSTALL_SECONDS,
        env=clean_environment(),
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def free_port() -> Callable[[], int]:
    """Calling it gives a TCP port of 127.0.0.1 that nobody listens on, another one each time."""
    given: set[int] = set()

    def port() -> int:
        for _ in range(20):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                number: int = probe.getsockname()[1]
            if number not in given:
                given.add(number)
                return number
        raise AssertionError("no free port")

    return port


@pytest.fixture
def run_server(tmp_path: Path) -> Iterator[RunServer]:
    """`run_server(command, ready_url, cwd=..., seconds=120, **variables)` starts a server and returns its process when
    `ready_url` answers 200; a server that ends before or takes longer fails the test with its output. All are stopped
    when the test ends.
    """
    running: list[subprocess.Popen[str]] = []
    numbers = itertools.count()

    def run(
        command: Sequence[str | Path], ready_url: str, *, cwd: Path, seconds: float = 120, **variables: str
    ) -> subprocess.Popen[str]:
        log = tmp_path / f"server-{next(numbers)}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                env=clean_environment(**variables),
                start_new_session=True,  # a server's own workers go with it, below
            )
        running.append(process)
        _wait(process, ready_url, seconds, log)
        return process

    yield run
    for process in running:
        _stop(process)


def _wait(process: subprocess.Popen[str], url: str, seconds: float, log: Path) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"{process.args} did not get ready (exit code {process.poll()}):\n{log.read_text()[-4000:]}")


def _stop(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=15)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def run_in(python: Path, code: str, *arguments: object, cwd: Path, seconds: float = 300, **variables: str) -> str:
    """Standard output of `code` run by another environment's Python; it must succeed within `seconds`."""
    done = subprocess.run(
        [str(python), "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=seconds,
        cwd=cwd,
        env=clean_environment(**variables),
    )
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def python_output() -> Callable[..., str]:
    """`python_output(python, code, *arguments, cwd=..., seconds=300, **variables)`: see `run_in`."""
    return run_in
