"""A peer's side of the race, run by the Python of the peer's own environment: edgetune is not installed there.

Answers the same commands on stdin as `edgetune.benchmarks.timing.contestant`, so that both are timed by one clock. Run
as `python contestant.py onnxruntime|openvino FOLDER SETTINGS`, SETTINGS being JSON with threads, first, max_tokens and
lean. Lean answers with the bare `tokenizers` library where the tool's documentation takes AutoTokenizer.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

BATCH = 32

Encode = Callable[[list[str]], dict[str, Any]]
Forward = Callable[[dict[str, Any]], Any]


def auto_tokenizer(folder: Path, max_tokens: int) -> Encode:
    """Texts to padded int64 arrays (texts, tokens) by transformers' AutoTokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    def encode(texts: list[str]) -> dict[str, Any]:
        return dict(tokenizer(texts, padding=True, truncation=True, max_length=max_tokens, return_tensors="np"))

    return encode


def lean_tokenizer(folder: Path, max_tokens: int) -> Encode:
    """The same arrays by the `tokenizers` library alone."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_tokens)
    tokenizer.enable_padding()

    def encode(texts: list[str]) -> dict[str, Any]:
        rows = tokenizer.encode_batch(texts)
        return {
            "input_ids": np.array([row.ids for row in rows], dtype=np.int64),
            "attention_mask": np.array([row.attention_mask for row in rows], dtype=np.int64),
            "token_type_ids": np.array([row.type_ids for row in rows], dtype=np.int64),
        }

    return encode


def onnxruntime_forward(folder: Path, threads: int) -> Forward:
    """Logits (texts, labels) by ONNX Runtime on the CPU, its settings left alone but for the threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]
    return lambda batch: session.run(None, {name: batch[name] for name in names})[0]


def openvino_forward(folder: Path, threads: int) -> Forward:
    """Logits (texts, labels) by OpenVINO on the CPU, tuned for latency as transformers' own runner does."""
    import openvino

    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    model = openvino.Core().compile_model(folder / "openvino_model.xml", "CPU", settings)
    names = [one.get_any_name() for one in model.inputs]
    request = model.create_infer_request()
    return lambda batch: request.infer({name: batch[name] for name in names})[0]


ENGINES = {"onnxruntime": onnxruntime_forward, "openvino": openvino_forward}


def answerer(engine: str, folder: Path, settings: dict[str, Any]) -> Callable[[list[str]], list[str]]:
    """Texts in, labels out, one batch a call."""
    labels = json.loads((folder / "config.json").read_text(encoding="utf-8"))["id2label"]
    encode = (lean_tokenizer if settings["lean"] else auto_tokenizer)(folder, settings["max_tokens"])
    forward = ENGINES[engine](folder, settings["threads"])
    return lambda texts: [labels[str(index)] for index in forward(encode(texts)).argmax(axis=-1).tolist()]


def answer_many(answer: Callable[[list[str]], list[str]], texts: list[str]) -> list[str]:
    """Labels of many texts, in batches of 32 of like length."""
    order = sorted(range(len(texts)), key=lambda row: len(texts[row]))
    labels = [""] * len(texts)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        for row, label in zip(rows, answer([texts[row] for row in rows]), strict=True):
            labels[row] = label
    return labels


def memory() -> dict[str, int | None]:
    """VmHWM and the file-backed share of this process in bytes, None where the system has no such counter."""
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="utf-8").splitlines() if status.exists() else []
    found = {parts[0].rstrip(":"): int(parts[1]) * 1024 for parts in map(str.split, lines) if parts[-1:] == ["kB"]}
    return {"rss_peak_bytes": found.get("VmHWM"), "rss_file_bytes": found.get("RssFile")}


def latency(answer: Callable[[list[str]], list[str]], texts: list[str], warm_ms: float) -> dict[str, Any]:
    """Milliseconds and label of each text alone, after `warm_ms` of calls that are not counted."""
    end = time.perf_counter() + warm_ms / 1000
    done = 0
    while time.perf_counter() < end:
        answer([texts[done % len(texts)]])
        done += 1
    times, labels = [], []
    for text in texts:
        start = time.perf_counter()
        labels += answer([text])
        times.append(1000 * (time.perf_counter() - start))
    return {"ms": times, "answers": labels}


def respond(answer: Callable[[list[str]], list[str]], command: dict[str, Any]) -> dict[str, Any]:
    """What one command asks for."""
    if command["do"] == "latency":
        return latency(answer, command["texts"], command.get("warm_ms", 0))
    if command["do"] == "throughput":
        start = time.perf_counter()
        labels = answer_many(answer, command["texts"])
        return {"seconds": time.perf_counter() - start, "answers": labels}
    return {"memory": memory()}


def main() -> None:
    """Open the peer's artefact, answer the first text, say so, then serve commands until stdin ends."""
    engine, folder, settings = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    answer = answerer(engine, folder, settings)
    sys.stdout.write(json.dumps({"first": answer([settings["first"]])[0]}) + "\n")
    sys.stdout.flush()
    for line in sys.stdin:
        sys.stdout.write(json.dumps(respond(answer, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
