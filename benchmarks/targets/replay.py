"""Answering rows as a processor of another class does: the packed bundle in a process of its own, emulated or not."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.benchmarks.targets.emulation import Prover
from edgetune.serve.answer_rows import INPUTS_NAME, OUTPUTS_NAME, RESULT_NAME, RowsResult

# An emulated processor takes a fifth of a second for a short text on MiniLM: minutes for as many as judge.
MOST_ROWS = 500
MOST_SECONDS = 600.0
# Beside other work a process waits; one that hangs must end.
_PATIENCE = 6
_MODULE = "edgetune.serve.answer_rows"


@dataclass(frozen=True)
class TargetRows:
    """Outputs of the first rows, (rows, ...) float32, and what the process said; `fault` where it gave no answer."""

    outputs: NDArray[np.float32]
    result: RowsResult
    fault: str = ""


def replay_rows(prover: Prover, bundle: Path, inputs: Sequence[Any], seconds: float = MOST_SECONDS) -> TargetRows:
    """Answer inputs by a bundle, one a run, in at most so many seconds of processor time, some beyond for the start.

    Args:
        prover: how answers of the class are found.
        bundle: its folder.
        inputs: as data sets have them.
        seconds: as many rows as they allow are answered.
    """
    with tempfile.TemporaryDirectory(prefix="edgetune-target-") as scratch:
        folder = Path(scratch)
        (folder / INPUTS_NAME).write_bytes(msgspec.json.encode(list(inputs)))
        command, variables = prover.start(folder / "root")
        command = [*command, "-m", _MODULE, str(bundle.absolute()), str(folder), str(seconds)]
        environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1", "OMP_NUM_THREADS": "1", **variables}
        try:
            process = subprocess.run(
                command, env=environment, capture_output=True, check=False, timeout=_PATIENCE * seconds + 600
            )
        except subprocess.TimeoutExpired:
            return _without(f"the process did not end within {_PATIENCE * seconds + 600:.0f} seconds")
        if process.returncode != 0 or not (folder / RESULT_NAME).is_file():
            return _without(f"the process ended by {_ending(process)}")
        result = msgspec.json.decode((folder / RESULT_NAME).read_bytes(), type=RowsResult)
        if not result.scheme:
            return _without(result.fault.rstrip("."))
        return TargetRows(np.load(folder / OUTPUTS_NAME), result, result.fault)


def _without(fault: str) -> TargetRows:
    return TargetRows(np.zeros((0, 0), dtype=np.float32), RowsResult(target="", scheme=""), fault)


def _ending(process: subprocess.CompletedProcess[bytes]) -> str:
    """A signal's number, or the exit code with the last line that is none of QEMU's warnings."""
    lines = [line for line in process.stderr.decode(errors="replace").splitlines() if ": warning: " not in line]
    code = process.returncode
    return f"{f'signal {-code}' if code < 0 else f'exit code {code}'}: {lines[-1][:300] if lines else 'without a word'}"
