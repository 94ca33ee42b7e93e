"""The ledger: one frozen slice of the test part through every stage, so that a loss is found where it arose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgetune.benchmarks.prove.statistics import metric_interval
from edgetune.benchmarks.recipe import GateRecipe
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import ClassQuality, Confusion, StageQuality
from edgetune.tune.data.dataset import Part
from edgetune.tune.data.slices import frozen_indices
from edgetune.tune.metrics import ACCURACY, Metric
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.tasks.text_classification import METRICS
from edgetune.tune.training.progress import Progress

Logits = NDArray[np.float32]


def gate_metric(gate: GateRecipe) -> Metric:
    """The metric that a classifier's gate compares."""
    return METRICS[gate.metric or ACCURACY.name]


@dataclass(frozen=True)
class Slice:
    """Frozen rows of a part: texts and class indices (rows,) int64."""

    texts: tuple[str, ...]
    expected: NDArray[np.int64]


def frozen_slice(part: Part, rows: int, seed: int) -> Slice:
    """At most `rows` rows of a part, the same for the same seed and data, in the order of the data."""
    indices = frozen_indices(len(part), rows, seed)
    labels = np.asarray(part.labels, dtype=np.int64)
    return Slice(tuple(part.texts[row] for row in indices), labels[indices])


def torch_stages(tuned: TunedModel, rows: Slice, progress: Progress) -> dict[str, Logits]:
    """Logits (rows, labels) of base, tuned and merged in PyTorch, fp32."""
    from transformers import AutoTokenizer

    folders: dict[str, tuple[Path, Path | None]] = {
        "base": (tuned.base_folder, None),
        "tuned": (tuned.base_folder, tuned.adapter_folder) if tuned.adapter_folder else (tuned.model_folder, None),
        "merged": (tuned.model_folder, None),
    }
    tokenizer = AutoTokenizer.from_pretrained(tuned.model_folder)
    logits: dict[str, Logits] = {}
    for stage, (folder, adapter) in folders.items():
        same = next((name for name in logits if folders[name] == (folder, adapter)), None)
        if same is not None:  # without adapters the tuned model and the merged one are the same files
            logits[stage] = logits[same]
            continue
        model = open_model(folder, adapter=adapter)
        logits[stage] = model_logits(model, tokenizer, rows.texts, tuned.max_tokens, progress=progress)
        progress.say(f"quality of {stage} measured on {len(rows.texts):,} rows")
    return logits


def model_answers(tuned: TunedModel, rows: Slice) -> Logits:
    """Logits (rows, labels) of a tuned model in PyTorch, fp32."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tuned.model_folder)
    return model_logits(open_model(tuned.model_folder), tokenizer, rows.texts, tuned.max_tokens)


def bundle_logits(predictor: Predictor, rows: Slice) -> Logits:
    """Logits (rows, labels) of a bundle through its own runtime, in batches of 32 sorted by length."""
    return predictor.logits(predictor.encode(rows.texts))


def stage_qualities(logits: Mapping[str, Logits], expected: NDArray[np.int64], metric: Metric) -> list[StageQuality]:
    """One entry a stage, compared with the stage named `tuned`; the base is not compared."""
    tuned = logits["tuned"]
    tuned_value = metric.of(expected, tuned.argmax(axis=1))
    entries = []
    for stage, found in logits.items():
        answers = found.argmax(axis=1)
        value = metric.of(expected, answers)
        interval = metric_interval(metric, metric.rows(expected, answers))
        entry = StageQuality(stage=stage, value=value, ci95=list(interval))
        if stage != "base":
            difference = np.abs(found - tuned)
            entry = StageQuality(
                stage=stage,
                value=value,
                ci95=entry.ci95,
                agreement=float(np.mean(answers == tuned.argmax(axis=1))),
                max_abs_diff=float(difference.max()),
                mean_abs_diff=float(difference.mean()),
                drop=tuned_value - value,
            )
        entries.append(entry)
    return entries


def first_loss(stages: Sequence[StageQuality]) -> str | None:
    """The first stage after tuning whose metric is below the tuned model's."""
    return next((entry.stage for entry in stages if entry.drop is not None and entry.drop > 0), None)


def class_qualities(
    expected: NDArray[np.int64], answers: NDArray[np.int64], labels: Sequence[str]
) -> list[ClassQuality]:
    """Precision, recall and F1 of each class that the slice holds, lowest F1 first."""
    from sklearn.metrics import precision_recall_fscore_support

    present = np.unique(expected)
    columns = precision_recall_fscore_support(expected, answers, labels=present, zero_division=0)
    entries = [
        ClassQuality(label=labels[index], precision=float(p), recall=float(r), f1=float(f), rows=int(n))
        for index, p, r, f, n in zip(present, *columns, strict=True)
    ]
    return sorted(entries, key=lambda entry: entry.f1)


def confusions(rows: Slice, answers: NDArray[np.int64], labels: Sequence[str], most: int = 12) -> list[Confusion]:
    """The pairs of classes that are mistaken most often, with the first such text as an example."""
    pairs: dict[tuple[int, int], list[int]] = {}
    for row in np.flatnonzero(rows.expected != answers):
        pairs.setdefault((int(rows.expected[row]), int(answers[row])), []).append(int(row))
    ordered = sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0]))
    return [
        Confusion(expected=labels[e], predicted=labels[p], rows=len(found), example=rows.texts[found[0]])
        for (e, p), found in ordered[:most]
    ]
