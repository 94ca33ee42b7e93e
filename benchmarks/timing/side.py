"""One side of a race, in a fresh process: how it is started, asked and stopped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from edgetune.serve.bundle import Bundle
from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.json_types import JsonObject
from edgetune.tune.data.rows import Input


@dataclass(frozen=True)
class Side:
    """Who runs and how.

    Attributes:
        kind: "base" for a model folder in PyTorch, "bundle" for a bundle in its own runtime.
        folder: the model's or the bundle's.
        threads: of the side; None lets a bundle take the settings that were measured for it.
        spinning: None lets a bundle take its own.
        device: "cpu" or "cuda", of the base.
        tuned: the tuned model whose base it is: its task, head and longest input.
    """

    kind: Literal["base", "bundle"]
    folder: Path
    threads: int | None = None
    spinning: bool | None = None
    device: str = "cpu"
    tuned: Path | None = None

    @property
    def is_cascade(self) -> bool:
        """Whether a small model answers some of the inputs, in much less time than the others take."""
        return self.kind == "bundle" and Bundle.open(self.folder, verify=False).manifest.cascade is not None

    def command(self, first: Input) -> list[str]:
        """The command line of its process, which answers `first` and then what it is asked."""
        settings = {
            "threads": self.threads,
            "spinning": self.spinning,
            "device": self.device,
            "tuned": None if self.tuned is None else str(self.tuned),
            "first": first,
        }
        module = ["-m", "edgetune.benchmarks.timing.contestant"]
        return [sys.executable, *module, self.kind, str(self.folder), json.dumps(settings)]

    def environment(self) -> dict[str, str]:
        """What its process sees: the user's own settings, not those that edgetune trains with."""
        environment = dict(os.environ)
        for name in environment.pop("EDGETUNE_TRAINS_WITH", "").split():
            environment.pop(name, None)
        if self.threads is not None:
            environment["OMP_NUM_THREADS"] = str(self.threads)
        return environment | {"ORT_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}


class ContestantProcess:
    """A side in a process of its own; `cold_start_ms` is from its start to its first answer."""

    def __init__(self, side: Side, first: Input) -> None:
        start = time.perf_counter()
        self._process = subprocess.Popen(
            side.command(first),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=side.environment(),
        )
        self._side = side
        self._read()
        self.cold_start_ms = 1000 * (time.perf_counter() - start)

    @property
    def is_cascade(self) -> bool:
        """As `Side.is_cascade`."""
        return self._side.is_cascade

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    @property
    def threads(self) -> int:
        """Of the side; where it takes its own, the cores that it may use."""
        return self._side.threads or usable_cores()

    def ask(self, do: str, **arguments: Any) -> JsonObject:
        """Send one command and wait for its measurement."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._death() from None
        return self._read()

    def _read(self) -> JsonObject:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise self._death()
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _death(self) -> EdgetuneError:
        _, errors = self._process.communicate()
        reason = _last_words(errors) or f"exit code {self._process.returncode}"
        return EdgetuneError(f"The benchmark process of the {self._side.kind} {self._side.folder} ended: {reason}")

    def __enter__(self) -> ContestantProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()


def _last_words(errors: str) -> str:
    """The line that says what went wrong: the first one behind a traceback's frames, which stand indented."""
    lines = errors.strip().splitlines()
    behind = [number + 1 for number, line in enumerate(lines[:-1]) if line.startswith(" ")]
    return lines[behind[-1] if behind else -1] if lines else ""
