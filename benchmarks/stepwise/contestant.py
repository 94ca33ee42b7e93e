"""One side of a generation race, in a fresh process: answers commands on stdin with measurements on stdout.

Run as `python -m edgetune.benchmarks.stepwise.contestant SETTINGS`, settings in JSON. The sides without PyTorch
import nothing but their runtime, so that cold start and memory are those of a program that embeds it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from edgetune.serve.json_types import JsonObject

if TYPE_CHECKING:
    from edgetune.serve.stepwise.decoder import Decoder

HEAVY = (
    "torch",
    "transformers",
    "onnx",
    "onnx_ir",
    "pandas",
    "pydantic",
    "onnxruntime",
    "onnxruntime_genai",
    "llama_cpp",
)


class Steps(Protocol):
    """Greedy decoding that no token ends: the next token of every row, behind the prompts, then step after step.

    `prompts` are token ids of equal length; after `new_tokens` steps behind the first token no more is asked.
    """

    def __call__(self, prompts: list[list[int]], new_tokens: int) -> Iterator[list[int]]: ...


def torch_steps(settings: JsonObject) -> Steps:
    """PyTorch, fp32 and eager: the loop of `generate` without its bookkeeping, so not a step slower than it.

    "torch-static" preallocates the cache for the whole answer instead of growing it.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, StaticCache
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if settings["threads"] is not None:
        torch.set_num_threads(settings["threads"])
    if settings["tokenizes"]:
        AutoTokenizer.from_pretrained(settings["folder"])
    model = AutoModelForCausalLM.from_pretrained(settings["folder"], dtype=torch.float32).eval().to(settings["device"])
    static = settings["runtime"] == "torch-static"

    def steps(prompts: list[list[int]], new_tokens: int) -> Iterator[list[int]]:
        ids = torch.tensor(prompts, device=settings["device"])
        tokens = ids.shape[1] + new_tokens
        cache = StaticCache(config=model.config, max_cache_len=tokens) if static else None
        while True:
            with torch.inference_mode():
                output = model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                ids, cache = output.logits[:, -1:].argmax(dim=-1), output.past_key_values
            yield ids[:, 0].tolist()

    return steps


def genai_steps(settings: JsonObject) -> Steps:
    """onnxruntime-genai's own loop over a folder that its builder wrote."""
    import numpy as np
    import onnxruntime_genai as og

    config = og.Config(settings["folder"])
    if settings["threads"] is not None:
        threads = {"intra_op_num_threads": settings["threads"]}
        config.overlay(json.dumps({"model": {"decoder": {"session_options": threads}}}))
    model = og.Model(config)

    def steps(prompts: list[list[int]], new_tokens: int) -> Iterator[list[int]]:
        params = og.GeneratorParams(model)
        tokens = len(prompts[0]) + new_tokens + 1
        # As many at least as at most: no token ends the answer.
        params.set_search_options(max_length=tokens, min_length=tokens, batch_size=len(prompts), do_sample=False)
        generator = og.Generator(model, params)
        generator.append_tokens(np.asarray(prompts, dtype=np.int32))
        while True:
            generator.generate_next_token()
            yield [int(token) for token in generator.get_next_tokens()]

    return steps


def llama_cpp_steps(settings: JsonObject) -> Steps:
    """llama.cpp's own loop over a GGUF file, by llama-cpp-python; one prompt at a time."""
    import llama_cpp

    threads = settings["threads"]
    model = llama_cpp.Llama(
        model_path=str(Path(settings["folder"], "model.gguf")),
        n_ctx=0,  # as many tokens as the model's context
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )

    def steps(prompts: list[list[int]], new_tokens: int) -> Iterator[list[int]]:
        (prompt,) = prompts
        model.reset()
        for token in model.generate(prompt, temp=0.0, top_k=1, repeat_penalty=1.0, reset=False):
            yield [int(token)]

    return steps


def graph_steps(settings: JsonObject) -> Steps:
    """A decoder graph, or a bundle with one, in the loop that answers batches in our runtime."""
    from edgetune.serve.stepwise.answer import Answer
    from edgetune.serve.stepwise.group import answer_together
    from edgetune.serve.stepwise.sampling import Sampling

    decoder = open_decoder(settings)

    def steps(prompts: list[list[int]], new_tokens: int) -> Iterator[list[int]]:
        sampling, vocabulary = Sampling(max_tokens=new_tokens + 1), decoder.spec.vocabulary
        answers = [Answer(ids, sampling, eos_ids=(), vocabulary=vocabulary, room=decoder.room(ids)) for ids in prompts]
        # Prompts of equal length keep their order, and without text each token is a piece of its own.
        pieces = answer_together(decoder, answers, batch_size=len(prompts))
        while True:
            yield [next(pieces)[1].token_ids[0] for _ in prompts]

    return steps


def open_decoder(settings: JsonObject) -> Decoder:
    """The decoder of a bare graph's folder, or of a bundle that is verified and opened with its tokenizer."""
    from edgetune.serve.stepwise.decoder import Decoder

    folder, threads, device = Path(settings["folder"]), settings["threads"], settings["device"]
    if settings["runtime"] == "bundle":
        from edgetune.serve.stepwise.generator import Generator

        return Generator.open(folder, threads=threads, provider=device).decoder
    import msgspec

    from edgetune.serve.stepwise.spec import GenerationSpec

    spec = msgspec.convert(settings["spec"], GenerationSpec)
    return Decoder(folder / "model.onnx", spec, threads=threads, provider=device)


RUNTIMES: dict[str, Callable[[dict[str, Any]], Steps]] = {
    "torch": torch_steps,
    "torch-static": torch_steps,
    "graph": graph_steps,
    "bundle": graph_steps,
    "genai": genai_steps,
    "llama.cpp": llama_cpp_steps,
}


def timed(steps: Steps, prompts: list[list[int]], new_tokens: int) -> JsonObject:
    """One answer: ms to the first token, ms of each step after it, and the tokens, row by row.

    `cpu_share` is the processor time of all threads over the wall time.
    """
    answer_ids, times = [], []
    began, worked = time.perf_counter(), time.process_time()
    start = began
    answer = steps(prompts, new_tokens)
    for _ in range(1 + new_tokens):
        answer_ids.append(next(answer))
        end = time.perf_counter()
        times.append(1000 * (end - start))
        start = end
    share = (time.process_time() - worked) / (end - began)
    tokens = [list(row) for row in zip(*answer_ids, strict=True)]
    return {"first_ms": times[0], "steps_ms": times[1:], "tokens": tokens, "cpu_share": share}


def respond(steps: Steps, command: JsonObject, warm: list[int]) -> JsonObject:
    """The answer to one command: generate, memory or modules."""
    if command["do"] == "memory":
        import msgspec

        from edgetune.benchmarks.timing.memory import process_memory

        return {"memory": msgspec.to_builtins(process_memory())}
    if command["do"] == "modules":
        return {"modules": [name for name in HEAVY if name in sys.modules]}
    # The first calls after another side's turn find cold caches and threads that sleep or still spin.
    end = time.perf_counter() + command.get("warm_ms", 0) / 1000
    while time.perf_counter() < end:
        timed(steps, [warm], 1)
    return timed(steps, command["prompts"], command["new_tokens"])


def main() -> None:
    """Open one side, give the first token of the first prompt, then serve commands until stdin ends."""
    settings = json.loads(sys.argv[1])
    steps = RUNTIMES[settings["runtime"]](settings)
    first = next(steps([settings["first"]], 1))
    _say({"first": first})
    for line in sys.stdin:
        _say(respond(steps, json.loads(line), settings["first"]))


def _say(answer: JsonObject) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
