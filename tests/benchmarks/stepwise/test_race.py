"""The race on sides that answer at once with figures known beforehand: who is asked what, in which order, how often."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from edgetune.benchmarks.stepwise import race as races
from edgetune.benchmarks.stepwise.race import COLD_STARTS, DECODE_PROMPT, Workload, race, weight_bytes
from edgetune.benchmarks.stepwise.recipe import GenerationBenchmarkRecipe
from edgetune.benchmarks.stepwise.side import GenerationSide
from edgetune.benchmarks.timing.quiet import TimingVerdict
from edgetune.serve.cores import usable_cores
from edgetune.tune.training.progress import Silent

FAKE = """
import json, sys
settings = json.loads(sys.argv[1])
if settings["dies_at"] == 0:
    sys.exit("no such model")
print(json.dumps({"first": [1]}), flush=True)
log, asked = open(settings["log"], "a"), 0
for line in sys.stdin:
    command = json.loads(line)
    log.write(json.dumps([settings["name"], command]) + "\\n")
    log.flush()
    if command["do"] == "memory":
        asked += 1
        answer = {"memory": {"rss_peak_bytes": 100 * asked}}
    elif command["do"] == "modules":
        answer = {"modules": ["torch"]}
    else:
        batch, tokens = len(command["prompts"]), len(command["prompts"][0])
        if batch == settings["dies_at"]:
            sys.exit("no room for %d rows" % batch)
        answer = {"first_ms": tokens / 2, "steps_ms": [1.0 * batch, 3.0 * batch]}
        answer["tokens"] = [prompt[:2] for prompt in command["prompts"]]
    print(json.dumps(answer), flush=True)
"""


@dataclass(frozen=True)
class FakeSide(GenerationSide):
    name: str = ""
    log: str = ""
    dies_at: int | None = None

    def command(self, first: str) -> list[str]:
        settings = {"name": self.name, "log": self.log, "dies_at": self.dies_at, "first": json.loads(first)}
        return [sys.executable, "-c", FAKE, json.dumps(settings)]


def workload(**settings: object) -> Workload:
    recipe = GenerationBenchmarkRecipe(prompt_tokens=[16, 128], batches=[1, 4], new_tokens=8, rounds=3, threads=1)
    return Workload(**{"vocabulary": 50, "context_tokens": 256, "recipe": recipe, **settings})


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def side(name: str, log: Path, **settings: object) -> FakeSide:
    return FakeSide("base", log.parent, 1, name=name, log=str(log), size_bytes=9, **settings)


def asked(log: Path) -> list[tuple[str, dict]]:
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()]


def test_every_round_but_the_first_counts(log):
    found = race({"one": side("one", log), "two": side("two", log)}, workload(), Silent())
    assert list(found.sides) == ["one", "two"]
    for name, one in found.sides.items():
        assert one.side == name
        assert one.first_ms == {16: [8.0] * 3, 128: [64.0] * 3}
        # The mean of the steps of a round.
        assert one.step_ms == {1: [2.0] * 3, 4: [8.0] * 3}
        # Read before and after the larger batches.
        assert (one.memory.rss_peak_bytes, one.memory_batches.rss_peak_bytes) == (100, 200)
        assert len(one.cold_start_ms) == COLD_STARTS
        assert all(ms > 0 for ms in one.cold_start_ms)
        assert (one.size_bytes, one.modules, one.reason) == (9, ["torch"], "")
    assert (found.prompt_tokens, found.batches, found.rounds, found.threads) == ([16, 128], [1, 4], 3, 1)
    assert (found.decode_prompt_tokens, found.new_tokens) == (DECODE_PROMPT, 8)


def test_all_sides_get_the_same_prompts_in_turn(log):
    found = race({"one": side("one", log), "two": side("two", log)}, workload(), Silent())
    commands = [(name, command) for name, command in asked(log) if command["do"] == "generate"]
    pairs = list(zip(commands[::2], commands[1::2], strict=True))
    assert all(first[1] == second[1] for first, second in pairs)
    # Who begins changes from round to round: 3 shapes of batch 1, four rounds with the one that does not count.
    assert [first[0] for first, _ in pairs[:12]] == ["one"] * 3 + ["two"] * 3 + ["one"] * 3 + ["two"] * 3
    # Each round has prompts of its own (what is decoded alone is the prompt of 16); ids past the special ones.
    prompts = [json.dumps(first[1]["prompts"]) for first, _ in pairs]
    assert len(set(prompts)) == 3 * 4
    assert all(3 <= token < 50 for prompt in prompts for row in json.loads(prompt) for token in row)
    assert found.sides["one"].answer == found.sides["two"].answer == workload().prompts(1, 1, DECODE_PROMPT)[0][:2]


def test_the_round_that_does_not_count_is_short(log):
    race({"one": side("one", log)}, workload(), Silent())
    decodes = [c["new_tokens"] for _, c in asked(log) if c["do"] == "generate" and c["new_tokens"]]
    assert decodes == [4, 8, 8, 8] * 2


def test_a_side_raced_against_a_copy_of_itself_shows_the_noise(log, monkeypatch):
    given = []
    monkeypatch.setattr(races, "judge_timing", lambda known: given.append(known) or TimingVerdict(False, "Too busy."))
    sides = {"base": side("base", log), "bundle": side("bundle", log)}
    assert race(sides, workload(), Silent()).timing_remark == "Too busy."
    assert given[0].noise_ci95 == [1.0, 1.0]
    assert given[0].blocks == {"base": [[2.0]] * 3, "bundle": [[2.0]] * 3}
    assert given[0].threads == 1
    # A side that is not there, or cannot be opened twice, leaves the noise unknown.
    race({"base": side("base", log)}, workload(), Silent())
    race({"base": side("base", log), "bundle": side("bundle", log, dies_at=0)}, workload(), Silent())
    assert [known.noise_ci95 for known in given[1:]] == [None, None]
    assert [list(known.blocks) for known in given[1:]] == [["base"], ["base"]]


def test_a_graph_for_one_row_is_not_asked_for_more(log):
    found = race({"one": side("one", log, most_batch=1), "two": side("two", log)}, workload(), Silent())
    assert set(found.sides["one"].step_ms) == {1}
    assert found.sides["one"].reason == ""
    # Its peak is that of batch 1: there is no second one.
    assert found.sides["one"].memory.rss_peak_bytes == 100
    assert found.sides["one"].memory_batches.rss_peak_bytes is None
    assert set(found.sides["two"].step_ms) == {1, 4}


def test_a_side_that_ends_keeps_its_figures_and_its_reason(log):
    found = race({"one": side("one", log, dies_at=4), "two": side("two", log)}, workload(), Silent())
    assert "no room for 4 rows" in found.sides["one"].reason
    assert found.sides["one"].step_ms == {1: [2.0] * 3}
    assert len(found.sides["one"].cold_start_ms) == 1
    assert found.sides["two"].step_ms == {1: [2.0] * 3, 4: [8.0] * 3}
    assert found.sides["two"].reason == ""


def test_a_side_that_does_not_open_leaves_the_others(log):
    found = race({"one": side("one", log, dies_at=0), "two": side("two", log)}, workload(), Silent())
    assert "no such model" in found.sides["one"].reason
    assert (found.sides["one"].first_ms, found.sides["one"].memory.rss_peak_bytes) == ({}, None)
    assert found.sides["two"].step_ms[4] == [8.0] * 3


def test_the_context_bounds_what_is_asked():
    recipe = GenerationBenchmarkRecipe(threads="auto")
    short = Workload(vocabulary=300, context_tokens=64, recipe=recipe)
    assert short.prompt_tokens == [16]
    # 16 of the prompt, the first token, and 47 steps fill a context of 64.
    assert short.new_tokens == 47
    assert short.threads == usable_cores()
    assert Workload(vocabulary=300, context_tokens=4096, recipe=recipe).prompt_tokens == [16, 128, 512]
    # Prompts depend on round, batch and length alone.
    assert short.prompts(1, 2, 3) == short.prompts(1, 2, 3) != short.prompts(2, 2, 3)


def test_weights_are_counted_with_their_external_files(tmp_path):
    for name, size in {"model.onnx": 3, "model.onnx.data": 50, "a.safetensors": 700, "tokenizer.json": 9000}.items():
        (tmp_path / name).write_bytes(b"x" * size)
    assert weight_bytes(tmp_path) == 753
