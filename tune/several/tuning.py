"""Tuning several tasks on one encoder: the probe of each, one training for all, and one trunk that is handed on.

Each task is a `Job` of its own, which reads, probes, merges and writes as where it is built alone; here its model has
the trunk of all, and whether the trained trunk or the frozen one is handed on is decided once, by the mean gain.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from transformers import set_seed

from edgetune.tune.data.dataset import Dataset
from edgetune.tune.methods import METHODS
from edgetune.tune.models.base import Base
from edgetune.tune.models.classifier import head_names, set_head
from edgetune.tune.models.dropout import quicken_dropout, remove_dropout
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.several.shared_trunk import SharedTrunk, share_trunk
from edgetune.tune.several.trainer import Lesson, train_together
from edgetune.tune.several.tuned import TASKS_FOLDER, TunedTasks
from edgetune.tune.training.length import TrainingLength
from edgetune.tune.training.outcome import Outcome
from edgetune.tune.training.probe import Probe
from edgetune.tune.training.processes import is_main, main_first, wait_for_all
from edgetune.tune.training.progress import Progress
from edgetune.tune.training.trainer import TrainingResult
from edgetune.tune.tuning import Job, Trained

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model


@dataclass(frozen=True)
class Part:
    """One task of several: its data, what is learnt of it, the metric's name ("" for the default), and its weight."""

    dataset: Dataset
    task: str
    metric: str
    weight: float


@dataclass(frozen=True)
class _Step:
    """One task on its way: its job, its probe, and what training left of it."""

    job: Job
    probe: Probe
    result: TrainingResult | None = None
    logits: NDArray[np.float32] | None = None
    value: float = 0.0


def tune_together(
    parts: Mapping[str, Part],
    base: Base,
    recipe: TuneRecipe,
    *,
    sampling: float,
    device: str,
    seed: int,
    folder: Path,
    progress: Progress,
) -> TunedTasks:
    """Fine-tune `base` on all tasks into `folder`; a call that was interrupted continues.

    Args:
        parts: the tasks by name; the first one's model is that which the method prepares.
        sampling: power of the tasks' sizes by which batches are drawn.

    Raises:
        ModelError, MergeError, Interrupted: see there.
    """
    set_seed(seed)
    jobs = {
        name: Job.open(
            part.dataset,
            base,
            recipe,
            task=part.task,
            metric=part.metric,
            device=device,
            seed=seed,
            folder=folder / TASKS_FOLDER / name,
        )
        for name, part in parts.items()
    }
    jobs = _of_one_tag_unit(jobs)
    share_trunk({name: job.model for name, job in jobs.items()})
    if is_main():
        for remark in dict.fromkeys(remark for job in jobs.values() for remark in job.remarks):
            progress.say(remark)
    with main_first():
        steps = {name: _probed(name, job, progress) for name, job in jobs.items()}
    method = METHODS[recipe.method]
    model: SharedTrunk | None = None
    if method.trains:
        model, steps = _trained(steps, parts, recipe, sampling, folder, progress)
    if is_main():
        _hand_on(steps, model, folder, progress)
    wait_for_all()
    tuned = TunedTasks.open(folder)
    wait_for_all()  # what comes next moves the folder, and another process may be opening it still
    return tuned


def _of_one_tag_unit(jobs: Mapping[str, Job]) -> dict[str, Job]:
    """The jobs, those on tokens read by words all together or not at all: one graph's inputs are read in one way."""
    by = {job.encoder.codec for job in jobs.values() if job.objective.per_token}
    if len(by) < 2:
        return dict(jobs)
    return {
        name: replace(job, encoder=job.encoder.by("tokens")) if job.objective.per_token else job
        for name, job in jobs.items()
    }


def _probed(name: str, job: Job, progress: Progress) -> _Step:
    job.folder.mkdir(parents=True, exist_ok=True)
    progress.say(f"{name}:")
    probe = job.solve_probe(progress)
    if is_main():
        job.save_base(probe.final)
    return _Step(job, probe)


def _trained(
    steps: Mapping[str, _Step],
    parts: Mapping[str, Part],
    recipe: TuneRecipe,
    sampling: float,
    folder: Path,
    progress: Progress,
) -> tuple[SharedTrunk, dict[str, _Step]]:
    """Train from the probed heads; the models with their best epoch in place."""
    models: dict[str, Model] = {}
    per_token = any(step.job.objective.per_token for step in steps.values())
    for name, step in steps.items():
        models[name] = step.job.model
        set_head(step.job.model, step.probe.start.weight, step.probe.start.bias)
        if not METHODS[recipe.method].drops_out(per_token=per_token):
            remove_dropout(step.job.model)
    first = next(iter(steps.values())).job
    set_seed(first.seed)
    method = METHODS[recipe.method].settled(first.model, first.device)
    names = tuple(dict.fromkeys(name for model in models.values() for name in head_names(model)))
    model = SharedTrunk(models, method.prepare(first.model, recipe)).to(first.device)
    if first.device == "cpu":
        quicken_dropout(model)
    rows = sum(len(part.dataset.train) for part in parts.values())
    lessons = [
        Lesson(
            name=name,
            model=model.first if step.job is first else step.job.model,
            encoder=step.job.encoder,
            objective=step.job.objective,
            train=step.job.training_rows(),
            validation=step.job.validation_rows(),
            start=step.probe.value,
            weight=parts[name].weight,
            class_weights=step.job.class_weights,
        )
        for name, step in steps.items()
    ]
    length = TrainingLength.of(recipe, rows, together=True)
    results = train_together(
        model,
        lessons,
        recipe=recipe,
        sampling=sampling,
        plan=first.plan(method, names, length),
        folder=folder / "checkpoints",
        progress=progress,
    )
    return model, {
        lesson.name: _Step(
            steps[lesson.name].job, steps[lesson.name].probe, result, *_improved(lesson, steps, result, progress)
        )
        for lesson, result in zip(lessons, results, strict=True)
    }


def _improved(
    lesson: Lesson, steps: Mapping[str, _Step], result: TrainingResult, progress: Progress
) -> tuple[NDArray[np.float32], float]:
    """The logits of a task's validation rows and their value, by the better of the trained head and one solved anew."""
    if not is_main():
        return result.best_logits, result.best_value
    return steps[lesson.name].job.improve_head(lesson.model, result, progress)


def _hand_on(steps: Mapping[str, _Step], model: SharedTrunk | None, folder: Path, progress: Progress) -> None:
    """Write the trained models where they gain over the probes on the mean of all tasks, else the probes."""
    handed_on, gain, why = _outcome(steps)
    if why:
        progress.say(why)
    for place, step in enumerate(steps.values()):
        trained, value, logits = None, step.probe.value, step.probe.logits
        if step.result is not None and step.logits is not None and model is not None:
            # The first is merged first, and with it the trunk of all.
            its_own = model.first if place == 0 else step.job.model
            parameters = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
            trained = Trained(its_own, step.result, step.job.encoder, parameters)
            if handed_on != "probe":
                value, logits = step.value, step.logits
        step.job.hand_on(step.probe, trained, Outcome(handed_on, value, why), logits, progress)
    TunedTasks(folder, tuple(steps), handed_on, gain).save(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)


def _outcome(steps: Mapping[str, _Step]) -> tuple[str, float, str]:
    """What is handed on of all tasks, the mean gain of that over the probes, and why in a sentence."""
    gains, method = {}, ""
    for name, step in steps.items():
        if step.result is not None:
            lost = step.job.objective.metric.loss(np.asarray(step.probe.value), np.asarray(step.value))
            gains[name], method = -float(lost), step.result.method
    if not gains:
        return "probe", 0.0, ""
    gain = float(np.mean(list(gains.values())))
    listed = ", ".join(f"{name} {100 * value:+.2f}" for name, value in gains.items())
    values = f"gains over the probes on the validation parts, in points: {listed}, on average {100 * gain:+.2f}"
    if gain > 0:
        return method, gain, f"{method} is handed on: {values}."
    return "probe", 0.0, f"{method} gained nothing, and the probes are handed on: {values}."
