"""The static student: its features, its formula as tables, and what it learns of tiny real models."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgetune.compress import soft_labels
from edgetune.compress.schemes import static
from edgetune.compress.static_student import learn as learning
from edgetune.compress.static_student.features import Features
from edgetune.compress.static_student.learning import Learnt, averaged
from edgetune.compress.static_student.quantization import as_tables, quantize_rows
from edgetune.compress.static_student.recombination import recombined, text_bounds
from edgetune.compress.static_student.start import Frame, principal_rows
from edgetune.serve.engines.tables import StaticTables
from edgetune.serve.errors import CompressError, ModelError
from edgetune.tune.tasks.objective import Head

torch = pytest.importorskip("torch")

# 1 and 2 frame a text.
INPUTS = [[1, 10, 11, 2], [1, 10, 11, 12, 2], [1, 12, 2], [1, 2]]


def plain_logits(tables: StaticTables, ids: Sequence[int]) -> NDArray[np.float64]:
    """The formula of `StaticTables`, word by word."""
    pairs = dict(zip(tables.pair_keys.tolist(), tables.pair_rows.tolist(), strict=True))
    rows = [int(tables.token_rows[token]) for token in ids]
    rows += [pairs.get(first * 2**32 + second, 0) for first, second in pairwise(ids)]
    rows = [row for row in rows if row]
    vector = np.zeros(tables.rows.shape[1])
    for row in rows:
        vector += tables.rows[row].astype(np.float64) * float(tables.scales[row])
    return vector / max(len(rows), 1) ** 0.5 @ tables.head.astype(np.float64) + tables.bias


def test_features_are_all_tokens_and_the_pairs_that_stand_twice() -> None:
    features = Features.of(INPUTS, {1, 2}, 20, 100)
    assert features.tokens.tolist() == [10, 11, 12]
    assert features.counts.tolist() == [2, 2, 2]
    pairs = [divmod(key, 2**32) for key in features.pair_keys.tolist()]
    assert pairs == [(1, 10), (10, 11), (12, 2)]
    assert features.size == 7
    assert np.flatnonzero(features.token_rows).tolist() == [10, 11, 12]
    assert features.pair_rows.tolist() == [4, 5, 6]
    bags = features.bags([*INPUTS, [], [1, 15, 10, 2]])
    assert bags.counts.tolist() == [4, 6, 2, 0, 0, 1]
    assert sorted(bags.rows[:4].tolist()) == [1, 2, 4, 5]
    again = bags.take(np.array([2, 5, 2]))
    assert again.counts.tolist() == [2, 1, 2]
    assert again.rows.tolist() == [3, 6, 1, 3, 6]
    random = np.random.default_rng(0)
    assert again.without(0, random).rows.tolist() == again.rows.tolist()
    fewer = again.without(0.5, random)
    assert len(fewer) == 3
    assert (fewer.counts <= again.counts).all()
    assert again.without(1, random).counts.tolist() == [0, 0, 0]


def test_no_more_rows_than_allowed_and_the_most_frequent_of_them() -> None:
    inputs = [[1, 10, 11, 2]] * 3 + [[1, 12, 13, 2]] * 2
    features = Features.of(inputs, {1, 2}, 20, 6)
    assert features.tokens.tolist() == [10, 11, 12, 13]
    assert features.pair_keys.tolist() == [(1 << 32) + 10]  # of those that stand three times the least key
    fewer = Features.of(inputs, {1, 2}, 20, 3)
    assert fewer.tokens.tolist() == [10, 11]
    assert fewer.size == 3
    assert fewer.bags(inputs).counts.tolist() == [2, 2, 2, 0, 0]


def test_rows_in_int8_are_off_by_half_a_step_at_most() -> None:
    rows = np.array([[0, 0], [127, -63.4], [0.001, -0.0004]], np.float32)
    values, scales = quantize_rows(rows)
    assert values.tolist() == [[0, 0], [127, -63], [127, -51]]
    assert scales.tolist() == pytest.approx([0, 1, 0.001 / 127])


def test_tables_answer_as_what_was_learnt() -> None:
    random = np.random.default_rng(0)
    features = Features.of(INPUTS, {1, 2}, 20, 100)
    rows = random.normal(size=(features.size, 8)).astype(np.float32)
    rows[0] = 0
    learnt = Learnt(rows, random.normal(size=(8, 3)).astype(np.float32), random.normal(size=3).astype(np.float32))
    tables = as_tables(features, learnt.rows, Head(learnt.head.T, learnt.bias))
    dtypes = [getattr(tables, name).dtype.name for name in StaticTables.__dataclass_fields__]
    assert dtypes == ["int8", "float32", "int32", "int64", "int32", "float32", "float32"]
    bags = features.bags(INPUTS)
    outputs = learnt.outputs(bags)
    assert outputs[3] == pytest.approx(learnt.bias)  # of no feature
    for place, ids in enumerate(INPUTS):
        chosen = bags.rows[bags.starts[place] : bags.starts[place + 1]]
        exact = rows[chosen].sum(axis=0) / max(len(chosen), 1) ** 0.5 @ learnt.head + learnt.bias
        assert outputs[place] == pytest.approx(exact, abs=1e-5)
        steps = np.abs(tables.head).sum(axis=0) * tables.scales[chosen].sum() / 2
        assert (np.abs(plain_logits(tables, ids) - exact) <= steps + 1e-5).all()


def test_the_mean_of_students_answers_as_they_do_on_average() -> None:
    random = np.random.default_rng(0)
    features = Features.of(INPUTS, {1, 2}, 20, 100)
    students = [
        Learnt(*(random.normal(size=shape).astype(np.float32) for shape in ((features.size, 8), (8, 3), (3,))))
        for _ in range(3)
    ]
    bags = features.bags(INPUTS)
    mean = averaged(students)
    assert mean.rows.shape == (features.size, 3)
    assert mean.outputs(bags) == pytest.approx(np.mean([one.outputs(bags) for one in students], axis=0), abs=1e-5)


def test_recombinations_keep_the_frame_and_the_length() -> None:
    rows = [
        {"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in ([1, 10, 11, 2], [1, 20, 21, 22, 23, 2], [1, 2])
    ]
    made = recombined(rows, {1, 2}, 200, seed=3)
    assert len(made) == 200
    assert made == recombined(rows, {1, 2}, 200, seed=3)
    assert all(len(row["attention_mask"]) == len(row["input_ids"]) <= 6 for row in made)
    assert all(row["input_ids"][0] == 1 and row["input_ids"][-1] == 2 for row in made)
    insides = {tuple(row["input_ids"][1:-1]) for row in made}
    assert {(10, 23), (10, 11), (20, 21, 11)} <= insides  # a beginning and an end, whole texts, in either order
    ends = [(), (10,), (11,), (10, 11), (23,), (22, 23), (21, 22, 23), (20, 21, 22, 23)]
    assert all(any(inside[cut:] in ends for cut in range(len(inside) + 1)) for inside in insides)


def test_a_token_is_read_as_a_text_of_its_own() -> None:
    rows = [{"input_ids": [1, 2], "token_type_ids": [0, 0]}, {"input_ids": [1, 7, 8, 2], "token_type_ids": [0] * 4}]
    assert text_bounds([1, 7, 8, 2], {1, 2}) == (1, 3)
    assert text_bounds([1, 2], {1, 2}) is None
    assert Frame.of(rows, {1, 2}).around(np.array([5, 6])) == [
        {"input_ids": [1, 5, 2], "token_type_ids": [0, 0, 0]},
        {"input_ids": [1, 6, 2], "token_type_ids": [0, 0, 0]},
    ]
    assert Frame.of([{"input_ids": [7]}], {1}).around(np.array([5])) == [{"input_ids": [5]}]


def test_principal_rows_keep_the_widest_directions() -> None:
    vectors = np.array([[5, 1, 0], [5, -1, 0], [5, 0, 3], [5, 0, -3]], np.float32)
    rows = principal_rows(vectors, 1)
    assert rows.shape == (4, 1)
    assert np.abs(rows[:, 0]) == pytest.approx([0, 0, 1.2 * 2**0.5, 1.2 * 2**0.5], abs=1e-6)
    wide = principal_rows(vectors, 5)
    assert wide.shape == (4, 5)
    assert not wide[:, 3:].any()
    assert not principal_rows(np.ones((2, 3), np.float32), 2).any()


def student_logits(material: Any, tables: StaticTables) -> NDArray[np.float64]:
    """What tables answer to the training texts: (texts, outputs)."""
    return np.stack([plain_logits(tables, row["input_ids"]) for row in material.encoder.rows(material.train.texts)])


@pytest.fixture(scope="module")
def taught(
    agreeing_material: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, list[learning.StaticStudent]]:
    """Two students of one teacher, whose labels are its own answers, and their material."""
    material = agreeing_material("bert")
    folder = tmp_path_factory.mktemp("static")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(learning, "RECOMBINED_TOKENS", 2_000)
        patch.setattr(learning, "INPUTS_SEEN", 8_000)
        students = [static.learn(material, folder / name) for name in ("first", "second")]
    assert [path.name.split("-")[0] for path in folder.iterdir()] == ["teacher"]  # asked once, and nothing else written
    return material, students


def test_a_student_answers_as_its_teacher(taught: tuple[Any, list[learning.StaticStudent]]) -> None:
    material, (student, _) = taught
    answers = student_logits(material, student.tables).argmax(axis=1)
    # 4 classes: a constant answer would be the teacher's on half of the texts at most.
    assert np.mean(answers == material.train.targets) > 0.9
    assert f"over {2 * len(material.train)} texts and " in student.made_by


def test_the_same_seed_gives_the_same_student(taught: tuple[Any, list[learning.StaticStudent]]) -> None:
    first, second = (student.tables for student in taught[1])
    names = list(StaticTables.__dataclass_fields__)
    assert all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)
    assert first.rows.shape[1] == len(first.bias) == 4
    assert np.array_equal(first.pair_keys, np.unique(first.pair_keys))
    assert set(first.token_rows.tolist()) | set(first.pair_rows.tolist()) == set(range(len(first.rows)))
    assert not first.rows[0].any()
    assert first.scales[0] == 0


def test_more_outputs_than_columns_leave_the_head_beside_the_rows(
    agreeing_material: Callable[[str], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learning, "WIDTH", 2)
    monkeypatch.setattr(learning, "RECOMBINED_TOKENS", 100)
    monkeypatch.setattr(learning, "INPUTS_SEEN", 1_000)
    student = static.learn(agreeing_material("bert"), tmp_path / "static")
    assert student.tables.rows.shape == (len(student.tables.scales), 2)
    assert student.tables.head.shape == (2, 4)
    assert "the mean of 1 taught" in student.made_by


@pytest.mark.parametrize("task", ["text-regression", "multi-label-classification"])
def test_numbers_and_several_labels_are_learnt_too(
    task: str, tiny_base: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    material = _probed(task, tiny_base("bert"), tmp_path / "tune")
    monkeypatch.setattr(learning, "RECOMBINED_TOKENS", 2_000)
    student = static.learn(material, tmp_path / "static")
    objective = material.objective.in_units()
    expected = objective.expected(material.train.targets)
    answers = objective.answers(student_logits(material, student.tables).astype(np.float32))
    constants = objective.constants(expected)
    metric = objective.metric
    values = [metric.of(expected, np.repeat(constant[None], len(expected), axis=0)) for constant in constants]
    value = metric.of(expected, answers)
    if metric.higher_is_better:
        assert value > max(values) + 0.2
    else:
        assert value < 0.5 * min(values)


def _probed(task: str, base: Path, folder: Path) -> Any:
    """A tiny model with a probed head on texts whose words tell a number near 2,000 or any of four labels."""
    from edgetune.compress.material import Material
    from edgetune.tune.data.dataset import DataRecipe, Dataset
    from edgetune.tune.models.base import find_base
    from edgetune.tune.recipe import TuneRecipe
    from edgetune.tune.tasks import TASKS
    from edgetune.tune.training.progress import Silent
    from edgetune.tune.tuning import tune

    words = ("card", "cash", "login", "transfer")
    rows = []
    for number in range(320):
        labels = [word for place, word in enumerate(words) if number >> place & 1]
        target = {"score": 2000.5 + 50 * len(labels)} if task == "text-regression" else {"labels": labels}
        rows.append({"text": " ".join([f"the {number}", *labels]), **target})
    folder.mkdir()
    path = folder.with_name("rows.jsonl")
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    dataset = Dataset.load(DataRecipe(path=str(path)), TASKS[task], seed=0)
    recipe = TuneRecipe(method="probe", precision="fp32")
    where = {"task": task, "metric": TASKS[task].metrics[0].name, "device": "cpu", "seed": 1}
    tuned = tune(dataset, find_base(str(base)), recipe, folder=folder, progress=Silent(), **where)
    return Material(tuned, dataset.train, dataset.validation, (), "cpu", "cpu", 0, Silent())


def test_what_makes_a_static_student_unsuitable_is_said(tiny_material: Callable[[str], Any]) -> None:
    material, _ = tiny_material("bert")
    texts = len(material.train) + len(material.unlabeled)
    assert static.unsuitable(material) == f"there are {texts} texts to learn from, and a static student needs 300"
    more = replace(material, unlabeled=("a text",) * 300)
    assert static.unsuitable(more) == ""
    pairs = replace(more, model=replace(more.model, codec="text-pair"))
    assert static.unsuitable(pairs).startswith("its inputs are pairs of texts")


def test_a_teacher_without_a_vector_of_the_text_is_refused(
    taught: tuple[Any, list[learning.StaticStudent]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise ModelError("The head gives logits to each token")

    monkeypatch.setattr(soft_labels, "head_features", refuse)
    with pytest.raises(CompressError, match=r"no trunk .* The head gives logits to each token"):
        static.learn(taught[0], tmp_path / "static")
