"""Students: the layers they keep, by weights whose effect is known, and the whole way from a teacher to a graph."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgetune.compress import distillation, soft_labels
from edgetune.compress.distillation import schooling_for
from edgetune.compress.schemes import student
from edgetune.compress.seen_embedding import SeenEmbedding, restore_embedding, train_seen_only
from edgetune.compress.soft_labels import Teacher
from edgetune.compress.structure import LAYOUTS, read_shape, spread_layers, with_layers, write_cut
from edgetune.serve.errors import CompressError
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.model import TunedModel
from edgetune.tune.tasks import TASKS

torch = pytest.importorskip("torch")

LABELLING = TASKS["text-classification"]

# As in tests/conftest.py, and a pooled classifier, which has a trunk by another name.
ARCHITECTURES = "bert distilbert roberta electra albert mpnet deberta_v2 modernbert xlm_roberta pooled".split()


@pytest.fixture(scope="module")
def classifier(tiny_base: Callable[[str], Path]) -> Callable[[str], Any]:
    """A new tiny classifier of an architecture, its head random."""

    def opened(name: str) -> Any:
        from transformers import AutoModelForSequenceClassification

        torch.manual_seed(5)
        if name == "pooled":
            return _pooled(tiny_base("mpnet"))
        return AutoModelForSequenceClassification.from_pretrained(tiny_base(name), num_labels=4).eval()

    return opened


def _pooled(folder: Path) -> Any:
    from transformers import AutoConfig, AutoModel

    from edgetune.tune.models.classifier import PooledClassifier, trunk_options

    config = AutoConfig.from_pretrained(folder, num_labels=4)
    config.edgetune_pooling = "mean"
    trunk = AutoModel.from_pretrained(folder, config=config, **trunk_options(config))
    model = PooledClassifier(trunk.config, trunk).eval()
    torch.nn.init.normal_(model.classifier.weight)
    return model


def _logits(model: Any, rows: int = 3, tokens: int = 30) -> Any:
    ids = torch.arange(5, 5 + rows * tokens).reshape(rows, tokens) % 150 + 5
    mask = torch.ones_like(ids)
    mask[1, 12:] = 0
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits


def _config_only(material: Any, folder: Path, **fields: Any) -> Any:
    """The material with a model folder that holds no more than a config."""
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text(json.dumps(fields))
    return replace(material, model=replace(material.model, folder=folder))


def test_a_student_spreads_over_first_and_last_layer() -> None:
    assert spread_layers(6, 1) == (0,)
    assert spread_layers(6, 2) == (0, 5)
    assert spread_layers(6, 3) == (0, 2, 5)
    assert spread_layers(12, 6) == (0, 2, 4, 7, 9, 11)
    assert spread_layers(22, 4) == (0, 7, 14, 21)


def test_strengths_go_from_half_the_layers_to_one(tiny_material: Callable[[str], Any], tmp_path: Path) -> None:
    material, _ = tiny_material("bert")
    bert = {"model_type": "bert", "intermediate_size": 64}
    six = _config_only(material, tmp_path / "six", num_hidden_layers=6, **bert)
    twelve = _config_only(material, tmp_path / "twelve", num_hidden_layers=12, **bert)
    assert student.strengths(six) == (3, 2, 1)
    assert student.strengths(twelve) == (6, 4, 3, 2, 1)
    for layers in (1, 2, 3):  # never none, even where it is named for a model that has few
        few = _config_only(material, tmp_path / f"few{layers}", num_hidden_layers=layers, **bert)
        assert student.strengths(few) == (1,)


def test_what_makes_a_student_unsuitable_is_said(tiny_material: Callable[[str], Any], tmp_path: Path) -> None:
    material, _ = tiny_material("bert")
    assert student.unsuitable(material) == "the model has 2 layers, and there is little to leave out below 4"
    deep = _config_only(material, tmp_path / "a", model_type="bert", num_hidden_layers=6, intermediate_size=64)
    assert student.unsuitable(deep).endswith("texts to learn from, and a student needs some hundreds")
    assert student.unsuitable(replace(deep, unlabeled=("a text",) * 500)) == ""
    strange = _config_only(material, tmp_path / "b", model_type="gpt2")
    assert student.unsuitable(strange) == "where a 'gpt2' model keeps its layers is not known"
    groups = {"model_type": "albert", "num_hidden_layers": 6, "intermediate_size": 64, "num_hidden_groups": 2}
    shared = _config_only(material, tmp_path / "c", **groups)
    assert student.unsuitable(shared) == "its layers are shared in several groups"
    with pytest.raises(CompressError, match="cannot be cut: its layers are shared"):
        read_shape(shared.model.model_folder)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_cut_model_opens_from_its_folder_and_answers_the_same(
    name: str, classifier: Callable[[str], Any], tiny_base: Callable[[str], Path], tmp_path: Path
) -> None:
    from edgetune.tune.models.model import open_model

    teacher = classifier(name)
    layout = LAYOUTS[teacher.config.model_type]
    kept = (0, 2) if name == "modernbert" else (0,)
    cut = with_layers(teacher, kept)
    source = tiny_base("mpnet" if name == "pooled" else name)
    write_cut(cut, source, tmp_path)
    opened = open_model(tmp_path / "model")
    assert opened.config.num_hidden_layers == len(kept)
    assert read_shape(tmp_path / "model").layers == len(kept)
    if name == "modernbert":
        assert opened.config.layer_types == ["full_attention", "sliding_attention"]
    stack = opened.base_model.get_submodule(layout.layers)
    whole = teacher.base_model.get_submodule(layout.layers)
    assert len(stack) == len(kept)
    for place, layer in enumerate(kept):  # the very weights of the teacher's layer
        weights, expected = stack[place].state_dict(), whole[layer].state_dict()
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[key], expected[key]) for key in weights)
    assert torch.equal(_logits(opened), _logits(cut))
    assert not torch.allclose(_logits(cut), _logits(teacher), atol=1e-3)
    fewer = sum(weight.numel() for weight in cut.parameters()) < sum(weight.numel() for weight in teacher.parameters())
    assert fewer is not layout.shared
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert {path.name for path in source.iterdir()} == {path.name for path in (tmp_path / "model").iterdir()}


def test_leaving_out_a_layer_that_does_nothing_changes_nothing(classifier: Callable[[str], Any]) -> None:
    teacher = classifier("bert")
    idle = teacher.bert.encoder.layer[1]
    with torch.no_grad():  # both blocks add nothing, and a norm of what is normed already is what it was
        for dense in (idle.attention.output.dense, idle.output.dense):
            dense.weight.zero_()
            dense.bias.zero_()
    assert torch.allclose(_logits(with_layers(teacher, (0,))), _logits(teacher), atol=1e-4)


def test_only_the_rows_that_occur_are_trained_and_put_back(classifier: Callable[[str], Any]) -> None:
    model = classifier("roberta")
    before, logits = model.roberta.embeddings.word_embeddings.weight.detach().clone(), _logits(model)
    train_seen_only(model, range(5, 155))
    table = model.get_input_embeddings()
    assert isinstance(table, SeenEmbedding)
    assert table.weight.shape == (150, 32)
    assert torch.equal(_logits(model), logits)
    with torch.no_grad():
        table.weight[10 - 5] += 1
    restore_embedding(model)
    after = model.roberta.embeddings.word_embeddings.weight
    changed = torch.nonzero((after != before).any(dim=1)).flatten().tolist()
    assert changed == [10]
    assert torch.equal(after[10], before[10] + 1)


def test_passes_fall_with_the_texts_and_the_rate_with_the_width() -> None:
    assert schooling_for(8_992, 384).passes == 4
    assert schooling_for(100, 384).passes == distillation.MOST_PASSES
    assert schooling_for(1_000_000, 384).passes == distillation.FEWEST_PASSES
    rates = [schooling_for(9_000, width).rate for width in (768, 384, 192, 32)]
    assert rates == pytest.approx([2.5e-4, 5e-4, 1e-3, 2e-3])


def test_lessons_hold_every_text_once_with_its_label_if_known(
    tiny_material: Callable[[str], Any], tmp_path: Path
) -> None:
    from edgetune.tune.models.forward import model_logits
    from edgetune.tune.models.model import open_model

    material, _ = tiny_material("bert")
    more = ("something new", material.train.texts[0], material.validation.texts[0], "something new")
    teacher = Teacher.open(replace(material, unlabeled=more), tmp_path)
    n = len(material.train)
    assert len(teacher.train) == n + 1
    assert teacher.train.targets[:-1].tolist() == list(material.train.targets)
    assert teacher.train.known.tolist() == [True] * len(material.train) + [False]
    assert teacher.validation.targets.tolist() == list(material.validation.targets)
    texts = [*material.train.texts, "something new"]
    most = material.model.max_tokens
    expected = model_logits(
        open_model(material.model.model_folder), Encoder(teacher.encoder.tokenizer, most, LABELLING), texts
    )
    spread = float(np.abs(expected).max())
    assert np.abs(teacher.train.answers - expected).max() < 0.05 * spread  # bf16 in the trunk
    assert teacher.train.answers.shape == (n + 1, 4)
    assert teacher.train.states.shape == (n + 1, 32)


@pytest.mark.parametrize("whose", ["its own", "another order's", "another trunk's", "nobody's"])
def test_what_tuning_left_of_the_teacher_is_not_computed_again(
    tiny_material: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    material, _ = tiny_material("bert")
    material = replace(material, unlabeled=("something new", "and more"))
    expected = Teacher.open(material, tmp_path / "expected")
    states = material.model.head_features()
    assert states is not None  # of the probe's trunk, which is handed on
    assert states.shape == (len(material.train) + len(material.validation), 32)
    left = {"its own": states, "another order's": states[::-1], "another trunk's": states[:, :16], "nobody's": None}
    monkeypatch.setattr(TunedModel, "head_features", lambda _: left[whose])
    asked, features = [], soft_labels.head_features

    def counted(*arguments: Any, **options: Any) -> Any:
        asked.append(len(arguments[2]))
        return features(*arguments, **options)

    monkeypatch.setattr(soft_labels, "head_features", counted)
    teacher = Teacher.open(material, tmp_path / "again")
    sample, rest = soft_labels.COMPARED, 2 if whose == "its own" else len(states) + 2
    assert asked == [rest] if whose == "nobody's" else [sample, rest]
    for part, other in ((teacher.train, expected.train), (teacher.validation, expected.validation)):
        np.testing.assert_allclose(part.states, other.states, atol=0.05 * float(np.abs(states).max()))
        assert np.abs(part.answers - other.answers).max() < 0.05 * float(np.abs(other.answers).max())


@pytest.fixture(scope="module")
def taught(agreeing_material: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Two students of one teacher in sibling folders, the lines they gave, and how often the teacher was asked.

    The labels are the teacher's own answers, which lets a student learn all of them, whatever a processor's rounding
    made of the teacher; and they are judged on what they learn from.
    """
    material = agreeing_material("bert")
    material = replace(material, validation=material.train)
    folder, asked = tmp_path_factory.mktemp("students"), []
    features = soft_labels.head_features
    with pytest.MonkeyPatch.context() as patch:

        def counted(*arguments: Any, **options: Any) -> Any:
            asked.append(len(arguments[2]))
            return features(*arguments, **options)

        patch.setattr(soft_labels, "head_features", counted)
        patch.setattr(distillation, "MOST_PASSES", 40)
        lines = [student.compress(material, folder / name, 1) for name in ("first", "second")]
    return {"material": material, "folder": folder, "lines": lines, "asked": asked}


def test_the_teacher_is_asked_once_for_all_students(taught: dict[str, Any]) -> None:
    material = taught["material"]
    assert taught["asked"] == [len(material.train) + len(material.unlabeled) + len(material.validation)]
    names = sorted(path.name for path in taught["folder"].iterdir())
    assert names[:2] == ["first", "second"]
    assert len(names) == 3
    assert names[2].startswith("teacher-")


def test_the_same_seed_gives_the_same_student(taught: dict[str, Any]) -> None:
    first, second = (taught["folder"] / name / "model" / "model.safetensors" for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()
    assert taught["lines"][0] == taught["lines"][1]


def test_a_student_is_smaller_answers_as_its_teacher_and_exports(
    taught: dict[str, Any], toy_dataset: Callable[[], Any], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    from edgetune.export.once.export import export
    from edgetune.tune.models.forward import model_logits
    from edgetune.tune.models.model import open_model

    material, folder = taught["material"], taught["folder"] / "first"
    source = material.model.model_folder
    assert [path.name for path in folder.iterdir()] == ["model"]
    assert {path.name for path in (folder / "model").iterdir()} == {path.name for path in source.iterdir()}
    weights = (folder / "model" / "model.safetensors", source / "model.safetensors")
    assert weights[0].stat().st_size < weights[1].stat().st_size

    teacher, learnt = open_model(source), open_model(folder / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    texts = material.train.texts
    wanted, untaught, answers = (
        model_logits(model, Encoder(tokenizer, material.model.max_tokens, LABELLING), texts).argmax(axis=1)
        for model in (teacher, with_layers(teacher, (0,)), learnt)
    )
    # 4 classes: one layer without the other answers otherwise on more than half of the texts, the student on few.
    assert np.mean(answers != wanted) < 0.5 * np.mean(untaught != wanted)
    assert f"1 of 2 layers, taught in 40 passes over {2 * len(texts)} texts" in taught["lines"][0]

    graph = export(replace(material.model, folder=folder), toy_dataset(), "cpu", tmp_path, material.progress)
    assert graph.fused
    assert graph.max_abs_diff < 1e-3
