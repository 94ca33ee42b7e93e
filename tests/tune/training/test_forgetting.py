"""A task learnt after another: labels and rows joined, what matters to the earlier one measured, forgetting told."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from edgetune.commands.recipe_options import tuned_model_folder
from edgetune.once.plan import load_data
from edgetune.recipe import read_recipe
from edgetune.serve.errors import RecipeError
from edgetune.tune.data.dataset import Dataset, Part
from edgetune.tune.data.remembered import with_remembered
from edgetune.tune.methods import METHODS
from edgetune.tune.models.base import find_base
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import open_model
from edgetune.tune.models.opening import open_base
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.fisher import fisher_diagonal
from edgetune.tune.training.forgetting import memory_anchor
from edgetune.tune.training.progress import Silent
from edgetune.tune.tuning import tune

LABELLING = TASKS["text-classification"]


def of_labels(dataset, labels):
    """The rows of some labels, numbered anew."""

    def cut(part):
        rows = [(t, labels.index(dataset.labels[n])) for t, n in zip(part.texts, part.targets, strict=True)
                if dataset.labels[n] in labels]  # fmt: skip
        return Part(tuple(text for text, _ in rows), tuple(number for _, number in rows))

    parts = {name: cut(getattr(dataset, name)) for name in ("train", "validation", "test")}
    return replace(dataset, labels=labels, **parts).with_digest()


@pytest.fixture
def tasks(toy_dataset):
    """Two data sets: two of the toy labels each."""
    whole = toy_dataset()
    return of_labels(whole, whole.labels[2:]), of_labels(whole, whole.labels[:2])


def words(dataset, part):
    return [(text, dataset.labels[number]) for text, number in zip(part.texts, part.targets, strict=True)]


def test_labels_and_rows_are_joined_the_earlier_labels_first(tasks, tmp_path):
    new, earlier = tasks
    joined = with_remembered(new, earlier, 0.25, seed=3)
    assert joined.labels == (*earlier.labels, *new.labels)
    replayed = joined.remembered.replayed
    assert replayed == round(0.25 * len(earlier.train)) > 0
    assert words(joined, joined.train)[: len(new.train)] == words(new, new.train)
    assert joined.train.texts[len(new.train) :] == joined.remembered.train.texts[:replayed]
    assert sorted(words(joined, joined.remembered.train)) == sorted(words(earlier, earlier.train))
    assert words(joined, joined.test) == words(new, new.test) + words(earlier, earlier.test)
    assert joined.remembered.test_rows == len(earlier.test)
    assert joined.remembered.unseen.texts == joined.remembered.train.texts[replayed:]
    assert f"{replayed} of them learnt again; the new rows add 2 labels." in joined.findings[-1]
    assert joined.digest not in (new.digest, with_remembered(new, earlier, 0.0, seed=3).digest)
    joined.save(tmp_path)
    assert Dataset.open(tmp_path) == joined


def test_no_row_of_the_earlier_task_judges_that_was_learnt(tasks):
    new, earlier = tasks
    leaking = replace(
        earlier,
        train=Part((*earlier.train.texts, new.test.texts[0]), (*earlier.train.targets, 0)),
        test=Part((*earlier.test.texts, new.train.texts[0]), (*earlier.test.targets, 1)),
    )
    joined = with_remembered(new, leaking, 0.0, seed=0)
    assert new.test.texts[0] not in joined.remembered.train.texts
    assert joined.test.texts == (*new.test.texts, *earlier.test.texts)


def test_the_fisher_information_of_a_bias_is_known_by_hand(tiny_base, tasks):
    new, _ = tasks
    recipe = TuneRecipe(method="full")
    opened = open_base(find_base(str(tiny_base("bert"))), LABELLING, LABELLING.objective("abc", "", ()), recipe)
    with torch.no_grad():
        opened.model.classifier.weight.normal_(std=0.5)
    model, texts = METHODS["full"].prepare(opened.model, recipe), new.train.texts[:1]
    fisher = fisher_diagonal(model, opened.encoder, texts, seed=0, progress=Silent())
    probabilities = torch.tensor(model_logits(model, opened.encoder, texts)[0]).softmax(-1)
    by_label = [(probabilities - torch.eye(3)[label]).square() for label in range(3)]
    assert any(torch.allclose(fisher["classifier.bias"], square, atol=1e-6) for square in by_label)
    assert set(fisher) == {name for name, _ in model.named_parameters()}
    assert all(bool((values >= 0).all()) for values in fisher.values())


def test_ewc_holds_weights_and_says_where_it_has_none(tiny_base, tasks):
    joined = with_remembered(*tasks, 0.0, seed=0)
    base = find_base(str(tiny_base("bert")))

    class Said(Silent):
        def say(self, text):
            lines.append(text)

    lines = []

    def anchor(method, **settings):
        recipe = TuneRecipe(method=method, **settings)
        opened = open_base(base, LABELLING, LABELLING.objective(joined.labels, "", ()), recipe)
        model = METHODS[method].prepare(opened.model, recipe)
        return memory_anchor(model, opened.encoder, joined, recipe, METHODS[method], 0, Said())

    held = anchor("freeze")
    assert {name.split(".")[0] for name in held.anchors} == {"bert", "classifier"}
    assert not [name for name in held.anchors if "layer.0." in name]
    assert lines == []
    assert anchor("freeze", ewc=0) is None
    assert anchor("lora") is None
    assert lines == ["ewc is left out: lora does not train the base's own weights"]


@pytest.mark.parametrize("pooling", ["mean", pytest.param("head", marks=pytest.mark.long)])
def test_a_task_is_learnt_after_another_and_the_report_says_what_became_of_both(tiny_base, tasks, tmp_path, pooling):
    new, earlier = tasks
    settings = {"task": LABELLING.name, "metric": "accuracy", "device": "cpu", "seed": 0, "progress": Silent()}
    recipe = TuneRecipe(method="probe", pooling=pooling, precision="fp32")
    tune(earlier, find_base(str(tiny_base("bert"))), recipe, folder=tmp_path / "earlier", **settings)
    base = find_base(str(tuned_model_folder(tmp_path / "earlier")))
    assert base.folder == tmp_path / "earlier" / "model"
    joined = with_remembered(new, earlier, 0.0, seed=0)
    recipe = TuneRecipe(method="full", epochs=1, precision="fp32", batch_size=8, max_tokens=64)
    tuned = tune(joined, base, recipe, folder=tmp_path / "later", **settings)
    assert tuned.training.pooling == pooling
    assert tuned.labels == joined.labels
    encoder, model = Encoder.of(tuned), open_model(tuned.model_folder)
    memories = {memory.task: memory for memory in tuned.training.memory}
    border = len(new.test)
    for name, start, end in (("new", 0, border), ("earlier", border, len(joined.test))):
        answers = model_logits(model, encoder, joined.test.texts[start:end]).argmax(axis=1)
        right = float(np.mean(answers == np.asarray(joined.test.targets[start:end])))
        assert (memories[name].rows, memories[name].after) == (end - start, pytest.approx(right))
    before = model_logits(open_model(base.folder), encoder, earlier.test.texts).argmax(axis=1)
    assert memories["earlier"].before == pytest.approx(float(np.mean(before == np.asarray(earlier.test.targets))))
    assert f"{len(earlier.test)} test rows of the earlier task (" in tuned.training.remark
    assert memories["new"].before == 0  # whose labels the earlier model does not have


def test_what_cannot_be_remembered_is_refused(tiny_base, toy_csv, tmp_path):
    values = {"base": str(tiny_base("bert")), "data": {"path": str(toy_csv), "remember": str(toy_csv)}}
    recipe, _ = read_recipe(None, values)
    with pytest.raises(RecipeError, match=r"toy\.csv is to be remembered, and .* has no label"):
        load_data(recipe, find_base(values["base"]))
    with pytest.raises(RecipeError, match=r"replay is 0\.5, and there is no remember to draw rows from"):
        read_recipe(None, {**values, "data": {"path": str(toy_csv), "replay": 0.5}})
    with pytest.raises(RecipeError, match=r"ewc is 5, and data\.remember names no earlier rows"):
        read_recipe(None, {**values, "data": {"path": str(toy_csv)}, "tune": {"ewc": 5, "method": "full"}})
    with pytest.raises(ValidationError, match="ewc is 5, and method lora does not train the base's own weights"):
        TuneRecipe(method="lora", ewc=5)
    with pytest.raises(RecipeError, match="is no build that could be gone on from"):
        tuned_model_folder(tmp_path)
