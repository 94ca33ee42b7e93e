"""Training a language model: every method learns, a stopped run ends as one that was not, and nothing is reported."""

import signal

import pytest
import torch

from edgetune.serve.errors import Interrupted, ModelError, OutOfMemory
from edgetune.tune.models.base import find_base, open_tokenizer
from edgetune.tune.recipe import FreezeRecipe
from edgetune.tune.stepwise import training
from edgetune.tune.stepwise.batches import pad_rows
from edgetune.tune.stepwise.language_trainer import LanguagePlan
from edgetune.tune.stepwise.methods import METHODS
from edgetune.tune.stepwise.model import open_pretrained
from edgetune.tune.stepwise.perplexity import measure_perplexity
from edgetune.tune.stepwise.qlora import open_quantized
from edgetune.tune.stepwise.recipe import AdapterRecipe, GenerationTuneRecipe
from edgetune.tune.stepwise.training import _SupervisedTrainer, train_language_model
from edgetune.tune.training.progress import Silent
from edgetune.tune.training.rates import Rates

RATES = {"full": 3e-3, "freeze": 3e-3, "loraplus": 3e-3, "vera": 5e-2, "ia3": 5e-2, "adalora": 1e-1}


class Stopping(Silent):
    """Presses Ctrl-C after a step, and remembers what was said and which steps were taken."""

    def __init__(self, after=None):
        self.after, self.said, self.steps = after, [], []

    def say(self, text):
        self.said.append(text)

    def advance(self, done, total, note=""):
        self.steps.append(done)
        if done == self.after:
            signal.raise_signal(signal.SIGINT)


@pytest.fixture
def trained(language_base, language_rows, tmp_path):
    """`trained(folder, progress)` trains a fresh tiny llama on 48 rows and returns it with the result."""
    base = find_base(str(language_base()))
    tokenizer = open_tokenizer(base)

    def run(name, progress, method="lora", rate=None, train_rows=None, bf16=False, **settings):
        recipe = GenerationTuneRecipe(
            method=method,
            **{"batch_size": 8, "patience": 9, "epochs": 3, "adapter": AdapterRecipe(rank=4, alpha=8), **settings},
        )
        if method == "qlora":
            model = open_quantized(base, recipe, device="cpu", bf16=False, progress=Silent())
        else:
            model = open_pretrained(base)
        torch.manual_seed(0)
        model = METHODS[method].prepare(model, recipe)
        plan = LanguagePlan(
            epochs=recipe.epochs,
            rates=Rates(rate or RATES.get(method, 1e-2), ratio=METHODS[method].rate_ratio(recipe)),
            bf16=bf16,
            device="cpu",
            seed=3,
        )
        rows = train_rows or language_rows(48)
        where = {"folder": tmp_path / name, "progress": progress}
        return model, train_language_model(
            model, tokenizer, rows, language_rows(16, seed=1), recipe=recipe, plan=plan, **where
        )

    return run


def of_each_kind():
    """An adapter and whole weights; the others are stopped in the long tests."""
    return [name if name in ("lora", "full") else pytest.param(name, marks=pytest.mark.long) for name in METHODS]


@pytest.mark.parametrize("method", of_each_kind())
def test_every_method_learns(trained, language_base, language_rows, method):
    held_out = language_rows(24, seed=2)
    before = measure_perplexity(open_pretrained(find_base(str(language_base()))), held_out)
    progress = Stopping()
    model, result = trained("run", progress, method=method)
    after = measure_perplexity(model, held_out)
    assert before.value > 40  # 64 words, known to nothing
    assert after.value < 0.7 * before.value
    assert after.token_accuracy > before.token_accuracy
    assert [point.epoch for point in result.curve] == [1, 2, 3]
    assert result.best_loss == min(point.validation_loss for point in result.curve)
    assert progress.steps == list(range(1, 19))
    assert progress.said[0].startswith("epoch 1: validation perplexity ")


@pytest.mark.parametrize("method", of_each_kind())
def test_a_stopped_training_continues_at_its_step_and_ends_as_if_it_had_not_been_stopped(trained, tmp_path, method):
    through, whole = trained("whole", Stopping(), method=method)
    with pytest.raises(Interrupted, match="Training was stopped at step 8; its checkpoint is kept"):
        trained("stopped", Stopping(after=8), method=method)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    continuing = Stopping()
    model, result = trained("stopped", continuing, method=method)
    assert continuing.said[0] == "training continues from checkpoint-8"
    assert continuing.steps[0] == 9
    assert [point.epoch for point in result.curve] == [1, 2, 3]
    for found, expected in zip(result.curve, whole.curve, strict=True):
        assert found.validation_loss == pytest.approx(expected.validation_loss, abs=1e-4)
    for (name, weight), other in zip(model.named_parameters(), through.parameters(), strict=True):
        assert torch.allclose(weight.float(), other.float(), atol=1e-4), name


def test_the_best_epoch_is_restored_and_patience_ends_training(trained, language_rows):
    """Rows of noise: learning them by heart makes the pattern of the validation rows ever less likely."""
    chosen = torch.Generator().manual_seed(1)
    noise = []
    for _ in range(8):
        ids = torch.randint(4, 20, (8,), generator=chosen).tolist()
        noise.append({"input_ids": ids, "labels": ids})
    model, result = trained("run", Stopping(), method="full", rate=1e-2, train_rows=noise, epochs=20, patience=2)
    losses = [point.validation_loss for point in result.curve]
    assert result.epochs == result.best_epoch + 2 == len(losses) < 20
    assert result.best_loss == min(losses) < losses[-1]
    assert measure_perplexity(model, language_rows(16, seed=1)).loss == pytest.approx(result.best_loss, abs=1e-5)


def test_accumulated_steps_and_checkpointed_layers_give_the_same_training(trained):
    plain, _ = trained("plain", Stopping(), epochs=1)
    accumulated, _ = trained("accumulated", Stopping(), epochs=1, batch_size=2, gradient_accumulation=4)
    checkpointed, _ = trained("checkpointed", Stopping(), epochs=1, gradient_checkpointing=True)
    for (name, weight), one, other in zip(
        plain.named_parameters(), accumulated.parameters(), checkpointed.parameters(), strict=True
    ):
        assert torch.allclose(weight, one, atol=2e-3), name
        assert torch.allclose(weight, other, atol=1e-4), name


def test_the_model_is_left_as_it_was_found_but_for_its_weights(trained):
    model, _ = trained("run", Stopping(), method="full", epochs=1, bf16=True)
    assert "forward" not in vars(model)
    assert model.config.use_cache is True
    assert model(input_ids=torch.tensor([[1, 5]])).logits.dtype == torch.float32
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_adapters_over_4_bits_are_trained_in_fp32(trained):
    model, _ = trained("run", Stopping(), method="qlora", epochs=1)
    assert {weight.dtype for name, weight in model.named_parameters() if "lora_" in name} == {torch.float32}


def test_nothing_is_reported_and_no_card_is_written(trained, tmp_path, monkeypatch):
    from trl.trainer import base_trainer

    sent = []
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(base_trainer, "send_telemetry", lambda **said: sent.append(said))
    trained("run", Stopping(), epochs=1)
    assert sent == []
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoint-6"]


def test_lora_plus_gives_the_second_factor_its_own_rate(trained, monkeypatch):
    seen = {}
    making = _SupervisedTrainer.create_optimizer

    def watching(self, model=None):
        optimizer = making(self, model)
        seen.update(optimizer=optimizer, names={id(w): name for name, w in self.model.named_parameters()})
        return optimizer

    monkeypatch.setattr(_SupervisedTrainer, "create_optimizer", watching)
    trained("run", Stopping(), method="loraplus", epochs=1, rate=1e-3)
    rates = {
        seen["names"][id(weight)].split(".")[-3]: group["initial_lr"]
        for group in seen["optimizer"].param_groups
        for weight in group["params"]
    }
    assert rates == {"lora_A": 1e-3, "lora_B": pytest.approx(16e-3)}


@pytest.mark.long
def test_l2_sp_and_gradual_freezing_reach_the_training(trained, language_base):
    start = dict(open_pretrained(find_base(str(language_base()))).named_parameters())

    def way(name, layer, **settings):
        model, _ = trained(name, Stopping(), **settings)
        moved = {key: (weight - start[key]).detach().square().sum() for key, weight in model.named_parameters()}
        return float(sum(value for key, value in moved.items() if f"layers.{layer}." in key))

    assert way("held", 0, method="full", l2_sp=10.0) < way("free", 0, method="full") / 4
    gradual = {"method": "freeze", "freeze": FreezeRecipe(top_layers=2, gradual=True)}
    assert way("first", 0, epochs=1, **gradual) == 0  # its turn comes in the second epoch
    assert way("second", 0, epochs=2, **gradual) > 0
    assert way("top", 1, epochs=1, **gradual) > 0


@pytest.mark.parametrize("kind", ["cuda", "cpu", "python", "other"])
def test_memory_that_runs_out_is_said_with_what_to_lower(trained, monkeypatch, kind):
    def greedy(self, *arguments):
        if kind == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nDetails")
        if kind == "cpu":
            torch.empty(1 << 55)  # what torch's allocator really says
        raise MemoryError if kind == "python" else RuntimeError("a bug")

    monkeypatch.setattr(_SupervisedTrainer, "training_step", greedy)
    if kind == "other":
        with pytest.raises(RuntimeError, match="a bug"):
            trained("run", Stopping())
        return
    with pytest.raises(OutOfMemory) as told:
        trained("run", Stopping())
    assert told.value.found.startswith("Training ran out of memory on cpu: ")
    assert "Details" not in str(told.value)
    assert told.value.action == (
        "change one of these, the first first: tune.batch_size (now 8), with tune.gradient_accumulation raised as "
        "much; data.max_tokens (the longest row has 11); tune.gradient_checkpointing: true; tune.method: qlora, which "
        "holds the frozen weights in 4 bits"
    )
    if kind != "cpu":
        return
    with pytest.raises(OutOfMemory) as told:
        trained("small", Stopping(), method="qlora", batch_size=1, gradient_checkpointing=True)
    assert told.value.action == "change one of these, the first first: data.max_tokens (the longest row has 11)"


def test_a_training_that_diverges_is_said(trained, monkeypatch):
    def diverged(self, model, *arguments):
        with torch.no_grad():
            next(weight for weight in model.parameters() if weight.requires_grad).fill_(float("nan"))
        return torch.tensor(0.0)

    monkeypatch.setattr(_SupervisedTrainer, "training_step", diverged)
    with pytest.raises(ModelError, match=r"Training diverged: after epoch 1.0 the loss is no number"):
        trained("run", Stopping())


def test_packed_rows_train_as_their_rows_do(language_base, language_rows):
    """Two sequences in one row: none sees the other, and no first token is predicted from the sequence before."""
    model = open_pretrained(find_base(str(language_base())))
    one, other = language_rows(2)
    packed = {
        "input_ids": one["input_ids"] + other["input_ids"],
        "labels": [1, *one["labels"][1:], 1, *other["labels"][1:]],  # a label at each start, which must not count
        "position_ids": [*range(len(one["input_ids"])), *range(len(other["input_ids"]))],
    }
    longer = {name: values + values[:3] for name, values in packed.items()}
    apart = measure_perplexity(model, [one, other])
    together = measure_perplexity(model, [packed])
    assert together.losses[0] == pytest.approx(apart.losses.sum(), abs=1e-4)
    assert together.tokens[0] == apart.tokens.sum()
    padded = measure_perplexity(model, [packed, longer])
    assert padded.losses[0] == pytest.approx(together.losses[0], abs=1e-4)


def test_rows_are_padded_on_the_right():
    batch = pad_rows([{"input_ids": [1, 5, 6], "labels": [-100, 5, 6]}, {"input_ids": [1], "labels": [-100]}])
    assert {name: values.tolist() for name, values in batch.items()} == {
        "input_ids": [[1, 5, 6], [1, 0, 0]],
        "labels": [[-100, 5, 6], [-100, -100, -100]],
        "attention_mask": [[1, 1, 1], [1, 0, 0]],
    }
    assert all(values.dtype == torch.int64 for values in batch.values())


def test_steps_of_unlike_rows_weigh_each_token_alike(language_base, language_rows):
    """The loss of a set is over its tokens, however its rows fall into batches."""
    model = open_pretrained(find_base(str(language_base())))
    rows = language_rows(40)
    whole = measure_perplexity(model, rows)
    each = [measure_perplexity(model, [row]) for row in rows]
    assert whole.losses == pytest.approx([one.losses[0] for one in each], abs=1e-4)
    assert whole.loss == pytest.approx(sum(one.losses[0] for one in each) / sum(one.tokens[0] for one in each))
    assert training.math.exp(whole.loss) == pytest.approx(whole.value)
