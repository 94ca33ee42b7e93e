"""One side of the benchmark, in a fresh process: answers commands on stdin with measurements on stdout.

Run as `python -m edgetune.benchmarks.timing.contestant bundle FOLDER` or `... base FOLDER`. The bundle's side imports
nothing but the runtime, so that its cold start and its memory are those of a server that embeds it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgetune.serve.json_types import JsonObject


@dataclass(frozen=True)
class Contestant:
    """How one side answers: an input to its answer, many inputs in batches of a size, and ids to logits.

    Inputs and answers are JSON: a string or a list of two, and what the head's `plain` gives. `on_cpu` says whether the
    side computes on the processor, so that its processor time tells whether it got one; `opened` the providers and
    threads of a bundle.
    """

    answer: Callable[[Any], Any]
    answer_many: Callable[[list[Any], int], list[Any]]
    forward: Callable[[int, int], None]
    placement: Callable[[], dict[str, int]]
    on_cpu: bool
    opened: Callable[[], JsonObject] = dict


def bundle_contestant(folder: str, threads: int | None, spinning: bool | None) -> Contestant:
    """The bundle in its own runtime, with the settings that it brings where none are given."""
    import numpy as np

    from edgetune.serve import load
    from edgetune.serve.codecs import codec_inputs, takes_files
    from edgetune.serve.session import open_session, placement

    predictor = load(folder, threads=threads, spinning=spinning)
    inputs, codec = [spec.name for spec in predictor.bundle.manifest.inputs], predictor.bundle.manifest.codec

    def forward(batch: int, tokens: int) -> None:
        if takes_files(codec):
            predictor.run(predictor.feed(predictor.codec.samples([tokens] * batch)))
            return
        ones = np.ones((batch, tokens), dtype=np.int64)
        predictor.run({name: ones if name != "token_type_ids" else ones * 0 for name in inputs})

    def placed() -> dict[str, int]:
        if predictor.bundle.manifest.engine is not None:
            return {}
        graph = predictor.bundle.folder / "model.onnx"
        provider = predictor.bundle.manifest.provider
        return placement(open_session(graph, provider=provider, threads=threads, record_placement=True))

    return Contestant(
        answer=lambda one: predictor.predict_one(codec_inputs(codec, [one])[0]).plain,
        answer_many=lambda inputs, size: [
            answer.plain for answer in predictor.predict(codec_inputs(codec, inputs), batch_size=size)
        ],
        forward=forward,
        placement=placed,
        on_cpu=predictor.bundle.manifest.provider == "cpu",
        opened=lambda: {"providers": predictor.providers, "threads": predictor.threads},
    )


def base_contestant(folder: str, threads: int, device: str, tuned_folder: str) -> Contestant:
    """The base in PyTorch, fp32, as its documentation runs it: tokenizer, model, decision."""
    from pathlib import Path

    import torch
    from transformers.utils import logging

    from edgetune.serve.heads import open_head
    from edgetune.tune.data.rows import length
    from edgetune.tune.models.encoder import Encoder
    from edgetune.tune.models.forward import length_batches, model_logits
    from edgetune.tune.models.model import TunedModel, open_model
    from edgetune.tune.tasks import TASKS

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(threads)
    tuned = TunedModel.open(Path(tuned_folder))
    encoder = Encoder.of_folder(Path(folder), tuned.max_tokens, TASKS[tuned.task], tuned.codec)
    model, head = open_model(Path(folder)).to(device), open_head(tuned.head)

    def answer_batch(texts: list[Any]) -> list[Any]:
        if encoder.task.per_token:
            return [head.plain(row) for row in head.decide(model_logits(model, encoder, texts))]
        with torch.inference_mode():
            logits = model(**encoder.library_batch(texts).to(device)).logits
        return [head.plain(row) for row in head.decide(logits.float().cpu().numpy())]

    def answer_many(texts: list[Any], size: int) -> list[Any]:
        answers: list[Any] = [None] * len(texts)
        for rows in length_batches([length(text) for text in texts], size):
            for row, answer in zip(rows, answer_batch([texts[row] for row in rows]), strict=True):
                answers[row] = answer
        return answers

    def forward(batch: int, tokens: int) -> None:
        with torch.inference_mode():
            model(**encoder.blank(batch, tokens).to(device)).logits.cpu()

    return Contestant(lambda text: answer_batch([text])[0], answer_many, forward, dict, device == "cpu")


def _respond(contestant: Contestant, command: JsonObject) -> JsonObject:
    kind = command["do"]
    if kind == "latency":
        _warm_up(contestant, command["texts"], command.get("warm_ms", 0))
        return _time_calls(contestant, command["texts"])
    if kind == "throughput":
        start = time.perf_counter()
        answers = contestant.answer_many(command["texts"], command.get("batch_size", 32))
        return {"seconds": time.perf_counter() - start, "answers": answers}
    if kind == "forward":
        return {"ms": _time_forward(contestant, command["batch"], command["tokens"])}
    if kind == "memory":
        import msgspec

        from edgetune.benchmarks.timing.memory import process_memory

        return {"memory": msgspec.to_builtins(process_memory())}
    return contestant.opened() if kind == "opened" else {"placement": contestant.placement()}


def _time_calls(contestant: Contestant, texts: list[str]) -> JsonObject:
    """Milliseconds and label of each text, and the processor time of all threads over the wall time of all calls."""
    times, answers = [], []
    began, worked = time.perf_counter(), time.process_time()
    for text in texts:
        start = time.perf_counter()
        answers.append(contestant.answer(text))
        times.append(1000 * (time.perf_counter() - start))
    share = (time.process_time() - worked) / (time.perf_counter() - began)
    return {"ms": times, "answers": answers, "cpu_share": share if contestant.on_cpu else None}


def _warm_up(contestant: Contestant, texts: list[str], warm_ms: float) -> None:
    """Answer for `warm_ms` without counting."""
    end = time.perf_counter() + warm_ms / 1000
    while time.perf_counter() < end:
        for text in texts:
            contestant.answer(text)
            if time.perf_counter() >= end:
                return


def _time_forward(contestant: Contestant, batch: int, tokens: int) -> list[float]:
    """Five calls after one warm-up, fewer when they take longer than a second together, but at least two."""
    contestant.forward(batch, tokens)
    times: list[float] = []
    while len(times) < 5 and (sum(times) < 1000 or len(times) < 2):
        start = time.perf_counter()
        contestant.forward(batch, tokens)
        times.append(1000 * (time.perf_counter() - start))
    return times


def main() -> None:
    """Open one side, answer the first text, say so, then serve commands until stdin ends."""
    side, folder, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    if side == "bundle":
        contestant = bundle_contestant(folder, settings["threads"], settings["spinning"])
    else:
        contestant = base_contestant(folder, settings["threads"], settings["device"], settings["tuned"])
    first = contestant.answer(settings["first"])
    sys.stdout.write(json.dumps({"first": first}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(_respond(contestant, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
