"""Which execution providers of ONNX Runtime really work here: each opens a session and multiplies a matrix.

That a wheel offers a provider says nothing: onnxruntime-gpu offers CUDA on every machine, and a session that
cannot have it falls back to the CPU silently. Must run in a base install: needs no onnx.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"

# y = x @ x for a 2 x 2 float matrix (opset 13, IR 8), as onnx.helper serializes it. A product, because that
# is what CUDA's libraries must be there for; onnx itself is no part of a base install.
SQUARE_GRAPH = (
    b'\x08\x08:@\n\x11\n\x01x\n\x01x\x12\x01y"\x06MatMul\x12\x01gZ\x13\n\x01x\x12\x0e\n\x0c\x08\x01\x12\x08'
    b"\n\x02\x08\x02\n\x02\x08\x02b\x13\n\x01y\x12\x0e\n\x0c\x08\x01\x12\x08\n\x02\x08\x02\n\x02\x08\x02B\x04"
    b"\n\x00\x10\r"
)


@dataclass(frozen=True)
class ProviderTrial:
    """Whether a provider answered a tiny graph rightly, and in one line why not."""

    works: bool
    reason: str | None


def try_providers(runtime: ModuleType) -> dict[str, ProviderTrial]:
    """A trial of each provider that the imported `onnxruntime` offers, by name."""
    return {name: _try_provider(runtime, name) for name in runtime.get_available_providers()}


def _try_provider(runtime: ModuleType, name: str) -> ProviderTrial:
    errors = _errors(runtime)
    with _silence() as noise:
        try:
            if name == CUDA and hasattr(runtime, "preload_dlls"):
                runtime.preload_dlls()  # finds the CUDA libraries that pip brought, beside torch or alone
            reason = _run_square(runtime, name)
        except errors as error:
            reason = str(error).strip()
    if reason is None:
        return ProviderTrial(works=True, reason=None)
    return ProviderTrial(works=False, reason=_in_one_line(reason, noise))


def _run_square(runtime: ModuleType, name: str) -> str | None:
    """Square a matrix on one provider; what is wrong with the session or its answer, or None."""
    import numpy as np

    options = runtime.SessionOptions()
    if name != CPU:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = runtime.InferenceSession(SQUARE_GRAPH, options, providers=[name], enable_fallback=False)
    taken = session.get_providers()[0]
    if taken != name:
        return f"the session fell back to {taken}"
    (answer,) = session.run(None, {"x": np.array([[1, 2], [3, 4]], dtype=np.float32)})
    return None if answer.tolist() == [[7, 10], [15, 22]] else f"it gave a wrong product: {answer.tolist()}"


def _errors(runtime: ModuleType) -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its own errors, which share no root but Exception, and two of Python's."""
    known = vars(runtime.capi.onnxruntime_pybind11_state).values()
    own = [value for value in known if isinstance(value, type) and issubclass(value, Exception)]
    return (*own, RuntimeError, ValueError)


def _in_one_line(error: str, noise: list[str]) -> str:
    """The cause, which stands in what native code wrote to stderr rather than in the error it raised."""
    if missing := re.search(r"Failed to load library \S+ with error: (.+)", "\n".join(noise)):
        return missing.group(1).strip()
    if "assigned to the default CPU EP" in error:
        return "it took no node of a plain graph"
    lines = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", error).splitlines()
    return lines[0] if lines else "it failed without a word"


@contextlib.contextmanager
def _silence() -> Iterator[list[str]]:
    """Keep native and Python output of both streams off the terminal; the list has its lines afterwards."""
    lines: list[str] = []
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {stream: os.dup(stream) for stream in (1, 2)}
    with tempfile.TemporaryFile() as file, contextlib.redirect_stdout(io.StringIO()):
        for stream in kept:
            os.dup2(file.fileno(), stream)
        try:
            yield lines
        finally:
            for stream, copy in kept.items():
                os.dup2(copy, stream)
                os.close(copy)
            file.seek(0)
            lines += file.read().decode("utf-8", "replace").splitlines()
