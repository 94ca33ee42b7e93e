"""What each side of a race really runs: a tiny llama in PyTorch and as our graph, asked as the race asks."""

from __future__ import annotations

import itertools
import json
import sys
import types
from pathlib import Path

import msgspec
import pytest

from benchmarks.lab.language.artefacts import FILE, FP32, INT4, PYTORCH, STATIC, Artefacts
from edgetune.benchmarks.stepwise.contestant import graph_steps, llama_cpp_steps, respond, timed, torch_steps
from edgetune.benchmarks.stepwise.race import Workload, race
from edgetune.benchmarks.stepwise.recipe import GenerationBenchmarkRecipe
from edgetune.tune.training.progress import Silent

PROMPTS = [[5, 9, 17, 40, 41], [200, 201, 7, 8, 299]]


@pytest.fixture(scope="session")
def artefacts(tiny_family: Path) -> Artefacts:
    return msgspec.json.decode((tiny_family / FILE).read_bytes(), type=Artefacts)


@pytest.fixture(scope="session")
def expected(tiny_family: Path) -> list[list[int]]:
    """What `generate` says behind PROMPTS, greedily, 20 tokens that no end token ends."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_family / "model", dtype=torch.float32).eval()
    ids = torch.tensor(PROMPTS)
    settings = {"do_sample": False, "max_new_tokens": 20, "min_new_tokens": 20, "eos_token_id": None}
    with torch.inference_mode():
        return model.generate(ids, attention_mask=torch.ones_like(ids), **settings)[:, 5:].tolist()


def settings(folder: Path, artefacts: Artefacts, side: str) -> dict:
    """As the process of a side reads them."""
    return json.loads(artefacts.sides(folder, 1)[side].command("[5]")[-1])


@pytest.mark.parametrize("side", [PYTORCH, STATIC])
def test_pytorch_says_what_generate_says(tiny_family, artefacts, expected, side):
    steps = torch_steps(settings(tiny_family, artefacts, side))
    assert timed(steps, PROMPTS, 19)["tokens"] == expected
    # Each answer starts anew.
    assert timed(steps, PROMPTS[1:], 19)["tokens"] == expected[1:]


def test_our_graph_says_what_generate_says(tiny_family, artefacts, expected):
    steps = graph_steps(settings(tiny_family, artefacts, FP32))
    assert timed(steps, PROMPTS, 19)["tokens"] == expected
    assert timed(steps, PROMPTS[:1], 19)["tokens"] == expected[:1]


def test_llama_cpp_reads_each_prompt_anew_and_answers_greedily(tmp_path, monkeypatch):
    """The calls alone: the library itself takes minutes to build."""
    calls = []

    class Llama:
        def __init__(self, **options):
            calls.append(options)

        def reset(self):
            calls.append("reset")

        def generate(self, tokens, **options):
            calls.append((tokens, options))
            yield from itertools.count(tokens[-1] + 1)

    monkeypatch.setitem(sys.modules, "llama_cpp", types.SimpleNamespace(Llama=Llama))
    steps = llama_cpp_steps({"folder": str(tmp_path), "threads": 1})
    assert timed(steps, PROMPTS[:1], 3)["tokens"] == [[42, 43, 44, 45]]
    opened, reset, (prompt, options) = calls
    assert opened == {
        "model_path": str(tmp_path / "model.gguf"), "n_ctx": 0, "n_threads": 1, "n_threads_batch": 1, "verbose": False,
    }  # fmt: skip
    assert (reset, prompt, options["temp"], options["reset"]) == ("reset", PROMPTS[0], 0.0, False)


def test_a_clock_of_the_first_token_and_of_each_step(monkeypatch):
    ticks = itertools.accumulate([0.0, 0.5, 0.001, 0.002])
    monkeypatch.setattr("edgetune.benchmarks.stepwise.contestant.time.perf_counter", lambda: next(ticks))
    found = timed(lambda prompts, new_tokens: iter([[1, 2], [3, 4], [5, 6]]), PROMPTS, 2)
    assert found["first_ms"] == pytest.approx(500)
    assert found["steps_ms"] == pytest.approx([1, 2])
    assert found["tokens"] == [[1, 3, 5], [2, 4, 6]]


def test_commands(monkeypatch):
    asked = []

    def steps(prompts, new_tokens):
        asked.append((prompts, new_tokens))
        return itertools.repeat([1] * len(prompts))

    found = respond(steps, {"do": "generate", "prompts": PROMPTS, "new_tokens": 3, "warm_ms": 1}, [8])
    assert asked[0] == ([[8]], 1)
    assert asked[-1] == (PROMPTS, 3)
    assert found["tokens"] == [[1] * 4] * 2
    assert respond(steps, {"do": "memory"}, [8])["memory"]["rss_peak_bytes"] > 0
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    loaded = respond(steps, {"do": "modules"}, [8])["modules"]
    assert "pandas" in loaded
    assert "torch" not in loaded


@pytest.mark.slow
def test_a_race_of_real_processes(tiny_family, artefacts, monkeypatch):
    # Each start of PyTorch's side takes seconds; how often sides are started is tested where they answer at once.
    monkeypatch.setattr("edgetune.benchmarks.stepwise.race.COLD_STARTS", 1)
    recipe = GenerationBenchmarkRecipe(prompt_tokens=[16, 64, 512], batches=[1, 2], new_tokens=8, rounds=2, threads=1)
    sides = {name: side for name, side in artefacts.sides(tiny_family, 1).items() if name != STATIC}
    found = race(sides, Workload(vocabulary=300, context_tokens=128, recipe=recipe), Silent())
    assert list(found.sides) == [PYTORCH, FP32, INT4]
    base, ours, small = found.sides.values()
    assert [one.reason for one in found.sides.values()] == ["", "", ""]
    for one in found.sides.values():
        # 512 tokens are longer than the context: left out.
        assert {tokens: len(ms) for tokens, ms in one.first_ms.items()} == {16: 2, 64: 2}
        assert {batch: len(ms) for batch, ms in one.step_ms.items()} == {1: 2, 2: 2}
        assert all(ms > 0 for samples in (*one.first_ms.values(), *one.step_ms.values()) for ms in samples)
        assert len(one.answer) == 9
    assert ours.answer == base.answer
    assert "torch" in base.modules
    assert ours.modules == small.modules == ["onnxruntime"]
    assert 0 < ours.memory.rss_peak_bytes < base.memory.rss_peak_bytes
    assert 0 < ours.cold_ms < base.cold_ms
    assert small.size_bytes < ours.size_bytes
