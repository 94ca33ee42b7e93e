"""Passes of bounded memory: how a batch is cut, and that the cuts change no gradient."""

from types import SimpleNamespace

import pytest
import torch
from transformers import DataCollatorWithPadding, TrainingArguments

from edgetune.tune.models.base import find_base, open_tokenizer
from edgetune.tune.models.classifier import head_names
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import length_batches
from edgetune.tune.models.model import start_model
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.retrieval import EQUAL, MRR, QUERY
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.vectors import Vectors
from edgetune.tune.training.batches import RecordSampler, shortest_first, split_by_tokens
from edgetune.tune.training.trainer import HeadTrainer, TrainingPlan, loss_of

LABELLING = TASKS["text-classification"]


def padded(lengths, side="right"):
    """A batch whose token ids tell row and place, as a tokenizer pads it."""
    width = max(lengths)
    rows = [[100 * (row + 1) + place for place in range(length)] for row, length in enumerate(lengths)]
    fill = [[0] * (width - length) for length in lengths]
    pairs = zip(rows, fill, strict=True)
    ids = torch.tensor([row + zeros if side == "right" else zeros + row for row, zeros in pairs])
    return {"input_ids": ids, "attention_mask": (ids > 0).long(), "labels": torch.arange(len(lengths))}


@pytest.mark.parametrize("side", ["right", "left"])
def test_a_batch_is_cut_into_parts_within_the_bound_each_as_wide_as_its_longest_row(side):
    parts = split_by_tokens(padded([9, 8, 4, 4, 3, 2], side), 16)
    assert [tuple(part["input_ids"].shape) for part in parts] == [(1, 9), (2, 8), (3, 4)]
    assert [part["labels"].tolist() for part in parts] == [[0], [1, 2], [3, 4, 5]]
    ids = [row[row > 0].tolist() for part in parts for row in part["input_ids"]]
    assert ids == [[100 * (row + 1) + place for place in range(n)] for row, n in enumerate([9, 8, 4, 4, 3, 2])]
    assert all(torch.equal(part["attention_mask"], (part["input_ids"] > 0).long()) for part in parts)


def test_a_row_above_the_bound_goes_alone_and_a_batch_within_it_goes_whole():
    assert [len(part["labels"]) for part in split_by_tokens(padded([9, 9, 2]), 4)] == [1, 1, 1]
    batch = padded([4, 4])
    assert split_by_tokens(batch, 8) == [batch]


def test_length_batches_are_bounded_by_rows_and_by_tokens():
    assert list(length_batches([5, 1, 2, 9, 2], 2)) == [[1, 2], [4, 0], [3]]
    assert list(length_batches([5, 1, 2, 9, 2], 9, 8)) == [[1, 2, 4], [0], [3]]


def test_shortest_first():
    rows = [{"input_ids": [1, 2, 3]}, {"input_ids": [1]}, {"input_ids": [1, 2]}]
    assert shortest_first(rows) == [rows[1], rows[2], rows[0]]


@pytest.fixture
def gradients(tiny_base, toy_dataset, tmp_path):
    """`gradients(pass_tokens, weights)`: loss and gradients of one training step on 16 rows of 3 to 20 tokens."""
    dataset, base = toy_dataset(), find_base(str(tiny_base("bert")))
    tokenizer = open_tokenizer(base)
    texts = sorted(dataset.train.texts, key=len)[::4][:16]
    rows = [{**row, "labels": number % 4} for number, row in enumerate(Encoder(tokenizer, 96, LABELLING).rows(texts))]

    def step(pass_tokens, weights=None, task="text-classification"):
        torch.manual_seed(0)
        targets = [[number % 4, EQUAL, number] for number in range(16)]
        objective = TASKS[task].objective(dataset.labels, "", targets if task == "feature-extraction" else ())
        if task == "feature-extraction":
            learnt = [{**row, "labels": target} for row, target in zip(rows, targets, strict=True)]
        else:
            learnt = rows
        model = start_model(base, objective, TuneRecipe(), has_head=TASKS[task].has_head)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.config.attention_probs_dropout_prob = 0.0
        plan = TrainingPlan(
            method="full", epochs=1, round_epochs=0,
            trunk_rate=1e-3, head_rate=1e-3, head=head_names(model), bf16=False, device="cpu", seed=3,
            class_weights=weights, pass_tokens=pass_tokens, patience=1,
        )  # fmt: skip
        arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True)
        trainer = HeadTrainer(
            plan=plan, objective=objective, encoder=Encoder(tokenizer, 96, TASKS["text-classification"]), stored=None,
            model=model, args=arguments, train_dataset=learnt,
            compute_loss_func=loss_of(objective, weights), data_collator=DataCollatorWithPadding(tokenizer),
        )  # fmt: skip
        seen = []
        model.register_forward_pre_hook(lambda _, __, given: seen.append(given["input_ids"].numel()), with_kwargs=True)
        batch = dict(DataCollatorWithPadding(tokenizer)(learnt))
        loss = trainer.training_step(model, batch, torch.tensor(batch["labels"].numel()))
        found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
        judged = trainer.prediction_step(model, dict(DataCollatorWithPadding(tokenizer)(learnt)), False)
        return SimpleNamespace(loss=loss, gradients=found, passes=seen, judged=judged)

    return step


@pytest.mark.parametrize("weights", [None, (0.5, 1.0, 2.0, 4.0)], ids=["plain", "class weights"])
def test_passes_give_the_gradients_and_the_loss_of_the_whole_batch(gradients, weights):
    whole, parts = gradients(10_000, weights), gradients(48, weights)
    assert len(whole.passes) == 2  # one to train, one to judge
    assert len(parts.passes) > 5
    assert all(tokens <= 4 * 48 for tokens in parts.passes)
    assert float(parts.loss) == pytest.approx(float(whole.loss), abs=1e-6)
    assert whole.gradients.keys() == parts.gradients.keys()
    for name, expected in whole.gradients.items():
        assert torch.allclose(parts.gradients[name], expected, rtol=1e-4, atol=1e-6), name
    assert max(float(gradient.abs().max()) for gradient in whole.gradients.values()) > 1e-2
    loss, logits, labels = parts.judged
    assert float(loss) == pytest.approx(float(whole.judged[0]), abs=1e-6)
    assert torch.allclose(logits, whole.judged[1], atol=1e-5)
    assert torch.equal(labels, whole.judged[2])


def test_a_loss_that_compares_rows_is_that_of_the_whole_batch_in_passes_too(gradients):
    whole, parts = (gradients(most, task="feature-extraction") for most in (10_000, 48))
    assert len(whole.passes) == 2  # one to train, one to judge
    assert len(parts.passes) > 9  # each is run without gradients first
    assert float(whole.loss) > 0.1
    assert whole.judged[0] is None  # by batches of like lengths it would mean nothing
    assert float(parts.loss) == pytest.approx(float(whole.loss), abs=1e-6)
    assert whole.gradients.keys() == parts.gradients.keys()
    for name, expected in whole.gradients.items():
        assert torch.allclose(parts.gradients[name], expected, rtol=1e-3, atol=1e-6), name
    assert max(float(gradient.abs().max()) for gradient in whole.gradients.values()) > 1e-3


def test_records_stay_whole_in_their_batches_and_epochs_differ():
    objective = Vectors((), MRR, texts_a_record=2)
    rows = [{"labels": [row // 2, QUERY + row % 2, row], "input_ids": [1] * (1 + row % 5)} for row in range(26)]
    sampler = RecordSampler(objective, rows, 8, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(26))
    assert len(sampler) == 26
    for start in range(0, 26, 8):
        batch = first[start : start + 8]
        assert {row // 2 for row in batch if row % 2} == {row // 2 for row in batch if not row % 2}
        lengths = [len(rows[row]["input_ids"]) for row in batch]
        assert lengths == sorted(lengths)
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert sorted(sampler) == sorted(first)
    assert list(sampler) != first
