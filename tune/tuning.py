"""The tune stage: probe, train from it, merge, keep the better; one function a step."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed

from edgetune.serve.report import Training
from edgetune.tune.base import Base, open_tokenizer
from edgetune.tune.classifier import head_names, set_head
from edgetune.tune.curve import remark_on
from edgetune.tune.dataset import Dataset, Part
from edgetune.tune.dropout import quicken_dropout
from edgetune.tune.forward import head_features
from edgetune.tune.hardware import choose_device, fast_bf16
from edgetune.tune.merge import merge_and_save
from edgetune.tune.methods import METHODS, Method
from edgetune.tune.model import TunedModel, chosen_pooling, longest_input, start_model
from edgetune.tune.probe import Probe, fit_probe
from edgetune.tune.progress import Progress
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.text_classification import Metric
from edgetune.tune.training import (
    TrainingPlan,
    TrainingResult,
    automatic_epochs,
    class_weights,
    labelled,
    train,
)

MERGE_SLICE = 64


@dataclass(frozen=True)
class _Start:
    """What every method starts from: the model with its probed head on the device, and how it was probed."""

    model: Any
    tokenizer: Any
    max_tokens: int
    device: str
    bf16: bool
    probe: Probe


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
    """Fine-tune `base` on `dataset` into `folder`: base/ with the probed head, adapter/ (lora), model/ merged.

    Interrupted training leaves `folder/checkpoints`, and the same call continues from there.

    Raises:
        ModelError, MergeError, Interrupted: see there.
    """
    set_seed(seed)
    folder.mkdir(parents=True, exist_ok=True)
    judge = TASKS[task].METRICS[metric]
    start = _probed(dataset, base, recipe, judge, device, folder, progress)
    method = METHODS[recipe.method]
    slice_ = dataset.validation.texts[:MERGE_SLICE]
    start.model.to("cpu")
    set_head(start.model, start.probe.final.weight, start.probe.final.bias)
    merge_and_save(start.model, start.tokenizer, slice_, start.max_tokens, folder / "base")
    set_head(start.model, start.probe.start.weight, start.probe.start.bias)
    result = _train(dataset, start, method, recipe, judge, seed, folder, progress) if method.trains else None
    handed_on = method.name if result and result[1].best_value >= start.probe.value else "probe"
    if result and handed_on == "probe":
        progress.say(
            f"{method.name} ended below the probe ({result[1].best_value:.4f} against {start.probe.value:.4f} "
            "on the validation part): the probe is handed on"
        )
    difference = _keep(result[0] if result and handed_on != "probe" else None, start, slice_, folder)
    tuned = TunedModel(
        folder=folder,
        task=task,
        labels=dataset.labels,
        base_id=base.id,
        base_digest=base.digest,
        max_tokens=start.max_tokens,
        merge_max_abs_diff=difference,
        training=_training(base, recipe, handed_on, start.probe, result[1] if result else None, dataset, start),
    )
    tuned.save()
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return tuned


def _probed(
    dataset: Dataset,
    base: Base,
    recipe: TuneRecipe,
    metric: Metric,
    device: str,
    folder: Path,
    progress: Progress,
) -> _Start:
    model = start_model(base, dataset.labels, recipe)
    tokenizer = open_tokenizer(base, trust_remote_code=recipe.trust_remote_code)
    max_tokens = longest_input(model, tokenizer, base)
    if recipe.max_tokens != "auto":
        max_tokens = min(max_tokens, recipe.max_tokens)
    where = choose_device(device)  # type: ignore[arg-type]
    bf16 = fast_bf16(where) if recipe.precision == "auto" else recipe.precision == "bf16"
    model.to(where)

    def features(part: Part) -> tuple[Any, Any]:
        found = head_features(model, tokenizer, part.texts, max_tokens, bf16=bf16, progress=progress)
        return found, np.asarray(part.labels, dtype=np.int64)

    solved = folder / "probe.npz"
    if solved.is_file():  # a build that was stopped while training continues from here
        probe = Probe.load(solved)
    else:
        probe = fit_probe(
            features(dataset.train),
            features(dataset.validation),
            len(dataset.labels),
            metric,
            balanced=recipe.class_weights == "balanced",
            progress=progress,
        )
        probe.save(solved)
    progress.say(f"probe: validation {probe.value:.4f} with the trunk frozen")
    return _Start(model, tokenizer, max_tokens, where, bf16, probe)


def _train(
    dataset: Dataset,
    start: _Start,
    method: Method,
    recipe: TuneRecipe,
    metric: Metric,
    seed: int,
    folder: Path,
    progress: Progress,
) -> tuple[Any, TrainingResult]:
    head = head_names(start.model)
    set_seed(seed)
    model = method.prepare(start.model, recipe).to(start.device)
    if start.device == "cpu":
        quicken_dropout(model)

    def rows(part: Part) -> Sequence[dict[str, Any]]:
        encode = TASKS["text-classification"].encode
        return labelled(encode(start.tokenizer, part.texts, start.max_tokens), part.labels)

    plan = TrainingPlan(
        epochs=automatic_epochs(len(dataset.train), recipe.batch_size) if recipe.epochs == "auto" else recipe.epochs,
        trunk_rate=method.trunk_rate if recipe.learning_rate == "auto" else recipe.learning_rate,
        head_rate=method.head_rate if recipe.head_learning_rate == "auto" else recipe.head_learning_rate,
        head=head,
        bf16=start.bf16,
        device=start.device,
        seed=seed,
        class_weights=class_weights(dataset.train.labels, len(dataset.labels))
        if recipe.class_weights == "balanced"
        else None,
    )
    checkpoints = folder / "checkpoints"
    result = train(
        model,
        start.tokenizer,
        rows(dataset.train),
        rows(dataset.validation),
        metric,
        recipe,
        plan,
        checkpoints,
        progress,
    )
    return model, result


def _keep(model: Any | None, start: _Start, texts: Sequence[str], folder: Path) -> float:
    """Write the model that is handed on to `model/`, and its adapters to `adapter/`; returns the proven difference."""
    if model is None:
        shutil.copytree(folder / "base", folder / "model", dirs_exist_ok=True)
        return 0.0
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(folder / "adapter")
    return merge_and_save(model, start.tokenizer, texts, start.max_tokens, folder / "model")


def _training(
    base: Base,
    recipe: TuneRecipe,
    handed_on: str,
    probe: Probe,
    result: TrainingResult | None,
    dataset: Dataset,
    start: _Start,
) -> Training:
    curve = list(result.curve) if result else []
    return Training(
        method=recipe.method,
        handed_on=handed_on,
        pooling=chosen_pooling(base, recipe),
        probe_value=probe.value,
        best_value=result.best_value if result and handed_on != "probe" else probe.value,
        best_epoch=result.best_epoch if result else None,
        epochs=result.epochs if result else 0.0,
        remark=remark_on(curve, probe.value),
        curve=curve,
        settings={
            "batch_size": recipe.batch_size,
            "max_tokens": start.max_tokens,
            "precision": "bf16" if start.bf16 else "fp32",
            "device": start.device,
            "probe_strength": probe.strength,
            "train_rows": len(dataset.train),
        },
    )
