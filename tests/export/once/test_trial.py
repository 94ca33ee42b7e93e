"""The trial of a base before tuning: what the build would find out at its end, from a few rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.export.once import trial
from edgetune.export.once.tokenizer import check_tokenizer
from edgetune.export.once.trial import try_base
from edgetune.serve.errors import ExportError, ModelError, ParityError
from edgetune.tune.models.base import find_base
from edgetune.tune.models.opening import Opened, open_base
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from tests.conftest import toy_sentences

LABELS = ("card", "cash", "login", "transfer")
TEXTS = [text for text, _ in toy_sentences()]
PAIRS = list(zip(TEXTS, TEXTS[::-1], strict=True))


def opened(folder: Path, task: str = "text-classification", **options: Any) -> Opened:
    chosen = TASKS[task]
    return open_base(find_base(str(folder)), chosen, chosen.objective(LABELS, "", ()), TuneRecipe(**options))


@pytest.fixture
def no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: Any, **options: Any) -> None:
        raise ExportError("a graph was tried")

    monkeypatch.setattr(trial, "write_graph", refused)


@pytest.mark.parametrize("name", ["bert", "mpnet", "modernbert"])
@pytest.mark.usefixtures("no_graph")
def test_architectures_of_the_tests_need_no_graph(tiny_base: Callable[[str], Path], name: str) -> None:
    base = opened(tiny_base(name))
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    try_base(base, name, TEXTS)
    assert all((weight == before[name]).all() for name, weight in base.model.state_dict().items())


@pytest.mark.usefixtures("no_graph")
def test_one_with_other_settings_does(tiny_base: Callable[[str], Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_base("bert"), tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "relu"}))
    with pytest.raises(ExportError, match="a graph was tried"):
        try_base(opened(folder), "it", TEXTS)


@pytest.mark.parametrize("texts", [TEXTS, ["card"], ["card"] * 9])
@pytest.mark.usefixtures("no_graph")
def test_a_model_that_reads_its_padding_is_refused(tiny_base: Callable[[str], Path], texts: list[str]) -> None:
    with pytest.raises(ParityError, match=r"'convbert' model answers a text otherwise beside longer ones than alone"):
        try_base(opened(tiny_base("convbert")), "it", texts)


def test_a_model_that_does_not_run_is_refused(
    tiny_base: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = opened(tiny_base("bert"))

    def wants_more(*arguments: Any, **inputs: Any) -> None:
        raise ValueError("You have to specify pixel_values\nand more")

    monkeypatch.setattr(base.model.bert, "forward", wants_more)
    with pytest.raises(ModelError, match=r"does not run on texts alone: ValueError: You have") as told:
        try_base(base, "it", TEXTS)
    assert told.value.found.startswith("A 'bert' model")
    assert told.value.found.endswith("pixel_values")


@pytest.mark.slow
def test_a_model_that_cannot_be_traced_is_refused(tiny_base: Callable[[str], Path]) -> None:
    with pytest.raises(ExportError, match="cannot make a graph of it, a 'longformer' model") as told:
        try_base(opened(tiny_base("longformer")), "it", TEXTS)
    assert "\n" not in told.value.found


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama_classifier", pytest.param("sentence_t5", marks=pytest.mark.long)])
def test_a_graph_is_made_of_the_first_layers_and_the_model_left_as_it_was(
    tiny_base: Callable[[str], Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, layers = opened(tiny_base(name)), []
    write = trial.write_graph

    def seen(model: Any, *arguments: Any, **options: Any) -> Path:
        layers.append(len(trial.layer_list(model)))
        return write(model, *arguments, **options)

    monkeypatch.setattr(trial, "write_graph", seen)
    before = {name: weight.clone() for name, weight in base.model.state_dict().items()}
    try_base(base, name, TEXTS)
    assert layers == [2]
    after = base.model.state_dict()
    assert list(after) == list(before)
    assert all((weight == before[name]).all() for name, weight in after.items())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(("task", "inputs"), [("text-classification", TEXTS), ("text-pair-classification", PAIRS)])
@pytest.mark.parametrize("name", ["roberta", "qwen3_embedding", "xlnet"])
def test_the_runtime_feeds_what_training_fed_on_both_sides_of_truncation(
    tiny_base: Callable[[str], Path], tmp_path: Path, name: str, task: str, inputs: list[Any], side: str
) -> None:
    folder = Path(shutil.copytree(tiny_base(name), tmp_path / "base"))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "truncation_side": side}))
    base = opened(folder, task, max_tokens=24)
    base.encoder.tokenizer.save_pretrained(tmp_path / "saved")
    base.model.config.save_pretrained(tmp_path / "saved")

    check_tokenizer(tmp_path / "saved" / "tokenizer.json", base.encoder, inputs)

    whole = " ".join(TEXTS[:6])
    text = whole if task == "text-classification" else (whole, whole)
    (row,) = base.encoder.rows([text])
    kept = base.encoder.tokenizer.decode(row["input_ids"], skip_special_tokens=True)
    first, last = whole.split()[0], whole.split()[-1]
    assert len(row["input_ids"]) == 24
    assert (last in kept) == (side == "left") or first == last


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda tokenizer: setattr(tokenizer, "truncation_side", "left"), "the beginning is cut in training alone"),
        (lambda tokenizer: setattr(tokenizer, "pad_token", "[MASK]"), "padding has another id"),
        (lambda tokenizer: setattr(tokenizer, "padding_side", "left"), "padding is on the other side"),
    ],
)
def test_another_feed_is_refused(
    tiny_base: Callable[[str], Path], tmp_path: Path, change: Callable[[Any], None], what: str
) -> None:
    base = opened(tiny_base("bert"), max_tokens=24)
    base.encoder.tokenizer.save_pretrained(tmp_path)
    base.model.config.save_pretrained(tmp_path)
    check_tokenizer(tmp_path / "tokenizer.json", base.encoder, TEXTS)
    change(base.encoder.tokenizer)
    with pytest.raises(ParityError, match="gives other ids"):
        check_tokenizer(tmp_path / "tokenizer.json", base.encoder, ["card", "cash machine"])


def test_rows_for_the_trial_are_unlike_in_length() -> None:
    for texts in (["card"], ["card"] * 20, TEXTS):
        sizes = np.array([len(text.split()) for text in trial._spread(texts)])
        assert sizes.max() >= 40
        assert sizes.min() < 5
