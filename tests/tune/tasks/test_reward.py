"""Reward models: pairs of answers read whole, learnt beside each other, and judged by which of both scores higher."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from edgetune.serve.errors import DataError
from edgetune.tune.metrics import PAIR_ACCURACY
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.reward import PairSolver, Reward

ROWS = [{"prompt": f"Is {n} even?", "chosen": f"yes {n}", "rejected": f"no {n}"} for n in range(20)]
OBJECTIVE = Reward((), PAIR_ACCURACY, 0.0, 1.0)
ASKED = {"role": "user", "content": "Hi {n}"}
TARGETS = np.array([[0, 1], [0, 0], [1, 1], [1, 0]])


def test_each_answer_is_a_row_beside_its_prompt(load):
    found = load("reward-model", ROWS, suffix="jsonl")
    assert len(found.train.texts) == 2 * 14
    assert found.train.targets[:4] == ((0, 1), (0, 0), (1, 1), (1, 0))
    for chosen, rejected in zip(found.train.texts[::2], found.train.texts[1::2], strict=True):
        assert chosen[0] == rejected[0]
        assert (chosen[1][:3], rejected[1][:2]) == ("yes", "no")
    prompts = [{text[0] for text in part.texts} for part in (found.train, found.validation, found.test)]
    assert prompts[0].isdisjoint(prompts[1] | prompts[2])


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (
            {"conversations": [{"from": "human", "value": "Hi {n}"}], "chosen": {"from": "gpt", "value": "Hello!"},
             "rejected": {"from": "gpt", "value": "What?"}},
            ("Hi {n}", "Hello!", "What?"),
        ),
        (
            {"prompt": "Hi {n}", "chosen": [ASKED, {"role": "assistant", "content": "A"}],
             "rejected": [ASKED, {"role": "assistant", "content": "B"}]},
            ("Hi {n}", "A", "B"),
        ),
        (
            {"instruction": "Hi {n}", "completions": [{"response": "bad", "overall_score": 1},
             {"response": "good", "overall_score": 9}, {"response": "fair", "overall_score": 5}]},
            ("Hi {n}", "good", "bad"),
        ),
    ],
    ids=["llama-factory", "trl", "ultrafeedback"],
)  # fmt: skip
def test_pairs_are_read_from_every_format(load, row, expected):
    rows = [json.loads(json.dumps(row).replace("{n}", str(n))) for n in range(8)]
    texts = load("reward-model", rows, suffix="jsonl").train.texts
    number = texts[0][0].rpartition(" ")[2]
    assert texts[:2] == tuple((expected[0].replace("{n}", number), answer) for answer in expected[1:])


def test_what_is_no_pair_is_refused(fault):
    votes = [{"prompt": f"{n}", "completion": "x", "label": True} for n in range(8)]
    assert "is read as prompt-completion, and a reward is learnt of pairs of answers" in fault(
        "reward-model", votes, suffix="jsonl"
    )
    same = [{"prompt": f"{n}", "chosen": "x", "rejected": "X "} for n in range(8)]
    assert "prefer an answer to itself" in fault("reward-model", same, suffix="jsonl", error=DataError)


def test_the_loss_is_bradley_and_terrys_in_any_order():
    rewards = torch.tensor([[2.0], [0.5], [0.0], [1.0]])
    expected = (math.log1p(math.exp(-1.5)) + math.log1p(math.exp(1.0))) / 2
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        loss = OBJECTIVE.loss(rewards[order], torch.as_tensor(TARGETS[order]), None)
        assert float(loss) / TARGETS.size == pytest.approx(expected)


def test_pair_accuracy_counts_ties_as_lost_and_has_an_interval_of_shares():
    assert PAIR_ACCURACY.of(TARGETS, np.array([2.0, 0.5, 0.0, 1.0])) == 0.5
    assert PAIR_ACCURACY.of(TARGETS[[3, 0, 2, 1]], np.array([0.0, 2.0, 1.0, 0.5])) == 1.0
    assert PAIR_ACCURACY.of(TARGETS, np.zeros(4)) == 0.0
    assert PAIR_ACCURACY.rows(TARGETS, np.arange(4.0)).tolist() == [[0.0, 1.0], [0.0, 1.0]]


def test_the_probe_finds_the_direction_that_chosen_answers_share():
    features = np.array([[1, 0.2], [0, 0.1], [3, 0.9], [2, 0.8], [0.5, 0], [-0.5, 0.4]], dtype=np.float32)
    targets = np.array([[0, 1], [0, 0], [1, 1], [1, 0], [0, 1], [0, 0]])  # the third pair is of a part that was joined
    head = PairSolver().solve(features, targets, 1.0)
    rewards = head.logits(features)[:, 0]
    assert (rewards[::2] > rewards[1::2]).all()
    assert head.bias.tolist() == [0.0]


def test_pairs_are_drawn_and_ordered_whole():
    targets = [(pair, kind) for pair in range(50) for kind in (1, 0)]
    drawn = OBJECTIVE.drawn(targets, 20, 0)
    assert len(drawn) == 20
    assert (drawn[::2] + 1 == drawn[1::2]).all()
    assert (drawn[::2] % 2 == 0).all()
    order = list(OBJECTIVE.order(np.asarray(targets), np.random.default_rng(0)))
    assert sorted(order) == list(range(100))
    assert all(first + 1 == second for first, second in zip(order[::2], order[1::2], strict=True))
    assert OBJECTIVE.agreement(np.array([1.0, 0, 1, 0]), np.array([5.0, 4, 0, 1])) == 0.5


def test_the_task_is_an_encoders():
    task = TASKS["reward-model"]
    assert task.recognises({"prompt": ["a"], "chosen": ["b"], "rejected": ["c"]}, {}).strength > 0
    assert task.recognises({"text": ["a"], "label": ["b"]}, {}).strength == 0
