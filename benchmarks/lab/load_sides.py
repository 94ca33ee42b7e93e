"""The servers of the load benchmark: how each is started, asked and read, and how much memory its processes take.

Ours is `edgetune serve`; the others are what a user would write or pick (benchmarks/peers/serving/), with the PyTorch
model and, server against server, with our own predictor inside.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgetune.serve.errors import WorkError

_PROC = Path("/proc")
_START_SECONDS = 180.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class LoadSide:
    """One server of the race.

    `command` starts it on `port`; `ready` is answered with 200 once it answers; `path` takes a POST of `body(text)`,
    and `label` reads the best label out of what comes back.
    """

    name: str
    command: Callable[[int], list[str]]
    ready: str
    path: str
    body: Callable[[str], str]
    label: Callable[[str], str]
    environ: Callable[[int], dict[str, str]] = field(default=lambda port: {})


@dataclass
class Running:
    """A started server; `peak_bytes` and `resident_bytes` are of all its processes together."""

    port: int
    pid: int
    peak_bytes: int = 0
    resident: list[int] = field(default_factory=list)


def ours(name: str, bundle: Path, *arguments: str) -> LoadSide:
    """`edgetune serve` of one bundle, asked by its plain route."""
    start = [sys.executable, "-m", "edgetune", "serve", f"model={bundle}", "--no-access-log", *arguments]
    return LoadSide(
        name=name,
        command=lambda port: [*start, "--port", str(port)],
        ready="/v2/health/ready",
        path="/v1/classify",
        body=_text,
        label=lambda answer: str(json.loads(answer)["predictions"][0]["label"]),
    )


def fastapi_pipeline(scripts: Path, python: Path, model: Path) -> LoadSide:
    """FastAPI with `transformers.pipeline`."""
    start = [str(python), "-m", "uvicorn", "--app-dir", str(scripts), "fastapi_pipeline:app", "--no-access-log"]
    return LoadSide(
        name="FastAPI, transformers.pipeline",
        command=lambda port: [*start, "--port", str(port)],
        ready="/health",
        path="/classify",
        body=_text,
        label=_plain_label,
        environ=lambda port: {"MODEL": str(model)},
    )


def litserve_torch(scripts: Path, python: Path, model: Path) -> LoadSide:
    """LitServe batching the PyTorch model."""
    return LoadSide(
        name="LitServe, PyTorch",
        command=lambda port: [str(python), str(scripts / "litserve_torch.py"), str(port)],
        ready="/health",
        path="/predict",
        body=_text,
        label=_plain_label,
        environ=lambda port: {"MODEL": str(model)},
    )


def litserve_bundle(python: Path, packed: Path) -> LoadSide:
    """LitServe around our predictor, as `edgetune pack --layout litserve` writes it."""
    return LoadSide(
        name="LitServe, our predictor",
        command=lambda port: [str(python), str(packed / "server.py"), "--port", str(port)],
        ready="/health",
        path="/predict",
        body=_text,
        label=_plain_label,
    )


def mlserver(name: str, python: Path, repository: Path, model: str, read: Callable[[str], str]) -> LoadSide:
    """MLServer on a model repository, asked by the Open Inference Protocol."""
    return LoadSide(
        name=name,
        command=lambda port: [str(python.with_name("mlserver")), "start", str(repository)],
        ready=f"/v2/models/{model}/ready",
        path=f"/v2/models/{model}/infer",
        body=_infer,
        label=read,
        environ=_mlserver_ports,
    )


def label_output(answer: str) -> str:
    """The label of our runtime in MLServer: the output of that name."""
    return next(str(one["data"][0]) for one in json.loads(answer)["outputs"] if one["name"] == "label")


def hugging_face_output(answer: str) -> str:
    """The label of MLServer's Hugging Face runtime: a JSON document in its only output."""
    return str(json.loads(json.loads(answer)["outputs"][0]["data"][0])["label"])


def write_hugging_face_repository(folder: Path, model: Path, name: str) -> None:
    """Settings of MLServer's Hugging Face runtime for a model folder, with its adaptive batching switched on."""
    folder.mkdir(parents=True, exist_ok=True)
    extra = {"task": "text-classification", "pretrained_model": str(model), "framework": "pt"}
    settings = {
        "name": name,
        "implementation": "mlserver_huggingface.HuggingFaceRuntime",
        "max_batch_size": 32,
        "max_batch_time": 0.005,
        "parameters": {"extra": extra},
    }
    (folder / "model-settings.json").write_text(json.dumps(settings, indent=2), encoding="utf-8")
    (folder / "settings.json").write_text(json.dumps({"parallel_workers": 0}, indent=2), encoding="utf-8")


def _text(text: str) -> str:
    return json.dumps({"text": text})


def _infer(text: str) -> str:
    # Adaptive batching joins tensors of one name; the Hugging Face runtime hands this one to the pipeline as it is.
    tensor = {
        "name": "inputs",
        "shape": [1, 1],
        "datatype": "BYTES",
        "data": [text],
        "parameters": {"content_type": "str"},
    }
    return json.dumps({"inputs": [tensor]})


def _plain_label(answer: str) -> str:
    return str(json.loads(answer)["label"])


def _mlserver_ports(port: int) -> dict[str, str]:
    return {
        "MLSERVER_DEBUG": "false",  # no line of log for each request, as with the other servers
        "MLSERVER_HOST": "127.0.0.1",
        "MLSERVER_HTTP_PORT": str(port),
        "MLSERVER_GRPC_PORT": str(free_port()),
        "MLSERVER_METRICS_PORT": str(free_port()),
    }


def free_port() -> int:
    """A port of the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(side: LoadSide, log: Path) -> Iterator[Running]:
    """Start a server, wait until it answers, watch its memory, and stop it.

    Raises:
        WorkError: it ended, or did not answer in time; the message has the end of its log.
    """
    port = free_port()
    environ = os.environ | {"ORT_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"} | side.environ(port)
    with log.open("wb") as stream:
        process = subprocess.Popen(
            side.command(port),
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environ,
            start_new_session=True,
        )
        running, done = Running(port, process.pid), threading.Event()
        watch = threading.Thread(target=_watch, args=(running, done), daemon=True)
        try:
            _wait_until_ready(side, port, process, log)
            watch.start()
            yield running
        finally:
            done.set()
            _stop(process)


def _wait_until_ready(side: LoadSide, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + _START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{side.ready}", timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    tail = log.read_text(encoding="utf-8", errors="replace")[-2_000:]
    raise WorkError(f"{side.name} did not start: {tail}", expected=f"200 at {side.ready}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    # What it started may outlive it: the whole session goes.
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait(_STOP_SECONDS)


def _watch(running: Running, done: threading.Event) -> None:
    while not done.wait(0.5):
        now = resident_bytes(running.pid)
        running.resident.append(now)
        running.peak_bytes = max(running.peak_bytes, now)


def resident_bytes(pid: int) -> int:
    """Memory of a process and all below it, shared pages counted once (PSS); 0 where the kernel does not tell."""
    total = 0
    for one in (pid, *_descendants(pid)):
        try:
            lines = (_PROC / str(one) / "smaps_rollup").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue  # it has ended since
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def _descendants(pid: int) -> list[int]:
    parents: dict[int, list[int]] = {}
    for stat in _PROC.glob("[0-9]*/stat"):
        try:
            # The name, in parentheses, may hold spaces; the parent is the second word behind it.
            parent = int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
        except OSError:
            continue
        parents.setdefault(parent, []).append(int(stat.parent.name))
    found, left = [], [pid]
    while left:
        below = parents.get(left.pop(), [])
        found += below
        left += below
    return found
