"""Proving a bundle in a process of its own, with bounds of time and memory: a graph, a tokenizer or a chat template may
run for ever or ask for more memory than there is, and only a process can be stopped wherever it is.

`python -m edgetune.serve.proving` is that process. The parent imports neither numpy nor ONNX Runtime here.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from edgetune.serve import errors
from edgetune.serve.bundle import NOT_JSON, Bundle
from edgetune.serve.codecs import takes_files
from edgetune.serve.errors import BundleDamaged, BundleError, EdgetuneError
from edgetune.serve.replay import Replay

# A small bundle is proven in a second or two; large ones are read from slow disks first.
LEAST_SECONDS = 120.0
BYTES_A_SECOND = 16 * 2**20
# What a sound bundle takes is its weights a few times, and what its longest input needs.
LEAST_MEMORY_BYTES = 4 * 2**30
MEMORY_A_BYTE = 8

_LOOK_SECONDS = 0.02


class Proof(msgspec.Struct, frozen=True):
    """What was proven: the golden answers of each graph by scheme, which graph answers here, and why."""

    replays: dict[str, Replay]
    variant: str
    reason: str = ""


class Task(msgspec.Struct, frozen=True):
    """What the process is to prove: arguments as for `prove`."""

    folder: str
    provider: str
    all_variants: bool


class _Fault(msgspec.Struct, frozen=True):
    """An error on its way to the parent, by the name of its class."""

    kind: str
    found: str
    expected: str = ""
    action: str = ""
    cost: str = ""


class _Outcome(msgspec.Struct, frozen=True):
    proof: Proof | None = None
    fault: _Fault | None = None


def prove(
    bundle: Bundle,
    *,
    provider: str = "auto",
    all_variants: bool = True,
    seconds: float | None = None,
    leaving: threading.Event | None = None,
) -> Proof:
    """Replay a bundle's golden answers, run its longest input and render a chat, all within bounds.

    Args:
        bundle: its files are those that were packed.
        provider: as for `load`.
        all_variants: replay each graph of the provider, and not only the one that answers here.
        seconds: at most; None takes two minutes and a second for each 16 MiB.
        leaving: set where nobody waits for the proof any more.

    Raises:
        EdgetuneError: whatever opening the graph and replaying raise; BundleError where a bound was reached or the
            process died.
    """
    bound = LEAST_SECONDS + bundle.size_bytes / BYTES_A_SECOND if seconds is None else seconds
    task = msgspec.json.encode(Task(str(bundle.folder.absolute()), provider, all_variants)).decode()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "edgetune.serve.proving", task, str(bound)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    with process:
        answer: list[bytes] = []
        reader = threading.Thread(target=lambda: answer.append(_read_all(process)), daemon=True)
        reader.start()
        try:
            fault = _watch(process, bundle, bound, leaving)
        finally:
            process.kill()
        reader.join()
    if fault is not None:
        raise fault
    return _proof(bundle.folder, process.returncode, b"".join(answer))


def _read_all(process: subprocess.Popen[bytes]) -> bytes:
    return process.stdout.read() if process.stdout else b""


def _watch(
    process: subprocess.Popen[bytes], bundle: Bundle, seconds: float, leaving: threading.Event | None
) -> EdgetuneError | None:
    """Wait for the process to end; why it must not go on, where a bound was reached first."""
    deadline = time.monotonic() + seconds
    most = LEAST_MEMORY_BYTES + MEMORY_A_BYTE * bundle.size_bytes
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_SECONDS)
            return None
        if leaving is not None and leaving.is_set():
            return BundleError(f"{bundle.folder} was not proven: the server is on its way out.")
        if _resident_bytes(process.pid) > most:
            return BundleError(
                f"{bundle.folder} takes more than {most / 2**30:.1f} GiB of memory while it is proven.",
                expected=f"at most 4 GiB and {MEMORY_A_BYTE} times the size of its files",
                action="do not use the bundle; build it again from a base that you trust",
            )
        if time.monotonic() > deadline:
            return BundleError(
                f"{bundle.folder} was not proven within {seconds:.0f} seconds.",
                expected="golden answers, a longest input and a chat that end in that time",
                action="allow more by --prove-seconds on a slow machine; elsewhere do not use the bundle",
            )


def _resident_bytes(pid: int) -> int:
    """Memory of a process that is really there; 0 where the system does not say."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _proof(folder: Path, code: int, content: bytes) -> Proof:
    try:
        outcome = msgspec.json.decode(content, type=_Outcome)
    except NOT_JSON:
        outcome = _Outcome()
    if outcome.proof is not None:
        return outcome.proof
    if outcome.fault is None:
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        raise BundleError(
            f"{folder} does not run here: the process that proved it ended by {ended}.",
            expected="a graph and a tokenizer that ONNX Runtime and tokenizers can run",
            action="do not use the bundle; where memory is short, free some",
        )
    fault = outcome.fault
    kind = getattr(errors, fault.kind, None)
    if isinstance(kind, type) and issubclass(kind, EdgetuneError):
        raise kind(fault.found, expected=fault.expected, action=fault.action, cost=fault.cost)
    raise BundleDamaged(f"{folder} does not run here: {fault.found}")


def main() -> None:
    """The process: prove what the first argument says, for at most so many seconds as the second does."""
    task = msgspec.json.decode(sys.argv[1], type=Task)
    output = os.dup(1)
    os.dup2(2, 1)  # whatever a library prints is no part of the answer
    _end_with_the_parent(float(sys.argv[2]))
    outcome: _Outcome
    try:
        outcome = _Outcome(proof=_prove(task))
    except EdgetuneError as error:
        fault = _Fault(type(error).__name__, error.found, error.expected, error.action, error.cost)
        outcome = _Outcome(fault=fault)
    except Exception as error:  # noqa: BLE001 (whatever a bundle makes a library raise is the bundle's fault)
        outcome = _Outcome(fault=_Fault("", f"{type(error).__name__}: {error}"[:2000]))
    with os.fdopen(output, "wb") as stream:
        stream.write(msgspec.json.encode(outcome))
    os._exit(0)  # threads of a graph that is stuck would keep the process


def _end_with_the_parent(seconds: float) -> None:
    """End when the parent has gone, or when more time was computed than there is; and first where memory ends."""

    def wait() -> None:
        sys.stdin.buffer.read()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        bound = int(seconds + 1) * (os.cpu_count() or 1)
        resource.setrlimit(resource.RLIMIT_CPU, (bound, bound))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        Path("/proc/self/oom_score_adj").write_text("1000", "ascii")


def _prove(task: Task) -> Proof:
    bundle = Bundle.open(task.folder, verify=False)
    manifest = bundle.manifest
    if manifest.generation is not None:
        return _prove_generator(bundle, manifest.provider if task.provider == "auto" else task.provider)
    return _prove_predictor(bundle, task)


def _prove_predictor(bundle: Bundle, task: Task) -> Proof:
    from edgetune.serve.golden import replay_all, replay_golden
    from edgetune.serve.loading import load

    folder, manifest = bundle.folder, bundle.manifest
    predictor = load(folder, provider=task.provider, verify=False, eager=True)
    replays = replay_all(predictor)
    (longest,) = predictor.codec.samples([manifest.max_tokens])
    predictor.logits([longest])
    predictor.run(predictor.feed([longest]))  # which a small model may have answered
    if not takes_files(manifest.codec):
        parts, text = predictor.codec.parts, long_text(manifest.max_tokens)
        predictor.encode([text if len(parts) == 1 else (text,) * len(parts)])
    for variant in manifest.variants if task.all_variants else []:
        if variant.scheme not in replays and variant.provider == manifest.provider:
            replays[variant.scheme] = replay_golden(load(folder, variant=variant.scheme, verify=False))
    small, reason = predictor.small, predictor.variant_reason
    return Proof(replays, predictor.variant, f"{small.scheme} where it is sure, then {reason}" if small else reason)


def _prove_generator(bundle: Bundle, provider: str) -> Proof:
    from edgetune.serve.stepwise.generator import Generator
    from edgetune.serve.stepwise.golden import read_golden, replay

    generator = Generator.open(bundle.folder, provider=provider, verify=False)
    scheme = bundle.manifest.scheme
    replays = {scheme: replay(generator, read_golden(bundle))}
    generator.codec.encode(long_text(generator.decoder.spec.context_tokens))
    if generator.template is not None:
        generator.template.prove()
    return Proof(replays, scheme)


def long_text(tokens: int) -> str:
    """A text of every printable character of ASCII and some beyond it, longer than a model of so many tokens reads."""
    characters = "".join(map(chr, range(32, 127))) + " the quick brown fox jumps over the lazy dog \té中😀"
    most = min(max(32 * tokens, 4096), 2**16)
    return (characters * (most // len(characters) + 1))[:most]


if __name__ == "__main__":
    main()
