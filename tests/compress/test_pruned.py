"""Pruning of feed-forward columns: importance against a numeric gate, and columns that are known to be worthless."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.compress import distillation
from edgetune.compress.importance import best_columns, column_importance
from edgetune.compress.schemes import pruned
from edgetune.compress.structure import (
    LAYOUTS,
    Shape,
    feed_forward,
    read_shape,
    with_columns,
    write_cut,
)
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.tasks import TASKS

torch = pytest.importorskip("torch")

LABELLING = TASKS["text-classification"]

FOUR = TASKS["text-classification"].objective(tuple("abcd"), "", ())

ARCHITECTURES = "bert distilbert roberta electra albert mpnet deberta_v2 modernbert xlm_roberta".split()


def _opened(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(5)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=4).eval()
    return model, AutoTokenizer.from_pretrained(folder)


def _logits(model: Any, tokenizer: Any, texts: list[str]) -> Any:
    with torch.no_grad():
        return model(**tokenizer(texts, padding=True, return_tensors="pt")).logits


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_columns_worth_nothing_go_and_nothing_changes(
    name: str, tiny_base: Callable[[str], Path], toy_dataset: Callable[[], Any], tmp_path: Path
) -> None:
    from edgetune.tune.models.model import open_model

    model, tokenizer = _opened(tiny_base(name))
    train = toy_dataset().train
    texts, labels = train.texts[:40], train.targets[:40]
    blocks, columns = feed_forward(model), read_shape(tiny_base(name)).columns
    worthless = [list(range(layer % 2, columns, 2)) for layer in range(len(blocks))]  # even ones, odd ones, ...
    with torch.no_grad():
        for (_, down), places in zip(blocks, worthless, strict=True):
            down.weight[:, places] = 0
    before = {key: weight.clone() for key, weight in model.state_dict().items()}

    importance = column_importance(model, Encoder(tokenizer, 96, LABELLING), texts, np.asarray(labels), FOUR)
    assert importance.shape == (len(blocks), columns)
    for row, places in zip(importance, worthless, strict=True):
        assert sorted(np.flatnonzero(row == 0).tolist()) == places
    assert all(torch.equal(weight, before[key]) for key, weight in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())

    fewest = columns // 2
    kept = best_columns(importance, fewest)
    assert [sorted({*range(columns)} - set(row)) for row in kept] == worthless
    cut = with_columns(model, kept)
    write_cut(cut, tiny_base(name), tmp_path)
    narrow = open_model(tmp_path / "model")
    assert read_shape(tmp_path / "model") == replace(read_shape(tiny_base(name)), columns=fewest)
    assert [down.in_features for _, down in feed_forward(narrow)] == [fewest] * len(blocks)
    answers = _logits(narrow, tokenizer, list(texts))
    assert torch.allclose(answers, _logits(model, tokenizer, list(texts)), atol=1e-5)


@pytest.mark.parametrize("name", ["bert", "albert", "modernbert"])
def test_importance_is_what_a_closing_gate_does_to_the_loss(
    name: str, tiny_base: Callable[[str], Path], toy_dataset: Callable[[], Any]
) -> None:
    model, tokenizer = _opened(tiny_base(name))
    train = toy_dataset().train
    texts, labels = train.texts[:2], train.targets[:2]
    importance = column_importance(model, Encoder(tokenizer, 96, LABELLING), texts, np.asarray(labels), FOUR)

    def losses() -> Any:
        expected = torch.tensor(labels)
        logits = torch.cat([_logits(model, tokenizer, [text]) for text in texts]).double()
        return torch.nn.functional.cross_entropy(logits, expected, reduction="none")

    weight, column, step = feed_forward(model)[-1][1].weight, 3, 0.02
    whole = weight[:, column].detach().clone()
    seen = []
    for gate in (1 + step, 1 - step):  # a gate on a column is a factor on its outgoing weights
        with torch.no_grad():
            weight[:, column] = whole * gate
        seen.append(losses())
    expected = float(((seen[0] - seen[1]) / (2 * step)).abs().mean())
    assert expected > 1e-5
    assert importance[-1, column] == pytest.approx(expected, rel=0.05)


def test_the_best_columns_are_in_order_and_ties_go_to_the_first() -> None:
    importance = np.array([[0.1, 3.0, 0.2, 2.0], [1.0, 1.0, 1.0, 1.0]])
    assert best_columns(importance, 2) == [[1, 3], [0, 1]]


def test_columns_are_kept_in_blocks() -> None:
    def kept(columns: int, percent: int) -> int:
        return pruned.columns_kept(Shape(LAYOUTS["bert"], 6, columns), percent)

    assert [kept(1536, percent) for percent in (75, 50, 25)] == [1152, 768, 384]
    assert [kept(3072, percent) for percent in (75, 50, 25)] == [2304, 1536, 768]
    assert kept(1152, 75) == 896  # 864 is no multiple of 64
    assert [kept(64, percent) for percent in (75, 50, 25)] == [48, 32, 16]
    assert kept(8, 50) == 8


def test_what_makes_pruning_unsuitable_is_said(tiny_material: Callable[[str], Any], tmp_path: Path) -> None:
    material, _ = tiny_material("bert")
    assert pruned.unsuitable(material) == (
        f"there are {len(material.train)} labelled texts to learn from, and pruning needs some hundreds"
    )
    (tmp_path / "model").mkdir()
    config = {"model_type": "bert", "num_hidden_layers": 2, "intermediate_size": 8}
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    narrow = replace(material, model=replace(material.model, folder=tmp_path))
    assert pruned.unsuitable(narrow) == "8 feed-forward columns are too few to take blocks away"
    assert pruned.strengths(material) == (75, 50, 25)


def test_a_pruned_model_is_smaller_answers_as_its_teacher_and_exports(
    agreeing_material: Callable[[str], Any],
    toy_dataset: Callable[[], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import AutoTokenizer

    from edgetune.export.once.export import export
    from edgetune.tune.models.forward import model_logits
    from edgetune.tune.models.model import open_model

    monkeypatch.setattr(distillation, "MOST_PASSES", 40)
    material = agreeing_material("bert")
    folder, source = tmp_path / "pruned50", material.model.model_folder
    line = pruned.compress(material, folder, 50)
    assert line.startswith(f"32 of 64 feed-forward columns by first-order importance on {len(material.train)} texts")
    assert [path.name for path in folder.iterdir()] == ["model"]
    assert read_shape(folder / "model").columns == 32
    sizes = [(place / "model.safetensors").stat().st_size for place in (folder / "model", source)]
    assert sizes[0] < sizes[1]
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    texts, most = material.train.texts, material.model.max_tokens
    teacher, after = (
        model_logits(open_model(place), Encoder(tokenizer, most, LABELLING), texts).argmax(axis=1)
        for place in (source, folder / "model")
    )
    # The labels are the teacher's answers: a student of half the width can learn nearly all of them.
    assert np.mean(after == teacher) > 0.6
    graph = export(replace(material.model, folder=folder), toy_dataset(), "cpu", tmp_path / "graph", material.progress)
    assert graph.fused
    assert graph.max_abs_diff < 1e-3


def test_without_the_best_columns_a_model_answers_worse_than_without_the_worst(
    tiny_material: Callable[[str], Any],
) -> None:
    from transformers import AutoTokenizer

    from edgetune.tune.models.forward import model_logits
    from edgetune.tune.models.model import open_model

    material, _ = tiny_material("bert")
    teacher = open_model(material.model.model_folder)
    tokenizer = AutoTokenizer.from_pretrained(material.model.model_folder)
    texts, most = material.train.texts, material.model.max_tokens
    with torch.no_grad():  # half of the columns hardly matter, by their outgoing weights
        for _, down in feed_forward(teacher):
            down.weight[:, ::2] *= 0.01
    importance = column_importance(
        teacher, Encoder(tokenizer, most, LABELLING), texts, np.asarray(material.train.targets), FOUR
    )
    wanted, best, worst = (
        model_logits(model, Encoder(tokenizer, most, LABELLING), texts)
        for model in (
            teacher,
            with_columns(teacher, best_columns(importance, 32)),
            with_columns(teacher, best_columns(-importance, 32)),
        )
    )
    assert np.abs(best - wanted).mean() < 0.2 * np.abs(worst - wanted).mean()
