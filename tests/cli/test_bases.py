"""Bases that a build would refuse at its end are refused before anything is tuned, in `--plan` as in `tune`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.bases import END
from tests.cli.here import Command
from tests.conftest import toy_sentences


@pytest.fixture
def run(edgetune: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    """`run("tune")` or `run("build", "--plan")` with the folder `base` and the toy sentences."""
    monkeypatch.chdir(tmp_path)
    rows = [{"text": text, "label": label} for text, label in toy_sentences()]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = ("--base", "base", "--data", "rows.jsonl", "--task", "text-classification", "--method", "probe")
    return lambda *arguments: edgetune(*arguments, *settings, "--device", "cpu", "--out", "bundle")


def not_a_number(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layer.1.output.dense.bias"][0] = torch.inf
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def more_tokens(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["<user>"])
    tokenizer.save_pretrained(folder)


def odd_labels(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config |= {"id2label": {"LABEL_0": "card"}, "architectures": ["BertForSequenceClassification"]}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")


def adapter(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "base_model_name_or_path": "some/model"}
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")


def graph_alone(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model.onnx")


def as_it_is(folder: Path) -> None:
    pass


REFUSED: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "weights that are no numbers": ("bert", not_a_number, "no finite numbers: bert.encoder.layer.1.output.dense.bias"),
    "tokens without embeddings": ("bert", more_tokens, "has 1 tokens with ids from"),
    "odd label keys": ("bert", odd_labels, "id2label of base/config.json has the keys 'LABEL_0'"),
    "an adapter": ("bert", adapter, "base is a LoRA adapter of some/model, not a model"),
    "a graph": ("bert", graph_alone, "base holds an ONNX graph and no weights for PyTorch"),
    "encoder and decoder": ("bart_classifier", as_it_is, "base is a 'bart' model of encoder and decoder"),
    "no attention mask": ("fnet", as_it_is, "base is a 'fnet' model, which has no attention mask"),
    "padding is read": ("convbert", as_it_is, "A 'convbert' model answers a text otherwise beside longer ones"),
}


@pytest.mark.parametrize("command", [("tune",), ("build", "--plan")], ids=["tune", "plan"])
@pytest.mark.parametrize("name", REFUSED)
def test_a_base_is_refused_before_tuning(
    run: Command, tiny_base: Callable[[str], Path], tmp_path: Path, name: str, command: tuple[str, ...]
) -> None:
    base, damage, words = REFUSED[name]
    damage(Path(shutil.copytree(tiny_base(base), tmp_path / "base")))
    ended = run(*command)
    assert ended.code == 1, ended
    assert ended.err.startswith("Error: ")
    for fact in (words, "Expected: ", "To do: "):
        assert fact in ended.err
    assert "Traceback" not in ended.err + ended.out
    assert not (tmp_path / "bundle.work" / "tune").exists()


@pytest.mark.slow
def test_a_base_without_a_graph_is_refused_before_tuning(
    run: Command, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_base("longformer"), tmp_path / "base")
    ended = run("build", "--plan")
    assert ended.code == 1, ended
    assert "cannot make a graph of base, a 'longformer' model" in ended.err


@pytest.mark.slow
def test_a_plan_says_what_pads_a_decoder_and_how_it_is_pooled(
    run: Command, tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_base("gpt2_classifier"), tmp_path / "base")
    ended = run("build", "--plan")
    assert ended.code == 0, ended
    assert f"The base has no padding token; {END!r} is taken" in " ".join(ended.out.split())
    assert "pooling last" in ended.out
