"""`edgetune build --plan` of a language model: rows, tokens, weights, sizes and memory are told, nothing is written."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from edgetune.extras import Extra
from edgetune.stepwise import plan as stepwise_plan
from edgetune.stepwise.costs import PROCESS_BYTES, WEIGHT_COPIES, PartTokens, StepwiseCosts
from edgetune.stepwise.recipe import StepwiseRecipe
from edgetune.tune.stepwise.methods import METHODS

# Of tests/conftest.py's llama: embedding 64 x 64, tied; two layers; three norms.
LAYER = 64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 128 + 2 * 64
WEIGHTS = 64 * 64 + 2 * LAYER + 64
LORA_16 = 2 * 16 * ((64 + 64) * 2 + (64 + 32) * 2 + (64 + 128) * 3)
OUTPUTS = 2 * (64 + 2 * 32 + 64 + 2 * 128 + 64)  # of the linear layers


@pytest.fixture
def plan(edgetune, language_base, tmp_path, monkeypatch):
    """`plan(...)` plans the tuning of a tiny llama on 40 rows, one of them too long, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    rows = [{"prompt": f"the {one} sees {n}", "completion": " a fish ."} for one in ("cat", "dog") for n in range(20)]
    rows[0]["completion"] = " a fish" * 60
    (tmp_path / "data" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    flags = ("--base", language_base(), "--data", "data/train.jsonl", "--task", "text-generation", "--device", "cpu")
    return lambda *more: edgetune("build", *flags, "--out", "bundle", "--plan", *more)


def test_a_plan_tells_what_the_build_will_do_and_writes_nothing(plan, tmp_path):
    ended = plan("--method", "lora", "--set", "tune.epochs=4", "--set", "tune.metrics=[exact_match]")
    assert (ended.code, ended.err) == (0, "")
    lines = ended.out.splitlines()
    assert lines[0].startswith("data      data/train.jsonl: 28 train, 6 validation, 6 test; prompt-completion; longest")
    assert any(line.strip() == "Format 'prompt-completion' was guessed: prompt from column 'prompt', completion from "
               "column 'completion'." for line in lines)  # fmt: skip
    assert any("to 64 tokens; the longest had 125." in line for line in lines)
    assert f"{WEIGHTS / 1e6:.1f} million parameters" in ended.out
    assert "64 tokens of context" in ended.out
    assert f"lora, {LORA_16:,} weights trained" in ended.out
    assert "at most 4 epochs in " in ended.out
    assert "answers scored by exact_match" in ended.out
    assert "tries int4_g128, int4, int4_head8, mixed, int8, fp32, until one passes the gate" in ended.out
    assert "GB at its peak, roughly" in ended.out
    assert "MB in the work folder bundle.work" in ended.out
    assert " minutes (tune " in ended.out
    assert ended.out.rstrip().endswith("Nothing was done.")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_plan_as_one_json_document(plan):
    ended = plan("--json", "--scheme", "int8", "--set", "data.over_long=drop")
    found = json.loads(ended.out)
    assert ended.err == ""
    assert found["task"] == "text-generation"
    assert sum(part["rows"] for part in found["parts"].values()) == 39
    assert all(part["longest_tokens"] == 8 for part in found["parts"].values())
    assert found["parts"]["test"] == {"rows": 6, "tokens": 48, "learnt_tokens": 24, "longest_tokens": 8}
    assert (found["parameters"], found["context_tokens"]) == (WEIGHTS, 64)
    assert found["schemes"] == ["int8"]
    assert found["size_bytes"] == {"int8": WEIGHTS + 2 * WEIGHTS // 32}
    assert found["memory_bytes"] > PROCESS_BYTES
    assert set(found["seconds"]) == {"tune", "export", "compress", "bench"}
    assert found["replaces"] is False
    assert any("Dropped 1 row" in finding for finding in found["findings"])


@pytest.mark.parametrize("method", METHODS)
def test_the_weights_that_every_method_trains_are_counted(plan, method):
    trained = json.loads(plan("--json", "--method", method).out)["trained_parameters"]
    if method == "full":
        assert trained == WEIGHTS
    elif method == "freeze":
        assert LAYER <= trained < WEIGHTS
    elif method == "dora":
        assert trained == LORA_16 + OUTPUTS  # and a length an output
    elif method == "adalora":
        assert trained == LORA_16 * 3 // 2 + 14 * 24  # it begins half as large again, with a value a direction
    elif method == "vera":
        assert trained == 14 * 256 + OUTPUTS
    elif method == "ia3":
        assert trained == OUTPUTS
    elif method == "prompt":
        assert trained == 8 * 64  # eight virtual tokens
    elif method == "p-tuning":
        assert trained == 8 * 64 + 3 * (64 * 64 + 64)  # and a network of three layers
    elif method == "prefix":
        assert trained == 8 * 2 * 2 * 32  # keys and values of two layers
    else:
        assert trained == LORA_16


def test_what_is_not_installed_is_named_with_the_command_that_brings_it(plan, monkeypatch):
    lacking = Extra(False, ("trl>=1.10", "sacrebleu>=2.5"), 'pip install "edgetune[llm]"')
    monkeypatch.setattr(stepwise_plan, "installed_extras", lambda: {"llm": lacking})
    ended = plan()
    assert 'install   the extra [llm] lacks trl>=1.10, sacrebleu>=2.5: pip install "edgetune[llm]"' in ended.out
    monkeypatch.setattr(stepwise_plan, "installed_extras", lambda: {"llm": Extra(True, (), None)})
    assert "install   " not in plan().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--data", "missing.jsonl"), "There is no file missing.jsonl."),
        (("--set", "data.max_tokens=100"), "data.max_tokens is 100, and the model takes 64 tokens."),
        (("--set", "data.format=alpaca"), "has no column for the instruction"),
        (("--out", "data"), "exists and is no bundle"),
        (("--base", "data"), "data has no config.json."),
    ],
)
def test_a_plan_fails_where_the_build_would(plan, tmp_path, arguments, said):
    ended = plan(*arguments)
    assert ended.code in (1, 2)
    assert ended.out == ""
    assert said in ended.err
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.fixture
def costs():
    """Of a model of a million weights whose forward pass takes a millisecond a token."""
    recipe = StepwiseRecipe.of_values({"base": "b", "data": {"path": "rows.jsonl"}}, None)
    parts = {"train": PartTokens(100, 10_000, 5_000, 2_000), "validation": PartTokens(10, 1_000, 500, 200)}
    return StepwiseCosts(
        recipe=recipe,
        config=SimpleNamespace(num_hidden_layers=2, hidden_size=100, vocab_size=1_000),
        parts={**parts, "test": PartTokens(1_000, 100_000, 500, 200)},
        parameters=1_000_000,
        trained_parameters=10_000,
        epochs=2.0,
        forward_seconds=1e-3,
        step_seconds=3e-3,
        device="cpu",
        bf16=False,
    )


def test_the_costs_by_hand(costs):
    assert costs.scheme_bytes == {
        "int4_g128": 500_000 + 15_625, "int4": 500_000 + 62_500, "int4_head8": 562_500, "mixed": 750_000 + 62_500,
        "int8": 1_062_500, "fp32": 4_000_000,
    }  # fmt: skip
    candidates = 515_625 + 562_500 + 562_500 + 812_500 + 1_062_500 + 4_000_000
    assert costs.work_bytes == 8_000_000 + candidates + 4_000_000 + 24 * 10_000
    # Two epochs of 10,000 tokens at three passes and 1,000 at one; four passes over the 500 rows that judge.
    assert costs.seconds["tune"] == 2 * (30 + 1) + 4 * 50
    # 0.004 GB; 1,000 tokens of validation; five rounds of 64 tokens with three batches.
    assert costs.seconds["export"] == round(16 + 120 * 0.004, 1)
    assert costs.seconds["compress"] == round(5 + 300 * 0.004 + 1, 1)
    assert costs.seconds["bench"] == round(16 + 2 * 50 + 960 * (0.002 + 0.35 * 0.004), 1)
    # A batch of eight rows of 2,000 tokens holds more than the copies of so small a model.
    activations = 16_000 * (68 * 2 * 100 + 12 * 1_000)
    assert costs.memory_bytes == PROCESS_BYTES + 4_000_000 + 120_000 + activations


def test_what_saves_memory_saves_it_in_the_estimate(costs):
    def told(**tune):
        values = {"base": "b", "data": {"path": "rows.jsonl"}, "tune": tune}
        return replace(costs, recipe=StepwiseRecipe.of_values(values, None)).memory_bytes

    assert told(batch_size=4) < told() > told(method="qlora") < told(method="qlora", qlora={"weights": "int8"})
    assert told(gradient_checkpointing=True) < told()
    large = replace(costs, parameters=10**9)
    assert large.memory_bytes == PROCESS_BYTES + WEIGHT_COPIES * 4 * 10**9
    assert replace(costs, bf16=True).seconds["tune"] > costs.seconds["tune"]
    # Training stops early: two epochs that gain, and as many more as it is patient.
    assert replace(costs, epochs=9.0).seconds == replace(costs, epochs=4.0).seconds
