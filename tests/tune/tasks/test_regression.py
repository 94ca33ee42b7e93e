"""Numbers: how they are read, what is refused, and that they are answered in the user's own units."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from edgetune.once.recipe import OnceRecipe
from edgetune.serve.errors import RecipeError
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.objective import Head

NAME = "text-regression"
TASK = TASKS[NAME]
NUMBERS = [1000.0, 1010.0, 1030.0, 1040.0]


def rows(cell=lambda n: n / 4, column="score", count=30):
    return [{"text": f"text {n}", column: cell(n)} for n in range(count)]


@pytest.mark.parametrize(
    ("suffix", "cell"),
    [
        ("jsonl", lambda n: n / 4),
        ("csv", lambda n: n / 4),
        ("csv", lambda n: f"{n / 4:.2f}".replace(".", ",")),
        ("csv", lambda n: f" {n / 4:+.2e}"),
    ],
    ids=["json", "csv", "comma", "exponent"],
)
def test_numbers_are_read_however_they_are_written(load, targets, suffix, cell):
    dataset = load(NAME, rows(cell), suffix=suffix)
    assert targets(dataset) == {f"text {n}": pytest.approx(n / 4) for n in range(30)}
    assert dataset.labels == ()
    assert "Number column 'score' was guessed." in dataset.findings
    assert any("by tenths of the numbers" in finding for finding in dataset.findings)


def test_the_only_column_of_measures_is_taken_and_a_named_one_first(load, targets):
    given = [{**row, "row": n, "kind": "ab"[n % 2]} for n, row in enumerate(rows(column="weight_kg"))]
    assert load(NAME, given).columns.labels == ("weight_kg",)
    assert targets(load(NAME, given, label="row"))["text 7"] == 7.0


@pytest.mark.parametrize("wrong", ["cheap", "nan", "inf", "1,500", "1.500,5", "1_000", "12 EUR"])
def test_what_is_no_number_is_refused_with_the_cell(fault, wrong):
    given = rows()
    given[3]["score"] = wrong
    message = fault(NAME, given)
    assert f"1 row of the training data of {message.split(' of ')[2].split(' with')[0]}" in message
    assert f"such as {wrong!r}" in message
    assert "without marks between thousands" in message


def test_a_comma_that_can_only_be_decimal_is_one(load, targets):
    given = rows(lambda n: f"0,{100 + n}")
    assert targets(load(NAME, given))["text 5"] == 0.105


def test_a_bad_test_part_and_numbers_that_are_all_the_same_are_refused(fault):
    assert "the test part of" in fault(NAME, rows(), test=[{"text": "other", "score": "none"}])
    assert "have the same number" in fault(NAME, rows(lambda _: 3.5))


def test_rows_without_a_number_are_dropped_and_said(load):
    given = rows()
    given[3]["score"] = given[4]["score"] = ""
    dataset = load(NAME, given)
    assert sum(map(len, (dataset.train, dataset.validation, dataset.test))) == 28
    assert any("Dropped 2 rows" in finding for finding in dataset.findings)


def test_keys_and_settings_of_other_tasks_are_refused(fault):
    assert "data.separator is given" in fault(NAME, rows(), separator="|", error=RecipeError)
    values = {"base": "b", "task": NAME, "data": {"path": "d.csv"}}
    with pytest.raises(RecipeError, match="class_weights is balanced, but text-regression has no classes"):
        OnceRecipe.of_values({**values, "tune": {"class_weights": "balanced"}}, None)
    with pytest.raises(RecipeError, match=r"gate.max_drop is 0.05, but the gate's metric mae is an error"):
        OnceRecipe.of_values({**values, "gate": {"max_drop": 0.05}}, None)
    with pytest.raises(RecipeError, match="min_agreement counts answers that are equal"):
        OnceRecipe.of_values({**values, "gate": {"min_agreement": 0.9}}, None)
    with pytest.raises(RecipeError, match=r"gate.metric is 'accuracy'; expected for text-regression: mae or rmse"):
        OnceRecipe.of_values({**values, "gate": {"metric": "accuracy"}}, None)


def test_the_task_fits_columns_of_many_different_fractions():
    def strength(section=None, **columns):
        return TASK.recognises({"text": ["a", "b"] * 20, **columns}, section or {}).strength

    fractions = [str(n / 4) for n in range(40)]
    assert strength(score=fractions) == 0.8
    assert strength(anything=[n / 4 for n in range(40)]) == 0.8
    assert strength(number=[str(n) for n in range(40)]) == 0
    assert strength(stars=["1.5", "2.0"] * 20) == 0
    assert strength(score=[*fractions[:-1], "many"]) == 0
    assert strength({"label": "kind"}, score=fractions, kind=["a", "b"] * 20) == 0


def test_rows_count_as_their_tenth():
    strata = TASK.strata([float(n) for n in range(100)])
    assert [strata.count(tenth) for tenth in range(10)] == [10] * 10
    assert TASK.strata([1.0] * 9 + [2.0])[0] == TASK.strata([1.0] * 9 + [2.0])[8]


def test_what_is_learnt_is_standardized_and_given_back():
    objective = TASK.objective((), "", NUMBERS)
    learnt = objective.learnt(NUMBERS)
    assert learnt.mean() == pytest.approx(0, abs=1e-6)
    assert learnt.std() == pytest.approx(1, rel=1e-6)
    assert objective.restored(learnt) == pytest.approx(NUMBERS)
    assert objective.answers(learnt[:, None]) == pytest.approx(NUMBERS)
    assert objective.value(learnt, learnt[:, None]) == pytest.approx(0, abs=1e-3)
    assert objective.value(learnt, learnt[:, None] + 1) == pytest.approx(np.std(NUMBERS), rel=1e-5)


def test_a_finished_head_answers_in_units():
    objective = TASK.objective((), "", NUMBERS)
    features = np.float32([[1, 2], [3, -1]])
    head = Head(np.float32([[0.5, -1]]), np.float32([0.25]))
    expected = objective.answers(head.logits(features))
    assert objective.finished(head).logits(features)[:, 0] == pytest.approx(expected)
    outputs = objective.finished(head).logits(features)
    assert objective.unfinished(outputs) == pytest.approx(head.logits(features), abs=1e-5)
    linear = torch.nn.Linear(2, 1)
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(head.weight))
        linear.bias.copy_(torch.from_numpy(head.bias))
    objective.finish(linear)
    assert linear(torch.from_numpy(features))[:, 0].detach().numpy() == pytest.approx(expected)
    assert objective.in_units().answers(np.float32([[7]])) == pytest.approx([7])


def test_the_loss_is_the_squared_error():
    objective = TASK.objective((), "", NUMBERS)
    logits = torch.tensor([[1.0], [3.0]], requires_grad=True)
    loss = objective.loss(logits, torch.tensor([0.0, 1.0]), None)
    assert loss.item() == pytest.approx(5)
    loss.backward()
    assert logits.grad.tolist() == [[2.0], [4.0]]
    apart = objective.imitation(torch.tensor([[1010.0]]), torch.tensor([[1000.0]]), 2.0)
    assert apart.item() == pytest.approx(100 / np.var(NUMBERS))


def test_the_solver_is_ridge_regression():
    draw = np.random.default_rng(0)
    features = draw.normal(size=(60, 4)).astype(np.float32)
    learnt = (features @ [1, -2, 0, 3] + draw.normal(size=60)).astype(np.float32)
    for strength in (0.01, 1.0):
        head = TASK.objective((), "", NUMBERS).solver(balanced=False).solve(features, learnt, strength)
        model = Ridge(alpha=1 / strength).fit(features, learnt)
        assert head.logits(features)[:, 0] == pytest.approx(model.predict(features), rel=1e-4, abs=1e-4)


def test_the_figures_are_those_of_scipy_and_scikit_learn():
    draw = np.random.default_rng(0)
    expected, given = draw.normal(size=50), draw.normal(size=50)
    objective = TASK.objective((), "", NUMBERS)
    assert objective.figures(expected, given) == {
        "spearman": pytest.approx(stats.spearmanr(expected, given).statistic),
        "r2": pytest.approx(r2_score(expected, given)),
    }
    assert objective.figures(expected, np.ones(50))["spearman"] == 0
    assert objective.agreement(given, given) == 1
    assert objective.agreement(-given, given) == 0


def test_the_summary_is_of_numbers():
    summary = TASK.describe((), [1.0, 2.0, 6.0])
    assert summary.finding == "Numbers from 1 to 6, 3 on average."
    assert summary.facts == {"numbers": {"least": 1.0, "mean": 3.0, "most": 6.0}}


@pytest.mark.parametrize("count", [4, 7, 12, 19])
def test_few_rows_leave_some_to_choose_and_to_judge_by(load, count):
    dataset = load(NAME, rows(count=count), label="score")
    sizes = [len(part) for part in (dataset.train, dataset.validation, dataset.test)]
    assert sum(sizes) == count
    assert min(sizes) >= 1
    assert sizes[0] >= count / 2
