"""Tuning on few rows a class, from file to tuned model: what a first attempt with a list of questions looks like."""

import json

import pytest

from edgetune.tune.data.dataset import DataRecipe, Dataset
from edgetune.tune.models.base import find_base
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.progress import Silent
from edgetune.tune.tuning import tune

TASK = "text-classification"
KINDS = ("card", "cash", "login", "fee", "pin", "rate")
ASKED = ("how do I open it", "please close it", "where is it now", "I lost it")


class Lines(Silent):
    """Remembers what was said."""

    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def rows_of(*counts):
    return [(f"{KINDS[kind]}: {ASKED[n]}", KINDS[kind]) for kind, count in enumerate(counts) for n in range(count)]


@pytest.mark.parametrize("method", ["probe", "full"])
@pytest.mark.parametrize("counts", [(2,) * 6, (4, 3, 2, 1, 1), (2, 1)], ids=str)
def test_few_rows_a_class_are_tuned(tiny_base, tmp_path, method, counts):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows_of(*counts)))
    dataset = Dataset.load(DataRecipe(path=str(path)), TASKS[TASK], seed=0)
    assert set(dataset.train.targets) == set(range(len(counts)))
    told = Lines()
    tuned = tune(
        dataset,
        find_base(str(tiny_base("bert"))),
        TuneRecipe(method=method, epochs=1),
        task=TASK,
        metric="",
        device="cpu",
        seed=0,
        folder=tmp_path / "tune",
        progress=told,
    )
    assert tuned.head.labels == list(dataset.labels)
    assert tuned.training.probe_value in [
        right / len(dataset.validation) for right in range(len(dataset.validation) + 1)
    ]
    assert any("by cross-validation over" in line for line in told.lines) == (len(counts) > 2)
