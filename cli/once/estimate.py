"""How long the build of a model that answers at once will take: a few passes are timed here, and the rest is scaled.

Forward passes and steps of training run on real rows, in batches of like lengths, with the recipe's method, precision
and device. What hardly depends on the rows (the exporter, processes that start, searches over settings) comes from
measured builds, scaled by the model's size. The build stores its estimate, and its report compares both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from edgetune.clock import choose_clock
from edgetune.compress.distillation import schooling_for
from edgetune.compress.schemes import SCHEMES
from edgetune.export.once.export import PARITY_ROWS
from edgetune.export.once.trial import try_base
from edgetune.once.recipe import OnceRecipe
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.data.rows import Input, length
from edgetune.tune.methods import METHODS, Method
from edgetune.tune.models.base import Base
from edgetune.tune.models.dropout import quicken_dropout, remove_dropout
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits, seen_by_head
from edgetune.tune.models.opening import open_base
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.activations import frozen_layers
from edgetune.tune.training.batches import PASS_TOKENS
from edgetune.tune.training.hardware import choose_device, fast_bf16
from edgetune.tune.training.length import TrainingLength
from edgetune.tune.training.memory import told_out_of_memory
from edgetune.tune.training.pace import best_pace

WARM_ROWS, MOST_ROWS, STEP_SECONDS = 8, 64, 0.4
# Epochs that gain on the validation part before one does not, where the number of epochs is left to the tool; of
# rounds, some builds run one and some two or three.
GAINING_EPOCHS, GAINING_ROUNDS = 2, 0.5


@dataclass(frozen=True)
class Model:
    """The base as it will be tuned; `remarks` are sentences on what was chosen for it."""

    parameters: int
    layers: int
    width: int
    device: str
    bf16: bool
    max_tokens: int
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Speeds:
    """Seconds that a row takes, on average over rows of the training part.

    Attributes:
        forward: a forward pass in the precision of training, in batches.
        forward_fp32: the same in float32.
        alone: a forward pass in float32, one row at a time.
        step: a step of training; 0 for a method that does not train.
        stored: share of a step that is saved because the lowest layers are frozen, and computed once.
    """

    forward: float
    forward_fp32: float
    alone: float
    step: float
    stored: float


def measure(recipe: OnceRecipe, base: Base, dataset: Dataset) -> tuple[Model, Speeds]:
    """Open the base, take a few rows the whole way, and time a few passes; seconds for a small encoder.

    Raises:
        ModelError: the base has no classifier, or cannot be tuned.
        ExportError: it has no graph, or one that answers otherwise.
        ProviderError: the recipe's device is not there.
        OutOfMemory: a step of training takes more than there is.
    """
    tune = recipe.tune
    device = choose_device(recipe.device)
    with (
        told_out_of_memory(device, lambda: ["tune.pass_tokens"]),
        torch.random.fork_rng(),
    ):  # the build itself draws as if nothing had been timed
        task = TASKS[recipe.task]
        objective = task.objective(dataset.labels, "", dataset.train.targets)
        opened = open_base(base, task, objective, tune, dataset.depth_range)
        try_base(opened, base.id, dataset.train.texts)
        model = opened.model.to(device)
        facts = Model(
            parameters=sum(weight.numel() for weight in model.parameters()),
            layers=getattr(model.config, "num_hidden_layers", 0) or 1,
            width=getattr(model.config, "hidden_size", 0) or 1,
            device=device,
            bf16=fast_bf16(device) if tune.precision == "auto" else tune.precision == "bf16",
            max_tokens=opened.encoder.max_tokens,
            remarks=opened.remarks,
        )
        return facts, _speeds(model, opened.encoder, dataset.train.texts, facts, tune)


def _speeds(model: Any, encoder: Encoder, texts: Sequence[Input], facts: Model, recipe: TuneRecipe) -> Speeds:
    order = np.random.default_rng(0).permutation(len(texts))
    drawn = [texts[row] for row in order[: WARM_ROWS + MOST_ROWS]]
    warm, sample = drawn[:WARM_ROWS], drawn[WARM_ROWS:] or drawn

    def forward(rows: Sequence[Input]) -> None:
        seen_by_head(model, encoder, encoder.rows(rows), bf16=facts.bf16)

    def forward_fp32(rows: Sequence[Input], batch_size: int = 32) -> None:
        model_logits(model, encoder, rows, batch_size=batch_size)

    clock = choose_clock(partial(forward, warm), facts.device)
    per_row = clock(partial(forward, warm)) / len(warm)
    sample = sample[: max(WARM_ROWS, int(STEP_SECONDS / max(per_row, 1e-6)))]
    in_precision = clock(partial(forward, sample)) / len(sample)
    clock = choose_clock(partial(forward_fp32, warm), facts.device)
    fp32 = clock(partial(forward_fp32, sample)) / len(sample) if facts.bf16 else in_precision
    alone = clock(partial(forward_fp32, warm, 1)) / len(warm)
    method = METHODS[recipe.method]
    step, stored = _step(model, encoder, sample, facts, recipe, method) if method.trains else (0.0, 0.0)
    return Speeds(in_precision, fp32, alone, step, stored * in_precision)


def _step(
    model: Any, encoder: Encoder, texts: Sequence[Input], facts: Model, recipe: TuneRecipe, method: Method
) -> tuple[float, float]:
    """Seconds of a row in a step of training, and the share of layers that are frozen below what is trained."""
    if not method.drops_out(per_token=encoder.task.per_token):
        remove_dropout(model)
    method = method.settled(model, facts.device)
    encoder = method.encoder(model, encoder, recipe)
    model = method.prepare(model, recipe).to(facts.device).train()
    if facts.device == "cpu":
        quicken_dropout(model)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=0.0, fused=True)
    pass_tokens = PASS_TOKENS[facts.device] if recipe.pass_tokens == "auto" else recipe.pass_tokens

    def step(rows: Sequence[Input]) -> None:
        for part in encoder.split(dict(encoder.batch(rows).to(facts.device)), pass_tokens):
            with torch.autocast(facts.device, torch.bfloat16, enabled=facts.bf16):
                logits = model(**part).logits
            logits.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    by_length = sorted(texts, key=length)
    step_rows = recipe.step_rows(per_token=encoder.task.per_token)
    batches = [by_length[start : start + step_rows] for start in range(0, len(by_length), step_rows)]
    with best_pace(model, encoder, encoder.rows(texts), step_rows, pass_tokens, bf16=facts.bf16):
        clock = choose_clock(partial(step, by_length[:WARM_ROWS]), facts.device)
        seconds = sum(clock(partial(step, batch)) for batch in batches) / len(by_length)
    return seconds, len(frozen_layers(model)) / facts.layers


def most_epochs(recipe: OnceRecipe, train_rows: int) -> float:
    """The epochs that training runs at most."""
    return _length(recipe, train_rows).epochs if METHODS[recipe.tune.method].trains else 0.0


def _length(recipe: OnceRecipe, train_rows: int) -> TrainingLength:
    return TrainingLength.of(recipe.tune, train_rows, TASKS[recipe.task])


def expected_epochs(recipe: OnceRecipe, train_rows: int) -> float:
    """The epochs that training is expected to run: it stops early once the validation part gains nothing."""
    training = _length(recipe, train_rows)
    if training.round_epochs:
        return min(training.epochs, (GAINING_ROUNDS + training.patience) * training.round_epochs)
    return min(most_epochs(recipe, train_rows), GAINING_EPOCHS + float(training.patience))


# Of builds of all-MiniLM-L6-v2, 22.6 million parameters, on two cores (docs/log.md). Seconds that hang on the model's
# size are a million parameters'; loading, exporting and the optimizers' passes over the graph make most of them.
TUNE_SECONDS, TUNE_SECONDS_A_MILLION = 2.0, 0.2
PROBE_SECONDS = 6e-8  # a row, class and feature, over all fits of the head
EXPORT_SECONDS, EXPORT_SECONDS_A_MILLION = 3.0, 0.2
SCHEME_SECONDS, SCHEME_SECONDS_A_MILLION, QUICK_CALLS = 2.0, 0.15, 500
ARTEFACT_SECONDS = 15.0  # of learning one, beside the answers of its teacher
BENCH_SECONDS, BENCH_SECONDS_A_MILLION, THROUGHPUT_ROWS = 10.0, 0.4, 2_000
# Bundles answer faster than the base in PyTorch: seconds of a call against those of the base.
BUNDLE_SHARE = 0.25
# A student's step in forward passes of the whole model, and its layers, summed over the students, as a share of all.
STUDENT_PASSES, TAUGHT_LAYERS = 3.0, 0.8
MERGE_ROWS = 256  # rows that prove that merging changes no answer, over all the models that are written


@dataclass(frozen=True)
class Costs:
    """What the estimate rests on: sizes, speeds, and what the recipe asks for.

    Attributes:
        rows: of train, validation and test.
        labels: how many there are.
        schemes: by name, those that the search will try.
    """

    recipe: OnceRecipe
    rows: dict[str, int]
    labels: int
    schemes: Sequence[str]
    model: Model
    speeds: Speeds

    @property
    def seconds(self) -> dict[str, float]:
        """Of each stage, on this machine with nothing else to do."""
        stages = {"tune": self._tune, "export": self._export, "compress": self._compress, "bench": self._bench}
        return {name: round(seconds, 1) for name, seconds in stages.items()}

    @property
    def _millions(self) -> float:
        return self.model.parameters / 1e6

    @property
    def _judged(self) -> int:
        return min(self.rows["test"], self.recipe.gate.rows)

    @property
    def _tune(self) -> float:
        speeds, rows = self.speeds, self.rows
        learnt = rows["train"] + rows["validation"]
        fixed = TUNE_SECONDS + TUNE_SECONDS_A_MILLION * self._millions + MERGE_ROWS * speeds.forward_fp32
        probe = learnt * (speeds.forward + PROBE_SECONDS * self.labels * self.model.width)
        solved = 2 if METHODS[self.recipe.tune.method].by_gain else 1  # the head again on what was trained
        epochs = expected_epochs(self.recipe, rows["train"])
        an_epoch = rows["train"] * (speeds.step - speeds.stored) + rows["validation"] * (speeds.forward - speeds.stored)
        return fixed + solved * probe + (learnt * speeds.stored if epochs else 0.0) + epochs * an_epoch

    @property
    def _export(self) -> float:
        checked = min(self.rows["test"], PARITY_ROWS) * self.speeds.forward_fp32 * (1 + BUNDLE_SHARE)
        return EXPORT_SECONDS + EXPORT_SECONDS_A_MILLION * self._millions + checked

    @property
    def _compress(self) -> float:
        """A candidate a scheme of graphs; one of weights is exported again, unless it is cut out of the whole graph.

        What is taught learns before.
        """
        schemes = [SCHEMES[name] for name in self.schemes if name != "fp32"]  # stands behind the fused graph
        judged = min(self.rows["validation"], self.recipe.gate.rows) * self.speeds.forward_fp32
        made = SCHEME_SECONDS + SCHEME_SECONDS_A_MILLION * self._millions
        timed = QUICK_CALLS * BUNDLE_SHARE * self.speeds.alone
        each = made + timed + BUNDLE_SHARE * judged
        exported = EXPORT_SECONDS + EXPORT_SECONDS_A_MILLION * self._millions + judged
        seconds = judged
        for scheme in schemes:
            reshaped = judged if scheme.name == "trimmed" else exported
            seconds += each + (reshaped if scheme.level == "weights" else 0.0)
            if scheme.level == "artefact":
                # The teacher answers about as many recombinations as there are texts; the texts too where tuning has
                # not left what its head sees of them. A cascade is tried too.
                method = METHODS[self.recipe.tune.method]
                answered = (
                    (1 if method.by_gain or not method.trains else 2) * self.rows["train"] if scheme.taught else 0
                )
                seconds += each + ARTEFACT_SECONDS + answered * self.speeds.forward
        taught = (scheme.taught and scheme.level == "weights" for scheme in schemes)
        if any(taught):  # the second is tried only where the first fails
            texts = self.rows["train"]
            lessons = schooling_for(texts, self.model.width).passes * texts * TAUGHT_LAYERS
            seconds += lessons * STUDENT_PASSES * self.speeds.forward
        return seconds

    @property
    def _bench(self) -> float:
        benchmark, speeds, both = self.recipe.benchmark, self.speeds, 1 + BUNDLE_SHARE
        judged = self._judged * speeds.forward_fp32 * (3 + 2 * BUNDLE_SHARE)
        timed = both * (benchmark.samples * speeds.alone + THROUGHPUT_ROWS * speeds.forward_fp32)
        return BENCH_SECONDS + BENCH_SECONDS_A_MILLION * self._millions + judged + timed
