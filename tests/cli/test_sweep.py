"""`edgetune sweep`: trials on the validation part, a journal that survives a kill, and a recipe that a build takes."""

from __future__ import annotations

import json

import pytest
import yaml
from rich.console import Console

from edgetune.once.recipe import OnceRecipe
from edgetune.serve.errors import RecipeError, WorkError
from edgetune.sweep.page import sweep_page
from edgetune.sweep.space import Dimension, parse_space, read_space, usual_space, with_settings
from edgetune.sweep.study import ask, begin, best, ended, importances, open_study
from edgetune.sweep.sweep import Sweep, searched_space
from edgetune.tune.methods import METHODS

optuna = pytest.importorskip("optuna")


@pytest.fixture
def recipe(tiny_base, toy_csv, tmp_path):
    """A recipe of the toy sentences by the probe."""
    return OnceRecipe.of_values(
        {
            "base": str(tiny_base("bert")),
            "data": {"path": str(toy_csv)},
            "tune": {"method": "probe"},
            "out": str(tmp_path / "bundle"),
            "device": "cpu",
        },
        None,
    )


def study_in(folder, *, digest="d", seed=0):
    return open_study(folder / "journal.log", ["maximize"], digest, seed)


SPACE = read_space({"tune.learning_rate": "1e-5..1e-3:log", "tune.batch_size": (8, 16), "tune.lora.rank": "4..64:log"})


def test_ranges_and_lists_are_read_as_they_are_written():
    rate, batch, rank = SPACE
    assert [rate, batch, rank] == [
        Dimension("tune.learning_rate", (), 1e-5, 1e-3, log=True),
        Dimension("tune.batch_size", (8, 16)),
        Dimension("tune.lora.rank", (), 4.0, 64.0, log=True, whole=True),
    ]
    assert parse_space(["tune.batch_size = 8,16"]) == {"tune.batch_size": "8,16"}
    (words,) = read_space({"tune.pooling": "mean, cls"})
    assert words.values == ("mean", "cls")
    assert rate.holds(1e-4)
    assert not rate.holds("auto")
    assert not rank.holds(7.5)
    assert not batch.holds(True)
    assert with_settings({"tune": {"epochs": 1}}, {"tune.lora.rank": 4}) == {"tune": {"epochs": 1, "lora": {"rank": 4}}}


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("tune.learning_rate", "1e-3..1e-5:log", "write 1e-05..0.001"),
        ("tune.learning_rate", "0..1:log", "has no logarithm"),
        ("tune.learning_rate", "1..nan", "LOW..HIGH"),
        ("tune.learning_rate", "1..2:sqrt", "LOW..HIGH"),
        ("tune.batch_size", "8", "nothing to choose"),
        ("learning_rate", "1..2", "tune.learning_rate"),
        ("gate.max_drop", "0.01..0.1", "cannot be compared"),
    ],
)
def test_a_space_that_is_none_is_refused(key, values, message):
    with pytest.raises(RecipeError, match=message):
        read_space({key: values})


def test_every_key_of_the_space_is_one_that_the_recipe_takes(recipe):
    with pytest.raises(RecipeError, match="did you mean 'learning_rate'"):
        searched_space(recipe, {"tune.learning_rat": "1e-5..1e-3"})
    with pytest.raises(RecipeError, match="greater than 0"):
        searched_space(recipe, {"tune.learning_rate": "-1..1"})
    for method in METHODS:
        values = {**recipe.model_dump(mode="json"), "tune": {"method": method}}
        named = OnceRecipe.of_values(values, None)
        assert [dimension.key for dimension in searched_space(named, {})] == list(usual_space(method))


def test_the_recipes_own_values_go_first_and_a_seed_gives_the_same_trials(tmp_path):
    drawn = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        study = study_in(tmp_path / name)
        begin(study, {"tune.batch_size": 16})
        trials = [ask(study, SPACE) for _ in range(3)]
        assert trials[0][1] == {"tune.batch_size": 16}
        drawn.append([settings for _, settings in trials[1:]])
    assert drawn[0] == drawn[1]


def test_a_journal_that_a_kill_tore_goes_on_with_the_trial_that_ran(tmp_path):
    study = study_in(tmp_path)
    begin(study, {})
    first, _ = ask(study, SPACE)
    study.tell(first, 0.5)
    second, running = ask(study, SPACE)
    assert second.number == 1
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 6, "trial_id": 1, "val')  # half a line, as a kill leaves it

    again = study_in(tmp_path)
    assert journal.read_bytes().startswith(whole)
    assert [trial.number for trial in ended(again)] == [0]  # the one that was killed does not count
    third, settings = ask(again, SPACE)
    assert settings == running
    assert third.user_attrs["continues"] == 1
    again.tell(third, 0.75)
    assert best(study_in(tmp_path)).number == 2
    assert all(json.loads(line) for line in journal.read_text().splitlines())


def test_the_journal_of_another_recipe_and_one_that_is_none_are_refused(tmp_path):
    study_in(tmp_path)
    with pytest.raises(WorkError, match="journal of another sweep"):
        study_in(tmp_path, digest="another")
    (tmp_path / "journal.log").write_text("no journal\n")
    with pytest.raises(WorkError, match="Line 1 of the journal"):
        study_in(tmp_path)


def test_the_key_that_decides_is_the_most_important(tmp_path):
    study = study_in(tmp_path)
    for _ in range(12):
        trial, settings = ask(study, SPACE)
        study.tell(trial, 0.9 if settings["tune.batch_size"] == 8 else 0.1)
    shares = importances(study, SPACE)
    assert max(shares, key=shares.__getitem__) == "tune.batch_size"
    assert sum(shares.values()) == pytest.approx(1)
    assert not importances(study_in(tmp_path), read_space({"tune.epochs": "1..3"}))  # no trial has it


@pytest.mark.slow
def test_a_sweep_ends_in_a_recipe_that_a_build_takes_and_goes_on_where_it_ended(edgetune, recipe, tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(recipe.to_yaml(), encoding="utf-8")
    arguments = ("sweep", file, "--space", "tune.pooling=mean,cls,max", "--seed", "1")
    ended_run = edgetune(*arguments, "--trials", "3")
    assert ended_run.code == 0, ended_run.err
    folder = tmp_path / "bundle.sweep"
    assert "trial 0: " in ended_run.out
    assert "the recipe's own values" in ended_run.out
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<h2>Trials</h2>" in page
    assert "<svg" in page
    assert "flatters it" in page

    again = edgetune(*arguments, "--trials", "3", "--json")
    facts = json.loads(again.out)
    assert "trial 0" not in again.err  # nothing was run again
    assert [trial["number"] for trial in facts["trials"]] == [0, 1, 2]
    values = [trial["values"]["metric"] for trial in facts["trials"]]
    assert values[facts["best"]] == max(values)
    assert facts["test"]["rows"] == 14
    kept = {int(name.name) for name in (folder / "kept").iterdir()}
    assert kept == {0, facts["best"]}
    best_recipe = OnceRecipe.load(folder / "best.yaml", {})
    settings = facts["trials"][facts["best"]]["settings"]
    assert yaml.safe_load((folder / "best.yaml").read_text())["out"] == recipe.out
    assert best_recipe.tune.pooling == settings.get("tune.pooling", recipe.tune.pooling)

    other = edgetune(*arguments, "--trials", "3", "--set", "tune.max_tokens=32")
    assert other.code == 1
    assert "journal of another sweep" in other.err


@pytest.mark.slow
def test_a_trial_that_lags_behind_is_pruned_and_settings_that_do_not_go_together_fail(recipe, tmp_path):
    values = with_settings(recipe.model_dump(mode="json"), {"tune.method": "freeze", "tune.epochs": 2})
    sweep = Sweep(OnceRecipe.of_values(values, None), read_space({"tune.batch_size": (16, 32)}), ("metric",), trials=7)
    sweep.folder.mkdir()
    study = open_study(sweep.folder / "journal.log", ["maximize"], sweep.digest, 0)
    for place in range(5):  # trials that did better than any model can
        trial, _ = ask(study, sweep.space)
        trial.set_user_attr("settings", {"tune.l2_sp": 0.1, "tune.method": "lora"} if not place else {})
        for step in (1, 2):
            trial.report(2.0, step)
        if place:
            study.tell(trial, 2.0)
        else:
            trial.set_user_attr("error", "l2_sp is 0.1")
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
    lines = []
    swept = sweep.run(Console(quiet=True), lines.append)
    assert [line.partition(";")[0] for line in lines] == [
        f"trial {number}: pruned after 1 evaluation" for number in (5, 6)
    ]
    assert swept.winner.values == [2.0]
    assert "l2_sp is 0.1" in sweep_page(swept)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--trials", "0"), 2, "0 is not in the range"),
        (("--time", "soon"), 2, "expected 90s, 30m or 2h"),
        (("--space", "tune.learning_rate"), 2, "KEY=RANGE"),
        (("--task", "text-generation"), 2, "task is text-generation"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(edgetune, recipe, tmp_path, options, code, message):
    ended_run = edgetune("sweep", "--base", recipe.base, "--data", recipe.data.path, "--out", tmp_path / "b", *options)
    assert ended_run.code == code
    assert message in ended_run.err
    assert not (tmp_path / "b.sweep").exists()
