"""Every kind of bad input to a language model through the command line: the exit code, and a message that says what was
found, what was expected and what to do. Nothing ends in a traceback, and nothing half-written is left.

Here what a model is made of: data, recipe, base and training; test_bad_language_bundle.py has what answers.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .here import Command, Ended

PAIRS = [
    {"prompt": f"the {animal} {verb}", "completion": f" a {colour} fish ."}
    for animal in ("cat", "dog", "bird", "fish")
    for verb in ("sees", "eats", "likes")
    for colour in ("red", "blue", "old")
]


def chat(question: Any = "the cat", answer: Any = "a fish", role: Any = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": question}, {"role": "assistant", "content": answer}]}


def assert_told(ended: Ended, code: int, *facts: str) -> None:
    """The exit code, nothing on stdout but stage lines, and found, expected and to do on stderr."""
    assert ended.code == code, ended
    assert ended.err.startswith("Error: "), ended
    for fact in (*facts, "Expected: ", "To do: "):
        assert fact in ended.err, ended.err
    assert "Traceback" not in ended.err + ended.out


# The data.


@pytest.fixture
def base(language_base: Callable[..., Path], tmp_path: Path) -> Path:
    """A copy of a tiny checkpoint, to damage."""
    return shutil.copytree(language_base(), tmp_path / "base")


@pytest.fixture
def tune(
    edgetune: Command, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Ended]]:
    """`tune(rows, ...)` runs `edgetune tune` on the tiny base, of rows or of a file's name; a failure keeps nothing."""
    monkeypatch.chdir(tmp_path)
    failed = []

    def run(rows: Any, *settings: str) -> Ended:
        name = rows if isinstance(rows, str) else written(tmp_path / "rows.jsonl", rows)
        ended = edgetune(
            "tune", "--base", "base", "--data", name, "--task", "text-generation", "--method", "full",
            "--device", "cpu", "--out", "bundle", "--set", "tune.epochs=1",
            *(text for setting in settings for text in ("--set", setting)),
        )  # fmt: skip
        failed.append(ended.code != 0)
        return ended

    yield run
    if failed and all(failed):
        assert not (tmp_path / "bundle").exists()
        assert not (tmp_path / "bundle.work" / "tune").exists()


def written(path: Path, rows: list[Any]) -> str:
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path.name


def test_a_data_file_that_is_not_there(tune):
    assert_told(tune("missing.jsonl"), 1, "There is no file missing.jsonl.", "check the path")


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_an_empty_data_file(tune, tmp_path, content):
    (tmp_path / "rows.jsonl").write_bytes(content)
    assert_told(tune("rows.jsonl"), 1, f"rows.jsonl is empty ({len(content)} bytes).")


def test_a_compressed_data_file(tune, tmp_path):
    (tmp_path / "rows.jsonl.gz").write_bytes(b"\x1f\x8b")
    assert_told(tune("rows.jsonl.gz"), 1, "its suffix is '.gz'", ".jsonl, .ndjson, .json, .parquet, .csv, .tsv, .txt")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (PAIRS[:1], "Nothing is left for the validation part: 1 usable row"),
        (PAIRS[:4], "Nothing is left for the validation part: 4 usable rows"),
        (PAIRS[:1] * 20, "Removed 19 duplicate rows"),
        ([{"prompt": f"the {n}", "completion": None} for n in range(9)], "Dropped 9 rows without an answer"),
        ([{"prompt": " ", "completion": f"{n}"} for n in range(9)], "Dropped 9 rows without a prompt"),
    ],
)
def test_rows_that_leave_too_little(tune, rows, said):
    assert_told(tune(rows), 1, said, "at least five different rows", "add rows")


def test_a_file_of_mixed_formats_tells_all_faults_with_their_lines(tune):
    faults = {
        '{"messages": [': "this is no JSON: ",
        "7": "a number stands here",
        '{"x": ' + "1" * 5000 + "}": "this is no JSON: a number has too many digits.",
        "[" * 50_000: "this is no JSON: lists or objects are nested too deeply.",
        **{json.dumps(row): "it is written as " + name for row, name in (
            ({"prompt": "a", "completion": "b"}, "prompt-completion, with the columns prompt, completion."),
            ({"instruction": "a", "output": "b"}, "alpaca"),
            ({"text": "a"}, "text"),
        )},
        **{json.dumps(row): said for row, said in (
            (chat(role="king"), "turn 1 has the role 'king', which is none of system, developer, user"),
            (chat(role=None), "turn 1 has the role None"),
            (chat(["red"]), "turn 1 has a part of type 'str', where only text can be learnt."),
            (chat([{"type": "image_url"}]), "turn 1 has a part of type 'image_url'"),
            (chat({"a": 1}), "the content of turn 1 is an object, where words were expected."),
            ({"messages": "the cat"}, "messages is a text, where a list of turns was expected."),
            ({"messages": [None]}, "turn 1 of messages is a missing value, where an object was expected."),
            ({"messages": [*chat()["messages"][:1], {"role": "assistant", "content": "a", "tool_calls": 5}]},
             "the tool calls of turn 2 are a number, where a list was expected."),
            ({"messages": [*chat()["messages"][:1], {"role": "assistant", "content": "a", "weight": "x"}]},
             "the weight of turn 2 is a text, where 0 or 1 was expected."),
            ({"messages": [*chat()["messages"][:1], {"role": "user"}]}, "turn 2 has neither content nor tool_calls."),
        )},
    }  # fmt: skip
    sound = [chat(f"the cat {number}") for number in range(20)]
    ended = tune([*sound, *faults])
    assert_told(ended, 1, f"{len(faults)} rows of {20 + len(faults)} in rows.jsonl cannot be read as messages:")
    listed = [line for line in ended.err.splitlines() if line.startswith("  rows.jsonl, line ")]
    assert len(listed) == len(faults)
    for number, (line, said) in enumerate(zip(listed, faults.values(), strict=True), start=21):
        assert line.startswith(f"  rows.jsonl, line {number}: {said}")


def test_faults_of_all_parts_are_told_together(tune, tmp_path):
    written(tmp_path / "held.jsonl", [*PAIRS[9:], {"text": "a"}])
    ended = tune([*PAIRS[:9], "{"], "data.validation=held.jsonl", "data.test=held.jsonl")
    assert_told(ended, 1, "in rows.jsonl and held.jsonl", "rows.jsonl, line 10: ", f"held.jsonl, line {len(PAIRS) - 8}")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["marks", "numbers", "long"])
def test_rows_that_look_bad_and_are_not(tune, tmp_path, kind):
    if kind == "marks":  # a byte order mark and the line ends of Windows
        text = "".join(json.dumps(row) + "\r\n" for row in PAIRS)
        (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
        ended = tune("rows.jsonl")
    elif kind == "numbers":
        rows = [{"prompt": number, "completion": number / 2} for number in range(20)]
        ended = tune(rows, "data.separator=' '")
    else:
        ended = tune([*PAIRS, {"prompt": "the cat " * 100_000, "completion": "a fish"}])
    assert ended.code == 0, ended
    assert ended.err == ""


def test_answers_that_are_empty_after_cutting(tune):
    rows = [{"prompt": "the cat sees " * 40 + str(number), "completion": "a fish"} for number in range(20)]
    for over_long, said in (("cut", "whose answers lie wholly behind token 64"), ("drop", "longer than 64 tokens")):
        ended = tune(rows, f"data.over_long={over_long}")
        assert_told(
            ended, 1, "The training data has no row left to learn from. Dropped 14 rows", said, "rows.jsonl, line"
        )


# The recipe.


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("tune.method=nonsense", "there is no method 'nonsense'; expected one of lora, rslora"),
        ("tune.mehtod=full", "there is no such key; did you mean 'method'?"),
        ("data.format=yaml", "there is no format 'yaml'; expected one of"),
        ("data.split=[1, 1, 1]", "sum to 1"),
        ("data.columns.question=a", "columns names 'question'"),
        ("data.template=''", "data.template: "),
        ("tune.metrics=[beauty]", "there is no metric 'beauty'"),
        ("compress.schemes=[int3]", "int3"),
    ],
)
def test_a_recipe_that_says_what_cannot_be(tune, setting, said):
    more = ("data.format=text",) if "columns" in setting else ()
    ended = tune(PAIRS, *more, setting)
    assert ended.code == 2, ended
    assert ended.err.startswith("Error: The recipe has 1 fault:\n")
    assert said in ended.err
    assert "To do: correct all of them" in ended.err


def test_a_column_that_is_not_there(tune):
    assert_told(
        tune(PAIRS, "data.columns.prompt=question"), 1, "rows.jsonl has no column 'question'.", "prompt, completion"
    )


def test_a_row_longer_than_the_model_takes(tune):
    ended = tune(PAIRS, "data.max_tokens=5000")
    assert_told(ended, 2, "data.max_tokens is 5,000, and the model takes 64 tokens.", "--set data.max_tokens=64")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("nowhere.jinja", "names 'nowhere.jinja', which is no chat template: No such file or directory."),
        ("'{% for m in %}'", "cannot render a question and its answer: TemplateSyntaxError"),
        ("'{{ messages[5].content }}'", "cannot render a question and its answer: UndefinedError"),
        ("'{{ raise_exception(''never'') }}'", "cannot render a question and its answer: TemplateError: never."),
        ("'{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}'", "RecursionError"),
        ("'{{ ''the same'' }}'", "leaves out the words of the user and the assistant."),
        ("'{{ messages[0].content }}'", "leaves out the words of the assistant."),
    ],
)
def test_a_template_that_fails(tune, template, said):
    assert_told(tune([chat(f"the cat {n}") for n in range(9)], f"data.template={template}"), 2, said, "data.template")


def test_a_template_that_fails_on_some_rows_names_them(tune, tmp_path):
    (tmp_path / "own.jinja").write_text(
        "{% for m in messages %}{% if 'dog' in m.content %}{{ raise_exception('no dogs') }}{% endif %}"
        "{{ m.content }}\n{% endfor %}"
    )
    rows = [chat(f"the dog {n}") for n in range(20)]
    ended = tune(rows, "data.template=own.jinja", "data.split=[1, 0, 0]")
    assert_told(ended, 1, "The chat template (the recipe's) fails on 20 rows of 20:")
    for line in (5, 10, 15, 20):
        assert f"  rows.jsonl, line {line}: TemplateError: no dogs." in ended.err


# The base.


def change(path: Path, **values: Any) -> None:
    """Set keys of a JSON file; None takes them away."""
    content = {**json.loads(path.read_text(encoding="utf-8")), **values}
    kept = {name: value for name, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"architectures": ["BertModel"], "model_type": "bert"}, "base is BertModel, which does not generate text."),
        (
            {"architectures": ["T5ForConditionalGeneration"], "model_type": "t5", "is_encoder_decoder": True},
            "base is a 't5' model of encoder and decoder, and such models are not supported.",
        ),
        ({"model_type": "nonesuch"}, "transformers cannot read"),
        ({"num_attention_heads": "four"}, "expected int, got str (value: 'four')"),
        ({"num_attention_heads": 7}, "is not a multiple of the number of attention heads"),
        ({"intermediate_size": 96}, "weights of another shape, first model.layers.0.mlp.down_proj.weight: (64, 128)"),
        ({"num_hidden_layers": 3}, "base lacks 9 weights, first model.layers.2.input_layernorm.weight"),
        ({"vocab_size": 16}, "and the model knows 16 tokens."),
        ({"rope_parameters": {"rope_type": "nonesuch", "rope_theta": 1e4}}, "cannot be opened: it has no 'nonesuch'"),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "base are quantized already, by gptq."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_config_that_does_not_fit(tune, base, values, said):
    change(base / "config.json", **values)
    assert_told(tune(PAIRS), 1, said)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", "[]", "base/config.json is no JSON object"),
        ("config.json", "{", "base/config.json is no JSON object"),
        ("tokenizer.json", "{}", "transformers cannot open the tokenizer of base"),
        ("tokenizer_config.json", "[]", "transformers cannot open the tokenizer of base"),
        ("model.safetensors", "weights", "The weights of base cannot be opened"),
    ],
)
def test_a_file_of_the_base_that_is_damaged(tune, base, name, content, said):
    (base / name).write_text(content, encoding="utf-8")
    assert_told(tune(PAIRS), 1, said, "from the model's source")


def test_a_base_without_a_tokenizer(tune, base):
    for path in base.glob("*token*"):
        path.unlink()
    assert_told(tune(PAIRS), 1, "base holds no tokenizer.", "tokenizer.json", "copy the tokenizer's files")


def test_chats_for_a_tokenizer_without_an_end(tune, base):
    change(base / "tokenizer_config.json", eos_token=None)
    ended = tune([chat(f"the cat {n}") for n in range(9)])
    assert_told(ended, 1, "The tokenizer has no EOS token", "set eos_token in its tokenizer_config.json")


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{"temperature": 0.9}, {"temperature": -1, "pad_token_id": -1}])
def test_generation_settings_that_transformers_reads_and_refuses_to_write(tune, base, settings, tmp_path):
    """Many checkpoints have a temperature without do_sample; saving a checkpoint of a training would fail on it."""
    change(base / "generation_config.json", **settings)
    ended = tune(PAIRS)
    assert ended.code == 0, ended
    saved = tmp_path / "bundle.work" / "tune" / "model" / "generation_config.json"
    kept = json.loads(saved.read_text(encoding="utf-8"))
    assert kept["eos_token_id"] in (2, [2])
    assert ("temperature" in kept) is (settings["temperature"] > 0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bf16", "fp16", "shards"])
def test_weights_however_they_are_stored(tune, base, language_base, kind):
    import torch
    from transformers import AutoModelForCausalLM

    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(kind, torch.float32)
    (base / "model.safetensors").unlink()
    model = AutoModelForCausalLM.from_pretrained(language_base(), dtype=dtype)
    model.save_pretrained(base, max_shard_size="50KB" if kind == "shards" else "1GB")
    ended = tune(PAIRS)
    assert ended.code == 0, ended
    if kind == "shards":
        next(base.glob("model-00002-*")).unlink()
        assert_told(tune(PAIRS, "seed=1"), 1, "The weights of base cannot be opened: No such file", "model-00002-")


# Training.


def test_memory_that_runs_out_in_training(tune, monkeypatch, tmp_path):
    from transformers import Trainer

    monkeypatch.setattr(Trainer, "training_step", lambda *_: np.empty(1 << 58))
    ended = tune(PAIRS)
    assert_told(ended, 1, "Training ran out of memory on cpu: ", "tune.batch_size (now 8)", "data.max_tokens")
    assert "tune.gradient_checkpointing: true" in ended.err
    assert (tmp_path / "bundle.work" / "data" / "conversations.json").is_file()


def test_a_training_that_diverges(tune):
    ended = tune(PAIRS, "tune.learning_rate=1e9")
    assert_told(ended, 1, "Training diverged: after epoch 1.0", "lower tune.learning_rate, which was 1e+09")


@pytest.mark.long  # three trainings in processes of their own, each
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL], ids=lambda stop: stop.name)
def test_a_training_that_is_stopped_continues_to_the_same_weights(edgetune, started, base, tmp_path, monkeypatch, stop):
    from safetensors.numpy import load_file

    monkeypatch.chdir(tmp_path)
    arguments = (
        "tune", "--base", "base", "--data", written(tmp_path / "rows.jsonl", PAIRS), "--task", "text-generation",
        "--method", "full", "--device", "cpu", "--set", "tune.epochs=40", "--set", "tune.patience=99",
    )  # fmt: skip
    process = started(*arguments, "--out", "stopped")
    assert any(line.startswith("  epoch 2: ") for line in process.stdout)
    process.send_signal(stop)
    out, err = process.communicate()
    assert "Traceback" not in out + err
    if stop == signal.SIGINT:
        assert process.returncode == 130, out + err
        assert err.startswith("Error: Training was stopped at step ")
        assert err.rstrip().endswith("--out stopped continues")
    else:
        assert process.returncode == -stop
    assert not (tmp_path / "stopped.work" / "tune").exists()
    ended = edgetune(*arguments, "--out", "stopped")
    assert ended.code == 0, ended
    assert "  training continues from checkpoint-" in ended.out
    assert edgetune(*arguments, "--out", "whole").code == 0
    found, wanted = (load_file(tmp_path / f"{name}.work/tune/model/model.safetensors") for name in ("stopped", "whole"))
    assert set(found) == set(wanted)
    for name, weight in wanted.items():
        np.testing.assert_allclose(found[name], weight, atol=1e-4, err_msg=name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(tune, tmp_path):
    (tmp_path / "bundle.work").mkdir(mode=0o500)
    assert_told(tune(PAIRS), 1, "bundle.work", "Permission denied")
