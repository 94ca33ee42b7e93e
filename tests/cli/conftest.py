"""The command line inside the test's own process, and one finished build that tests copy instead of building again.

A fresh process spends seconds on importing torch, so only what needs one (signals, a clean stdout) starts one.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

from tests.cli.here import Command, Ended, keep_environment, run_here

# The shortest benchmark that a recipe may ask for.
QUICK = (
    *("--set", "benchmark.samples=40", "--set", "benchmark.grid=false", "--set", "benchmark.cold_starts=1"),
    *("--device", "cpu"),
    *("--set", "compress.schemes=[fused,int8_dynamic]", "--set", "gate.max_drop=0.14"),  # 15 rows: two may turn
)
LONG_TEXTS = 2


@dataclass(frozen=True)
class Workshop:
    """A folder with a tiny base, data, and a whole build of them: `bundle` and `bundle.work`."""

    folder: Path
    arguments: tuple[str, ...]
    out: str

    @property
    def base(self) -> Path:
        """The tiny checkpoint."""
        return self.folder / "base"

    @property
    def data(self) -> Path:
        """The labelled texts."""
        return self.folder / "toy.csv"

    def copy(self, target: Path) -> tuple[str, ...]:
        """Copy bundle and work folder into `target`; returns the arguments that build there again."""
        for name in ("bundle", "bundle.work"):
            shutil.copytree(self.folder / name, target / name, copy_function=shutil.copy2)
        return self.there(target)

    def there(self, target: Path) -> tuple[str, ...]:
        """The arguments of the finished build with an output in another folder."""
        return (*self.arguments, "--out", str(target / "bundle"))


@pytest.fixture
def edgetune(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """`edgetune("build", ..., stdin="")` runs the command line as the console script does."""
    return _command(monkeypatch, capfd)


def _command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    from edgetune.cli import main

    keep_environment(monkeypatch)

    def run(*arguments: object, stdin: str | bytes = "") -> Ended:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["edgetune", *map(str, arguments)])
        standard_input = io.BufferedReader(io.BytesIO(stdin if isinstance(stdin, bytes) else stdin.encode()))
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(standard_input, encoding="utf-8"))
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        return Ended(code, out, err)

    return run


def start(*arguments: object, driver: str = "from edgetune.cli import main; main()") -> subprocess.Popen[str]:
    """The command line in a process of its own; `driver` is the code that runs it."""
    return subprocess.Popen(
        [sys.executable, "-c", driver, *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """`start`, with a bound on its time; what still runs when the test ends is killed."""
    running: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def run(*arguments: object, **options: str) -> subprocess.Popen[str]:
        process = start(*arguments, **options)
        timer = threading.Timer(240, process.kill)
        timer.start()
        running.append((process, timer))
        return process

    yield run
    for process, timer in running:
        timer.cancel()
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory, tiny_base: Callable[[str], Path], toy_csv: Path) -> Workshop:
    """A whole build by the probe, made once for all workers."""
    root = tmp_path_factory.getbasetemp()
    shared = root.parent if os.environ.get("PYTEST_XDIST_WORKER") else root
    folder = shared / "workshop"
    arguments = (
        *("--base", str(folder / "base"), "--data", str(folder / "toy.csv"), "--method", "probe"),
        *("--set", "data.text=text", "--set", "data.label=label"),
        *QUICK,
    )
    with FileLock(shared / "workshop.lock"):
        if not (folder / "built").is_file():
            shutil.copytree(tiny_base("bert"), folder / "base")
            long = "".join(f'"card {number} {"again " * 200}",card\n' for number in range(LONG_TEXTS))
            (folder / "toy.csv").write_text(toy_csv.read_text(encoding="utf-8") + long, encoding="utf-8")
            ended = run_here("build", *arguments, "--out", folder / "bundle")
            assert ended.code == 0, ended
            (folder / "built").write_text(ended.out, encoding="utf-8")
    return Workshop(folder, arguments, (folder / "built").read_text(encoding="utf-8"))


@pytest.fixture
def cut() -> Callable[[Path, str], None]:
    """`cut(work, last)` makes the work folder one that went as far as the stage `last`."""
    stages = ["data", "tune", "export", "compress", "bench"]

    def shorten(work: Path, last: str) -> None:
        gone = stages[stages.index(last) + 1 :]
        path = work / "stages.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        path.write_text(json.dumps({name: record[name] for name in record if name not in gone}), encoding="utf-8")
        for name in gone:
            shutil.rmtree(work / name)

    return shorten
