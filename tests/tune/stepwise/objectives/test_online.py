"""Objectives of rewards: what scores, what is asked, and a model whose reward rises."""

from __future__ import annotations

import numpy as np
import pytest

from edgetune.serve.errors import DataError, RecipeError
from edgetune.tune.models.base import find_base
from edgetune.tune.stepwise.chats import Turn
from edgetune.tune.stepwise.objectives.online import Prompts, divergence_weight
from edgetune.tune.stepwise.objectives.rewards import Rewards, asked_words, rewards_state
from edgetune.tune.stepwise.recipe import GenerationTuneRecipe
from edgetune.tune.stepwise.tuning import LanguageRows, tune_language_model
from edgetune.tune.training.progress import Silent


@pytest.fixture
def scorer(tmp_path):
    """The names of two functions in a file."""
    path = tmp_path / "rewards.py"
    path.write_text(
        "def longer(prompt, answer):\n    return len(answer) - len(prompt)\n"
        "def word(prompt, answer):\n    return answer.split().count('cat')\n"
        "def broken(prompt, answer):\n    return 'good'\n"
        "def one(answer):\n    return 0\n"
    )
    return lambda name: f"{path}:{name}"


def test_rewards_add_up_by_their_weights(scorer):
    rewards = Rewards.open({scorer("longer"): 0.5, scorer("word"): -1.0})
    assert rewards.score(["ab", "a"], ["cat cat", ""]).tolist() == [0.5 * 5 - 2, -0.5]
    assert GenerationTuneRecipe(objective="grpo", reward=scorer("word")).reward == {scorer("word"): 1.0}
    assert list(GenerationTuneRecipe(objective="rloo", reward=["a:b", "c:d"]).reward.values()) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere", "no bundle and no function"),
        ("nowhere.py:f", "The reward's file nowhere.py does not exist"),
        ("one", "cannot be called with a prompt and an answer"),
        ("missing", "has no function 'missing'"),
    ],
)
def test_a_reward_that_is_none_is_told_before_anything_is_trained(scorer, name, words):
    with pytest.raises(RecipeError) as told:
        Rewards.open({name if "nowhere" in name else scorer(name): 1.0})
    assert words in str(told.value)


def test_a_reward_whose_file_changes_is_another(scorer, tmp_path):
    before = rewards_state([scorer("word"), "math:pow"])
    assert before["math:pow"] == ""
    with (tmp_path / "rewards.py").open("a") as stream:
        stream.write("# changed\n")
    assert rewards_state([scorer("word")]) != {scorer("word"): before[scorer("word")]}


def test_a_reward_that_gives_no_number_is_told(scorer):
    with pytest.raises(RecipeError, match="gave 'good'"):
        Rewards.open({scorer("broken"): 1.0}).score(["a"], ["b"])


def test_prompts_are_asked_once_and_in_words():
    row = {"input_ids": [1, 5, 6], "labels": [-100, -100, 6]}
    prompts = Prompts.of([row, row, {"input_ids": [1, 7, 6], "labels": [-100, -100, 6]}], ["x", "x", "y"])
    assert (prompts.ids, prompts.words) == (((1, 5), (1, 7)), ("x", "y"))
    with pytest.raises(DataError, match="has a prompt to answer"):
        Prompts.of([{"input_ids": [5, 6], "labels": [5, 6]}], [""])
    assert asked_words([Turn("user", "Hi")]) == "Hi"
    assert asked_words([Turn("system", "Be brief."), Turn("user", "Hi")]) == "system: Be brief.\nuser: Hi"


def test_the_base_is_asked_only_where_adapters_can_be_switched_off():
    def weight(**settings):
        return divergence_weight(GenerationTuneRecipe(objective="grpo", reward="a:b", **settings))

    assert (weight(), weight(method="full"), weight(method="pissa")) == (0.02, 0.0, 0.0)
    assert weight(online={"beta": 0.5}) == 0.5
    with pytest.raises(RecipeError, match="no adapters that could be switched off"):
        weight(method="full", online={"beta": 0.1})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"objective": "ppo"}, "its successor there is rloo"),
        ({"objective": "grpo"}, "needs a reward"),
        ({"objective": "dpo", "reward": "a:b"}, "which dpo does not use"),
        ({"objective": "grpo", "reward": "a:b", "batch_size": 6}, "expected a multiple of that"),
        ({"objective": "kto", "batch_size": 1}, "expected 2 or more"),
        ({"objective": "best"}, "there is no objective 'best'; expected one of sft, dpo"),
        ({"objective": "reward"}, "learnt by a task of encoders"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, words):
    with pytest.raises(ValueError) as told:
        GenerationTuneRecipe(**settings)
    assert words in str(told.value)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["grpo", "rloo"])
def test_a_stated_reward_is_measured_before_and_after(language_base, scorer, tmp_path, objective):
    base = find_base(str(language_base()))
    rows = [{"input_ids": [1, 4 + n, 9, 2], "labels": [-100, -100, 9, 2]} for n in range(16)]
    asked = {"train": [f"p{n}" for n in range(16)], "validation": ["p"] * 4, "test": ["p"] * 4}
    recipe = GenerationTuneRecipe(
        objective=objective, reward=scorer("longer"), epochs=1, learning_rate=1e-3, precision="fp32",
        online={"answer_tokens": 6, "generations": 4},
    )  # fmt: skip
    tuned = tune_language_model(
        LanguageRows(rows, rows[:4], rows[4:8], asked), base, recipe, folder=tmp_path, device="cpu", seed=1,
        progress=Silent(),
    )  # fmt: skip
    before, after = tuned.objective.stages
    assert (tuned.objective.objective, tuned.objective.answers, tuned.objective.pairs) == (objective, 4, 0)
    assert before.reward_ci95[0] <= before.reward <= before.reward_ci95[1]
    assert after.reward is not None
    assert np.isfinite(after.kl)
    assert after.preference_accuracy is None
    assert len(tuned.training.curve) == 1
    assert tuned.training.remark.startswith("The mean reward of 4 answers went from ")
