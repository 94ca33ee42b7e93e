"""A tiny random llama packed as a bundle, and a server around it on a real socket of the loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import msgspec
import openai
import pytest
import uvicorn

from edgetune.serve.bundle import BaseIdentity, FileEntry, Manifest, TensorSpec
from edgetune.serve.digest import file_sha256
from edgetune.serve.http.app import create_app
from edgetune.serve.http.connection import bounded_by
from edgetune.serve.http.keys import Keys
from edgetune.serve.http.metrics import Metrics
from edgetune.serve.http.repository import Repository
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.golden import record
from edgetune.serve.stepwise.spec import GenerationSpec

CONTEXT_TOKENS = 256
WAIT_SECONDS = 60
NAME = "tiny"
NO_TLS = False  # else httpx reads all certificate authorities for every request
TEXTS = [
    "the card has not arrived and nobody answers on the phone",
    "why was my transfer refused yesterday, please help",
    "wann kommt die Karte? 卡还没到。 café 😀 naïve",
]
TEMPLATE = (
    "{% if messages[0]['content'] == 'refuse me' %}{{ raise_exception('no such chat') }}{% endif %}"
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        TEXTS,
        trainers.BpeTrainer(vocab_size=320, special_tokens=special, show_progress=False, initial_alphabet=alphabet),
    )
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left"
    )
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_manifest(folder: Path, spec: GenerationSpec | None, task: str = "text-generation") -> None:
    """A manifest that lists what lies in the folder."""
    names = sorted(path.name for path in folder.iterdir() if path.name != "manifest.json")
    manifest = Manifest(
        format=1, name=NAME, task=task, labels=[],
        inputs=[TensorSpec("input_ids", "int64", ["batch", "tokens"])],
        outputs=[TensorSpec("logits", "float32", ["batch", 1, "vocabulary"])],
        max_tokens=CONTEXT_TOKENS, scheme="fp32", provider="cpu", dtypes={"float32": 1.0},
        base=BaseIdentity("tiny-llama", "0" * 64), data_digest="0" * 64, versions={},
        created="2026-01-02T03:04:05+00:00",
        files={name: FileEntry((folder / name).stat().st_size, file_sha256(folder / name)) for name in names},
        generation=spec,
    )  # fmt: skip
    (folder / "manifest.json").write_bytes(msgspec.json.encode(manifest))


@pytest.fixture(scope="session")
def tiny_bundle(
    random_llama: Any, random_llama_graph: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The bundle of a random llama: two layers, 32 units, byte-level BPE, a chat template."""
    folder = tmp_path_factory.mktemp("language") / NAME
    folder.mkdir()
    tokenizer = _tokenizer(folder)
    random_llama.config.save_pretrained(folder)
    shutil.copytree(random_llama_graph(), folder, dirs_exist_ok=True)
    spec = GenerationSpec(
        layers=2, kv_heads=2, head_dim=8, vocabulary=len(tokenizer), context_tokens=CONTEXT_TOKENS,
        eos_ids=[2], bos_id=1, pad_id=0,
    )  # fmt: skip
    write_manifest(folder, spec)
    with Generator.open(folder, threads=1) as generator:
        golden = record(generator, TEXTS[:2], tolerance=1e-3, tokens=8)
    (folder / "golden.json").write_bytes(msgspec.json.encode(golden))
    write_manifest(folder, spec)
    return folder


@pytest.fixture(scope="session")
def generator(tiny_bundle: Path) -> Iterator[Generator]:
    """The same bundle without a server, to compare with. Nothing is remembered, so every answer is computed whole."""
    with Generator.open(tiny_bundle, threads=1, prefix_bytes=0) as opened:
        yield opened


@dataclass
class RunningServer:
    """A server on a socket, with its insides at hand."""

    url: str
    repository: Repository
    metrics: Metrics
    limits: Any
    server: uvicorn.Server
    ending: Future[None]
    thread: Any
    key: str = "none"

    def client(self, **settings: Any) -> openai.OpenAI:
        """OpenAI's own client; it asks once, and waits no longer than a test may."""
        return openai.OpenAI(
            base_url=self.url + "/v1", api_key=self.key, max_retries=0, timeout=WAIT_SECONDS, **settings
        )

    def async_client(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=self.url + "/v1", api_key=self.key, max_retries=0, timeout=WAIT_SECONDS)

    def post(self, path: str, body: Any, headers: dict[str, str] | None = None) -> httpx.Response:
        """`body` is sent as JSON unless it is bytes."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return httpx.post(self.url + path, content=content, headers=headers, timeout=WAIT_SECONDS, verify=NO_TLS)

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=WAIT_SECONDS, verify=NO_TLS)

    @property
    def scheduler(self) -> Any:
        with self.repository.lease(NAME) as served:
            return served.scheduler

    def metric(self, line: str) -> float:
        """The value of one line of the metrics page, 0 where there is none."""
        page = self.get("/metrics").text.splitlines()
        return float(next((each.rpartition(" ")[2] for each in page if each.startswith(line + " ")), 0))

    def stop(self) -> None:
        self.server.should_exit = True
        self.ending.result(WAIT_SECONDS)
        self.thread.wait(self.repository.close(1))


RunServer = Callable[..., RunningServer]


@pytest.fixture(scope="module")
def run_server(loop_thread: Any, tiny_bundle: Path, eventually: Callable[..., None]) -> Iterator[RunServer]:
    """`run_server(max_prompts=1)` serves the tiny bundle as "tiny", or `sources`, until the module's tests end."""
    running: list[RunningServer] = []

    def run(
        sources: dict[str, Path] | None = None, keys: Keys | None = None, key: str = "none", **limits: Any
    ) -> RunningServer:
        settings = ServerSettings(watch_seconds=0, lone_threads=1, **limits)
        metrics = Metrics()
        repository = Repository(sources or {NAME: tiny_bundle}, settings, observe=metrics.observe_run)
        loop_thread.wait(repository.start())
        app = create_app(repository, settings, keys=keys, metrics=metrics)
        config = uvicorn.Config(
            app, port=0, log_level="critical", ws="none", lifespan="off", http=bounded_by(settings), access_log=False
        )
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        ending = loop_thread.begin(server.serve())
        eventually(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        attended = next(each for each in app.user_middleware).kwargs["limits"]
        url = f"http://127.0.0.1:{port}"
        running.append(RunningServer(url, repository, metrics, attended, server, ending, loop_thread, key))
        return running[-1]

    yield run
    for one in running:
        one.stop()


@pytest.fixture(scope="module")
def server(run_server: RunServer) -> RunningServer:
    """The tiny bundle with default limits, for tests that leave it as it is."""
    return run_server()


@dataclass
class Pace:
    """How many seconds longer each run of a graph takes."""

    seconds: float


@pytest.fixture
def slowed(monkeypatch: pytest.MonkeyPatch) -> Callable[[RunningServer, float], Pace]:
    """`slowed(server, 0.05)` lets each run of the graph take so many seconds longer, which may be changed."""

    def slow(running: RunningServer, seconds: float) -> Pace:
        decoder = running.scheduler.generator.decoder
        run, pace = decoder.run, Pace(seconds)

        def slower(*arguments: Any) -> Any:
            time.sleep(pace.seconds)
            return run(*arguments)

        monkeypatch.setattr(decoder, "run", slower)
        return pace

    return slow


@pytest.fixture
def in_loop() -> Callable[..., Any]:
    """`in_loop(coroutine)` runs it to its end in an event loop of its own, within a bound of time."""

    def run(work: Any) -> Any:
        return asyncio.run(asyncio.wait_for(work, WAIT_SECONDS))

    return run
