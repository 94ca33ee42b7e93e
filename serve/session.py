"""One ONNX Runtime session, opened as a bundle needs it: telemetry off, threads bounded, no silent fall-back."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import sys

# ONNX Runtime's Linux wheel reports home when a session opens; only the environment, set before the first
# import, stops it (disable_telemetry_events() after it does not).
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import BundleDamaged, InputError, MissingDependency, ProviderError, RunError
from edgetune.serve.processor import flags
from edgetune.serve.targets import architecture, sums_saturate

if TYPE_CHECKING:
    from types import ModuleType

    import onnxruntime

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def import_runtime() -> ModuleType:
    """ONNX Runtime, with its telemetry off.

    Raises:
        MissingDependency: none is installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise _no_runtime() from error
    runtime: ModuleType = onnxruntime
    return runtime


def require_runtime() -> None:
    """Look for ONNX Runtime without importing it: what needs it later should not find out then.

    Raises:
        MissingDependency: none is installed.
    """
    if "onnxruntime" not in sys.modules and importlib.util.find_spec("onnxruntime") is None:
        raise _no_runtime()


def _no_runtime() -> MissingDependency:
    return MissingDependency(
        "ONNX Runtime is not installed.",
        action="pip install 'edgetune[cpu]', or 'edgetune[gpu]' on a machine with an NVIDIA GPU",
    )


def provider_is_built_in(provider: str) -> bool:
    """Whether the installed ONNX Runtime has a provider at all; whether it runs here shows when a session opens."""
    return PROVIDERS.get(provider) in import_runtime().get_available_providers()


def open_session(
    graph: Path,
    *,
    provider: str,
    threads: int | None = None,
    spinning: bool = True,
    varying: bool = False,
    record_placement: bool = False,
) -> onnxruntime.InferenceSession:
    """Open `graph` for answering.

    Args:
        graph: the ONNX file.
        provider: "cpu" or "cuda".
        threads: of one run; None takes the cores that this process may use (affinity and cgroup, not the host).
        spinning: whether threads wait awake for the next node: faster, at the cost of processor time.
        varying: whether hardly two runs have the same shapes, as those of a growing cache: then no memory plan is kept
            for each of them, and what a run frees goes back.
        record_placement: keep which provider got which node, for `placement`.

    Raises:
        MissingDependency: no ONNX Runtime is installed.
        InputError: fewer than one thread was asked for.
        ProviderError: the provider does not run here; ONNX Runtime's own silent fall-back is refused.
        BundleDamaged: the file is no graph that ONNX Runtime can open.
    """
    if provider not in PROVIDERS:
        raise ProviderError(f"There is no provider {provider!r}.", expected=" or ".join(PROVIDERS))
    if threads is not None and threads < 1:
        raise InputError(f"The number of threads is {threads}.", expected="1 or more, or None for all usable cores")
    runtime = import_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads or usable_cores()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not spinning:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if sums_saturate(flags(), architecture()):
        # Products in 16 bits, whose sums fit: the answers of VNNI to the last bit, at 1.7 times the cost.
        options.add_session_config_entry("session.x64quantprecision", "1")
    if varying:
        options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    if provider != "cpu":
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    if record_placement:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    provider_name = PROVIDERS[provider]
    if provider_name not in runtime.get_available_providers():
        raise _no_provider(provider, f"ONNX Runtime {runtime.__version__} was built without it")
    complaint = _preload_cuda(runtime) if provider == "cuda" else ""
    try:
        session = runtime.InferenceSession(str(graph), options, providers=[provider_name])
    except session_errors() as error:
        if provider == "cpu":
            raise BundleDamaged(f"ONNX Runtime cannot open {graph}: {error}") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise _no_provider(provider, f"{reason} (before that: {complaint})" if complaint else reason) from error
    if session.get_providers()[0] != provider_name:
        raise _no_provider(provider, f"the session fell back to {session.get_providers()[0]}")
    return session


def _preload_cuda(runtime: ModuleType) -> str:
    """Find the CUDA libraries that pip brought (by itself ONNX Runtime sees the system's only); what it missed first.

    It prints its complaints on stdout, where a caller may be writing its answers.
    """
    with contextlib.redirect_stdout(io.StringIO()) as output:
        runtime.preload_dlls()
    return output.getvalue().partition("\n")[0]


def session_errors() -> tuple[type[Exception], ...]:
    """What opening a session and running it raise; ONNX Runtime's types derive straight from Exception."""
    state = import_runtime().capi.onnxruntime_pybind11_state
    names = (
        "EPFail",
        "EngineError",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    return (RuntimeError, MemoryError, *(getattr(state, name) for name in names))


def run_error(graph: str, error: Exception) -> RunError:
    """What a failed run of a graph becomes: the first line of what ONNX Runtime says, which may be pages."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:500]
    return RunError(
        f"ONNX Runtime failed on a run of {graph}: {reason}",
        expected="a graph that answers inputs of every length up to max_tokens",
        action="give fewer or shorter inputs; if that changes nothing, build the bundle again",
    )


def _no_provider(provider: str, reason: str) -> ProviderError:
    return ProviderError(
        f"The provider {provider!r} does not run here: {reason}.",
        action="choose --provider cpu, or see `edgetune doctor` for what this machine has",
    )


def placement(session: onnxruntime.InferenceSession) -> dict[str, int]:
    """How many nodes each provider really got, of a session opened with `record_placement`."""
    counts: dict[str, int] = {}
    for part in session.get_provider_graph_assignment_info():
        counts[part.ep_name] = counts.get(part.ep_name, 0) + len(part.get_nodes())
    return counts
