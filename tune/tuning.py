"""The tune stage: probe, train from it, merge, keep the better; one method a step.

Under `accelerate launch` every process trains, and the main one alone solves the probe, merges and writes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from transformers import set_seed

from edgetune.serve.codecs.picture_spec import read_picture_spec
from edgetune.serve.report import Training
from edgetune.serve.task_memory import TaskMemory
from edgetune.tune.data.dataset import Dataset, Part
from edgetune.tune.data.rows import Input
from edgetune.tune.methods import METHODS, Method
from edgetune.tune.models.base import Base, known_labels
from edgetune.tune.models.classifier import head_names, replace_weights, set_head, trained_head
from edgetune.tune.models.dropout import quicken_dropout, remove_dropout
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.merge import merge_and_save
from edgetune.tune.models.model import FEATURES_NAME, HELD_OUT_NAME, TOKENS, TunedModel, chosen_pooling, open_model
from edgetune.tune.models.opening import open_base
from edgetune.tune.models.picture_encoder import PictureEncoder
from edgetune.tune.models.picture_model import trunk_rate
from edgetune.tune.models.picture_size import encoder_of_side, size_sentence, smaller_encoders
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.objective import Head, Objective, TokenObjective
from edgetune.tune.training.batches import PASS_TOKENS, labelled
from edgetune.tune.training.checkpoints import last_whole_checkpoint
from edgetune.tune.training.curve import remark_on
from edgetune.tune.training.forgetting import memory_anchor, remark_on_memory, task_memories
from edgetune.tune.training.gain import paired_gain
from edgetune.tune.training.hardware import choose_device, fast_bf16
from edgetune.tune.training.length import TrainingLength
from edgetune.tune.training.outcome import Outcome, choose, settled_by_probe
from edgetune.tune.training.probe import Probe, headless
from edgetune.tune.training.processes import is_main, main_first, process_count, wait_for_all
from edgetune.tune.training.progress import Progress
from edgetune.tune.training.rates import Rates
from edgetune.tune.training.token_probe import fit_token_probe, labelled_windows, padded_tags, with_tag_unit
from edgetune.tune.training.trainer import TrainingPlan, TrainingResult, train
from edgetune.tune.training.trunk_probe import Trunk, probe_gain
from edgetune.tune.training.useful_copies import CopiesChoice, choose_copies

if TYPE_CHECKING:
    from edgetune.tune.models.types import EncodedRow, Model

MERGE_SLICE = 64
FROZEN, TRAINED = "frozen", "trained"  # the trunks that features are computed of


def tune(
    dataset: Dataset,
    base: Base,
    recipe: TuneRecipe,
    *,
    task: str,
    metric: str,
    device: str,
    seed: int,
    folder: Path,
    progress: Progress,
) -> TunedModel:
    """Fine-tune `base` on `dataset` into `folder`: base/ with the probed head, adapter/ (lora), model/ merged, facts.

    Interrupted training leaves `folder/checkpoints`, and the same call continues from there.

    Raises:
        ModelError, MergeError, Interrupted: see there.
    """
    set_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    job = Job.open(dataset, base, recipe, task=task, metric=metric, device=device, seed=seed, folder=folder)
    if is_main():
        for remark in job.remarks:
            progress.say(remark)
    with main_first():
        job = job.with_useful_copies(progress)
        probe = job.solve_probe(progress)
        if is_main():
            job.save_base(probe.final)
        job, probe = job.at_its_size(probe, progress)
    per_token = job.objective.per_token
    settled = settled_by_probe(METHODS[recipe.method], probe.value, job.objective.metric, per_token=per_token)
    result = None if settled else job.train(probe, progress)
    if is_main():
        job.finish(probe, result, settled, progress)
    wait_for_all()
    tuned = TunedModel.open(folder)
    wait_for_all()  # what comes next moves the folder, and another process may be opening it still
    return tuned


@dataclass(frozen=True)
class Trained:
    """A trained model, its curve, the encoder that it was trained with, which may have a prompt, and how many of its
    weights were trained."""

    model: Any
    result: TrainingResult
    encoder: Encoder
    parameters: int


@dataclass(frozen=True)
class Job:
    """One tuning: the data, the base as a model with a head, and how it is tuned. `model` is changed in place.

    `side` is that of the pictures in pixels where it is not the base's own, `copies` whether changed copies are learnt,
    where that was judged.
    """

    dataset: Dataset
    base: Base
    recipe: TuneRecipe
    seed: int
    folder: Path
    objective: Objective
    model: Any
    encoder: Encoder
    device: str
    bf16: bool
    remarks: tuple[str, ...]
    side: int | None = None
    copies: CopiesChoice | None = None

    @classmethod
    def open(
        cls,
        dataset: Dataset,
        base: Base,
        recipe: TuneRecipe,
        *,
        task: str,
        metric: str,
        device: str,
        seed: int,
        folder: Path,
    ) -> Job:
        objective = TASKS[task].objective(dataset.labels, metric, dataset.train.targets).set_by(recipe, dataset)
        opened = open_base(base, TASKS[task], objective, recipe, dataset.depth_range)
        encoder, tagged = opened.encoder, ""
        if objective.per_token:
            encoder, tagged = with_tag_unit(encoder, dataset.train, recipe.tag_unit)
        where = choose_device(device)  # type: ignore[arg-type]
        return cls(
            dataset=dataset,
            base=base,
            recipe=recipe,
            seed=seed,
            folder=folder,
            objective=objective,
            model=opened.model,
            encoder=encoder,
            device=where,
            bf16=fast_bf16(where) if recipe.precision == "auto" else recipe.precision == "bf16",
            remarks=(*opened.remarks, *filter(None, [tagged])),
        )

    def with_useful_copies(self, progress: Progress) -> Job:
        """The job without the changed copies of training texts where the probe gains nothing by them.

        The probe that is chosen lies where `solve_probe` finds it.
        """
        if self.dataset.copies is None or not self.dataset.copies.must_gain:
            return self
        if not (self.folder / CopiesChoice.file_name).is_file():
            trunk = self._trunk(self.model.to(self.device), progress)
            choose_copies(trunk, self.dataset, self.folder, self._features_path(FROZEN), self._probe_path)
        choice = CopiesChoice.open(self.folder)
        return replace(self, copies=choice, dataset=self.dataset if choice.kept else self.dataset.without_copies())

    def solve_probe(self, progress: Progress) -> Probe:
        """Solve the head on the frozen trunk, or read what an interrupted build has solved."""
        if self._probe_path.is_file():
            return Probe.load(self._probe_path)
        self.model.to(self.device)
        probe = self._fit_probe(self.model, FROZEN, progress)
        probe.save(self._probe_path)
        solved_by = "probe" if self.encoder.task.has_head else "base"
        size = f", pictures of {self.side} pixels" if self.side else ""
        progress.say(f"{solved_by}: validation {probe.value:.4f} with the trunk frozen{size}")
        return probe

    def at_its_size(self, own: Probe, progress: Progress) -> tuple[Job, Probe]:
        """The job and the probe at the size of pictures that is learnt; of texts both as they are.

        Of `auto` that is the smallest at which the probe loses no more than a standard error (training/gain.py).
        """
        encoder, size = self.encoder, self.recipe.picture_size
        if not isinstance(encoder, PictureEncoder):
            return self, own
        if size != "auto":
            named = replace(self, encoder=encoder_of_side(encoder, self.model, self.base, size), side=size)
            return named, named.solve_probe(progress)
        for smaller in smaller_encoders(encoder, self.model, self.base, self.dataset.train.texts):
            job = replace(self, encoder=smaller, side=smaller.spec.shape[0])
            probe = job.solve_probe(progress)
            gain = probe_gain(self.objective, self.dataset.validation, own, probe)
            if gain.value + gain.error >= 0:
                progress.say(size_sentence(smaller.spec, encoder.spec, probe.value, own.value, gain.error))
                return job, probe
        return self, own

    def _fit_probe(self, model: Model, name: str | None, progress: Progress) -> Probe:
        """The probe on a trunk, whose features of both parts are stored under that name, if it has one."""
        if isinstance(self.objective, TokenObjective):
            return fit_token_probe(model, self.encoder, self.dataset, self.objective, bf16=self.bf16, progress=progress)
        trunk = self._trunk(model, progress)
        if not self.encoder.task.has_head:
            return headless(trunk.learnable(self.dataset.validation), self.objective)
        features = trunk.features(self.dataset)
        if name is not None:
            trunk.keep(features, self._features_path(name))
        return trunk.solve(features)

    def _trunk(self, model: Model, progress: Progress) -> Trunk:
        balanced = self.recipe.class_weights == "balanced"
        return Trunk(model, self.encoder, self.objective, balanced, self.bf16, progress)

    @property
    def _probe_path(self) -> Path:
        return self.folder / (f"probe-{self.side}.npz" if self.side else "probe.npz")

    def _features_path(self, name: str) -> Path:
        return self.folder / f"{name}-{FEATURES_NAME}"

    def save_base(self, head: Head) -> None:
        """Write the frozen trunk with its best head: the base of every comparison."""
        self.model.to("cpu")
        finished = self.objective.finished(head)
        set_head(self.model, finished.weight, finished.bias)
        merge_and_save(self.model, self.encoder, self._slice, self.folder / "base")

    @property
    def _slice(self) -> Sequence[Input]:
        return self.dataset.validation.texts[:MERGE_SLICE]

    def train(self, probe: Probe, progress: Progress) -> Trained:
        """Train by the recipe's method from the probed head; the model with its best epoch in place, and its curve."""
        set_head(self.model, probe.start.weight, probe.start.bias)
        names = head_names(self.model)
        set_seed(self.seed)
        method = METHODS[self.recipe.method].settled(self.model, self.device)
        if not METHODS[self.recipe.method].drops_out(per_token=self.objective.per_token):
            remove_dropout(self.model)
        job = replace(self, encoder=method.encoder(self.model, self.encoder, self.recipe))
        if method.has_prompt and last_whole_checkpoint(self.folder / "checkpoints") is None:
            job.start_head_anew(progress)
        return job.train_from_head(probe, method, names, progress)

    def start_head_anew(self, progress: Progress) -> None:
        """Solve the head on what a prompt makes of the trunk's states, which are no more those of the probe."""
        self.model.to(self.device)
        start = self._fit_probe(self.model, None, progress).start
        set_head(self.model, start.weight, start.bias)

    def train_from_head(self, probe: Probe, method: Method, names: tuple[str, ...], progress: Progress) -> Trained:
        """Train the model by a settled method, from the head that is in place."""
        model = method.prepare(self.model, self.recipe).to(self.device)
        anchor = memory_anchor(model, self.encoder, self.dataset, self.recipe, method, self.seed, progress)
        if self.device == "cpu":
            quicken_dropout(model)
        result = train(
            model,
            self.encoder,
            self.training_rows(),
            self.validation_rows(),
            self.objective,
            recipe=self.recipe,
            plan=self.plan(method, names),
            reference=self.objective.answers(probe.logits),
            folder=self.folder / "checkpoints",
            progress=progress,
            rules=[anchor] if anchor else (),
        )
        parameters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
        return Trained(model, result, self.encoder, parameters)

    def training_rows(self) -> Sequence[EncodedRow]:
        """The rows of the training part, with labels."""
        return self.labelled_rows(self.dataset.train, self.encoder.training_rows)

    def validation_rows(self) -> Sequence[EncodedRow]:
        """The rows of the validation part, with labels."""
        return self.labelled_rows(self.dataset.validation, self.encoder.rows)

    def labelled_rows(self, part: Part, encode: Callable[[Sequence[Input]], list[EncodedRow]]) -> Sequence[EncodedRow]:
        if isinstance(self.objective, TokenObjective):
            return labelled_windows(self.encoder, part, self.objective)
        return labelled(encode(part.texts), self.objective.learnt(part.targets))

    @property
    def class_weights(self) -> tuple[float, ...] | None:
        """Of the outputs in the loss; None where all count alike."""
        return self.objective.weights(self.dataset.train.targets) if self.recipe.class_weights == "balanced" else None

    def plan(self, method: Method, head: tuple[str, ...], length: TrainingLength | None = None) -> TrainingPlan:
        """How the model is trained; `length` where that is not by these rows."""
        recipe = self.recipe
        length = length or TrainingLength.of(recipe, len(self.dataset.train), self.encoder.task)
        return TrainingPlan(
            method=method.name,
            epochs=length.epochs,
            round_epochs=length.round_epochs,
            rates=Rates(
                trunk=trunk_rate(self.model, method.trunk_rate)
                if recipe.learning_rate == "auto"
                else recipe.learning_rate,
                head=method.head_rate if recipe.head_learning_rate == "auto" else recipe.head_learning_rate,
                head_names=head,
                ratio=method.rate_ratio(recipe),
                layer_decay=recipe.layer_decay,
            ),
            bf16=self.bf16,
            device=self.device,
            seed=self.seed,
            class_weights=self.class_weights,
            pass_tokens=PASS_TOKENS[self.device] if recipe.pass_tokens == "auto" else recipe.pass_tokens,
            patience=length.patience,
        )

    def finish(
        self,
        probe: Probe,
        trained: Trained | None,
        settled: Outcome | None,
        progress: Progress,
    ) -> None:
        """Merge and write what did better on the validation part, with the facts; drop the checkpoints."""
        outcome, logits = settled, probe.logits
        if trained is not None and outcome is None:
            outcome, logits = self._choose(probe, trained.model, trained.result, progress)
        assert outcome is not None, "training is left out only where the probe settles it"
        if outcome.why:
            progress.say(outcome.why)
        self.hand_on(probe, trained, outcome, logits, progress)
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def hand_on(
        self,
        probe: Probe,
        trained: Trained | None,
        outcome: Outcome,
        logits: NDArray[np.float32],
        progress: Progress,
    ) -> None:
        """Merge and write what `outcome` says, whose logits of the validation part these are, with the facts."""
        difference = self._keep(trained if outcome.is_trained else None, probe)
        self._settle_features(TRAINED if outcome.is_trained else FROZEN)
        expected = self.objective.expected(self.dataset.validation.targets)
        if not self.objective.per_token:  # whose head has not learnt the validation part
            np.save(self.folder / HELD_OUT_NAME, logits)
        TunedModel(
            folder=self.folder,
            task=self.encoder.task.name,
            codec=self.encoder.codec,
            head=self.objective.head_spec(lambda: (expected, logits)),
            base_id=self.base.id,
            base_digest=self.base.digest,
            max_tokens=self.encoder.max_tokens,
            merge_max_abs_diff=difference,
            training=self._summary(probe, trained, outcome, progress),
            learns_copies=self.copies is None or self.copies.kept,
        ).save(self.folder)

    def _choose(
        self, probe: Probe, model: Model, result: TrainingResult, progress: Progress
    ) -> tuple[Outcome, NDArray[np.float32]]:
        """Whether the trained model is handed on, and the logits of the validation rows (rows, outputs) float32 of what
        is, each by a head that has not learnt the row.
        """
        objective, method = self.objective, METHODS[self.recipe.method]
        if objective.per_token:  # no round of it was stopped for want of gain, and a probe that does worse is none
            method = replace(method, by_gain=False)
        logits, value = self.improve_head(model, result, progress)
        expected = self._expected_rows()
        answers = (objective.answers(probe.logits), objective.answers(logits))
        gain = paired_gain(objective.metric, expected, *answers)
        outcome = choose(method, result.method, probe.value, value, gain, objective.metric)
        return outcome, logits if outcome.is_trained else probe.logits

    def improve_head(
        self, model: Model, result: TrainingResult, progress: Progress
    ) -> tuple[NDArray[np.float32], float]:
        """Of `auto`, solve the head again on the trained trunk, on both parts as the probe's is, and put it in place
        where it does better; the logits of the validation rows (rows, outputs) float32 then, and their value."""
        logits, value = result.best_logits, result.best_value
        anew = METHODS[self.recipe.method].by_gain and not self.objective.per_token
        if anew or self.dataset.remembered is not None:  # whose rows the head alone may learn again
            again = self._fit_probe(model, TRAINED, progress)
            if self.objective.metric.is_better(again.value, value):
                progress.say(f"head solved again on the trained layers: validation {again.value:.4f}")
                replace_weights(trained_head(model), again.final.weight, again.final.bias)
                return again.logits, again.value
        return logits, value

    def _expected_rows(self) -> NDArray[Any]:
        """What the rows of the validation part expect, as training compares them: of a task on tokens its windows."""
        if isinstance(self.objective, TokenObjective):
            rows = labelled_windows(self.encoder, self.dataset.validation, self.objective)
            return self.objective.restored(padded_tags(rows))
        return self.objective.expected(self.dataset.validation.targets)

    def _keep(self, trained: Trained | None, probe: Probe) -> float:
        """Write model/, and adapter/ for a method with adapters; returns the proven logit difference."""
        if trained is None and self.side:
            model, solved = open_model(self.folder / "base"), self.objective.finished(probe.final)
            set_head(model, solved.weight, solved.bias)
            return merge_and_save(model, self.encoder, self._slice, self.folder / "model")
        if trained is None:
            shutil.copytree(self.folder / "base", self.folder / "model", dirs_exist_ok=True)
            return 0.0
        head = trained_head(trained.model)
        if isinstance(head, nn.Linear):
            self.objective.finish(head)
        return merge_and_save(
            trained.model,
            trained.encoder,
            self._slice,
            self.folder / "model",
            base=self.folder / "base",
            adapter=self.folder / "adapter",
        )

    def _memories(self, trained: Trained | None, outcome: Outcome) -> list[TaskMemory]:
        """What the earlier task lost and the new one gained, of the model that is in its folder."""
        if self.dataset.remembered is None:
            return []
        encoder = trained.encoder if trained and outcome.is_trained else self.encoder
        labels = known_labels(self.base) or ()
        return task_memories(self.dataset, self.base.folder, labels, self.folder / "model", encoder)

    def _settle_features(self, trunk: str) -> None:
        """Leave the features of the trunk that is handed on, where they were computed, for its students."""
        for name in (FROZEN, TRAINED):
            path = self._features_path(name)
            if name != trunk:
                path.unlink(missing_ok=True)
            elif path.is_file():
                path.rename(self.folder / FEATURES_NAME)

    @property
    def _reading(self) -> dict[str, int | str]:
        """How inputs are read where a task leaves a choice: what bears a tag; the sides of pictures, in pixels."""
        if self.objective.per_token:
            return {"tag_unit": "word" if self.encoder.codec == "words" else "token"}
        if not isinstance(self.encoder, PictureEncoder):
            return {}
        own = read_picture_spec(self.folder / "base").shape[0]
        return {"picture_size": self.encoder.spec.shape[0], "base_picture_size": own}

    def _summary(self, probe: Probe, trained: Trained | None, outcome: Outcome, progress: Progress) -> Training:
        result, memory = trained.result if trained else None, self._memories(trained, outcome)
        curve, remembered = list(result.curve) if result else [], remark_on_memory(memory)
        if remembered:
            progress.say(remembered)
        remarks = [outcome.why, remark_on(curve) if curve or not outcome.why else "", remembered]
        remarks += [self.copies.why] if self.copies else []
        return Training(
            method=self.recipe.method,
            handed_on=outcome.handed_on,
            pooling=TOKENS
            if self.objective.per_token
            else chosen_pooling(self.base, self.recipe, has_head=self.encoder.task.has_head),
            probe_value=probe.value,
            best_value=outcome.value,
            best_epoch=result.best_epoch if result else None,
            epochs=result.epochs if result else 0.0,
            remark=" ".join(filter(None, remarks)),
            curve=curve,
            memory=memory,
            settings={
                "batch_size": self.recipe.step_rows(per_token=self.objective.per_token),
                "max_tokens": self.encoder.max_tokens,
                "precision": "bf16" if self.bf16 else "fp32",
                "device": self.device,
                "probe_strength": probe.strength,
                "train_rows": len(self.dataset.train),
                **({"changed_copies": self.dataset.copies.rows} if self.dataset.copies else {}),
                "processes": process_count(),
                "trained_parameters": trained.parameters
                if trained
                else probe.final.weight.size + probe.final.bias.size,
                **self._reading,
                **({"threads": result.pace.threads, "attention": result.pace.attention} if result else {}),
            },
        )
