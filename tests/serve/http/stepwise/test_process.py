"""`edgetune serve` of a language model as a process: ready when it was proven, and gone when it has answered."""

from __future__ import annotations

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest

COMMAND = "from edgetune.cli import main; main()"
# Each run of the graph takes a moment longer, so that an answer lasts.
SLOWED = """
import time
from edgetune.serve.stepwise.decoder import Decoder
run = Decoder.run
def slower(*given):
    time.sleep(0.05)
    return run(*given)
Decoder.run = slower
"""


@dataclass
class Process:
    process: subprocess.Popen[str]
    started: dict[str, Any]
    log: Path

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.started["url"] + "/v1", api_key="none", max_retries=0, timeout=60)


@pytest.fixture
def run_process(tiny_bundle: Path, tmp_path: Path) -> Iterator[Any]:
    """`run_process("--grace-seconds", 3)` starts a slowed server of the tiny bundle and waits until it is ready."""
    running: list[tuple[subprocess.Popen[str], threading.Timer]] = []

    def run(*options: object, bundle: Path = tiny_bundle) -> Process:
        given = ["serve", bundle, "--port", 0, "--json", "--lone-threads", 1, "--watch-seconds", 0, *options]
        log = tmp_path / "log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-c", SLOWED + COMMAND, *map(str, given)],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stream, text=True, encoding="utf-8",
            )  # fmt: skip
        timer = threading.Timer(120, process.kill)
        timer.start()
        running.append((process, timer))
        assert process.stdout is not None
        printed = ""
        while not printed.endswith("\n}\n") and (line := process.stdout.readline()):
            printed += line
        return Process(process, json.loads(printed) if printed else {}, log)

    yield run
    for process, timer in running:
        timer.cancel()
        process.kill()
        process.communicate()


def test_a_stream_is_finished_before_the_process_ends(run_process):
    """The times of other requests, which are shorter, do not hold for it."""
    server = run_process("--grace-seconds", 15, "--request-seconds", 0.2, "--read-seconds", 1)
    assert server.started["models"] == {"tiny": "1"}
    assert server.started["providers"] == {"tiny": ["CPUExecutionProvider"]}
    with server.client() as client:
        events = client.completions.create(model="tiny", prompt="card", max_tokens=40, temperature=0, stream=True)
        told = [next(events)]
        server.process.send_signal(signal.SIGTERM)
        told += events
    assert told[-1].choices[0].finish_reason == "length"
    assert server.process.wait(60) == 0
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    assert [(line["path"], line["status"], line["model"]) for line in lines] == [("/v1/completions", 200, "tiny")]


def test_what_takes_longer_than_the_grace_is_cut_off(run_process):
    server = run_process("--grace-seconds", 0.5)
    with server.client() as client:
        events = client.completions.create(model="tiny", prompt="card", max_tokens=250, temperature=0, stream=True)
        next(events)
        signalled = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(openai.APIConnectionError):
            list(events)
    assert server.process.wait(60) == 0
    assert time.monotonic() - signalled < 10  # the whole answer would take more


# What reads a prompt of this model never comes back, and holds the lock of the interpreter now and then only.
STUCK = """
import time
from edgetune.serve.stepwise.codec import TokenCodec
encode = TokenCodec.encode
def stuck(self, text, **named):
    while "stuck" in text:
        time.sleep(0.01)
    return encode(self, text, **named)
TokenCodec.encode = stuck
"""


def test_a_thread_that_is_stuck_does_not_keep_the_process(run_process, monkeypatch):
    monkeypatch.setitem(globals(), "SLOWED", STUCK)
    server = run_process("--grace-seconds", 1)
    with server.client() as client, ThreadPoolExecutor(1) as callers:
        asked = callers.submit(client.completions.create, model="tiny", prompt="stuck", max_tokens=4)
        # Its line in the metrics says that it has arrived.
        while "edgetune_requests_running 1.0" not in httpx.get(server.started["url"] + "/metrics").text:
            time.sleep(0.05)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        with pytest.raises(openai.APIError):
            asked.result(60)
    assert "threads were still at work 3 seconds after the signal to leave" in server.log.read_text()


@pytest.mark.parametrize("spoiled", ["golden", "tokenizer"])
def test_a_bundle_that_answers_otherwise_is_not_served(run_process, tiny_bundle, tmp_path, spoiled):
    bundle = tmp_path / "tiny"
    shutil.copytree(tiny_bundle, bundle)
    manifest = msgspec.json.decode((bundle / "manifest.json").read_bytes())
    if spoiled == "golden":
        golden = msgspec.json.decode((bundle / "golden.json").read_bytes())
        golden["cases"][0]["top"][0][1] += 1.0
        (bundle / "golden.json").write_bytes(msgspec.json.encode(golden))
        expected = "golden answers differ"
    else:
        manifest["generation"]["eos_ids"] = [319_000]
        expected = "does not fit its graph"
    content = (bundle / "golden.json").read_bytes()
    manifest["files"]["golden.json"] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (bundle / "manifest.json").write_bytes(msgspec.json.encode(manifest))
    server = run_process(bundle=bundle)
    assert server.started == {}
    assert server.process.wait(60) == 1
    assert expected in server.log.read_text()
