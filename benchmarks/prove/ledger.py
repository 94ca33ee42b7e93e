"""The ledger: one frozen slice of the test part through every stage, so that a loss is found where it arose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.benchmarks.prove.gate import Verdict, judge_answers
from edgetune.benchmarks.prove.statistics import metric_interval
from edgetune.benchmarks.recipe import GateRecipe
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs import codec_inputs
from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.heads import Head, open_head
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import BatchedAnswers, StageQuality
from edgetune.serve.token_outputs import difference
from edgetune.tune.data.dataset import Part
from edgetune.tune.data.rows import Input
from edgetune.tune.metrics import Metric
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.objective import Objective
from edgetune.tune.tasks.task import Task
from edgetune.tune.training.progress import Progress

Logits = NDArray[np.float32]

# An error moves with the last digits of every output: a smaller relative rise is no loss of quality.
ROUNDING = 1e-4
# Rows a run where many are answered at once.
BATCH = 32


@dataclass(frozen=True)
class Slice:
    """Frozen rows of a part, and how their answers are judged.

    Attributes:
        texts: inputs.
        expected: targets as the metric takes them, one entry a row.
        head: how logits become answers.
        objective: what the model was tuned for, with the gate's metric.
        task: that they are of.
        learnt: targets of the training part, as `expected`: of them constant answers are made.
    """

    texts: tuple[Input, ...]
    expected: NDArray[Any]
    head: Head
    objective: Objective
    task: Task
    learnt: NDArray[Any]

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """What the report shows, of the task's."""
        return self.objective.metrics(self.task.metrics)

    @property
    def second_metric(self) -> Metric | None:
        """What is judged beside the metric; None where that says enough."""
        return self.objective.second_metric(self.learnt)

    @property
    def metric(self) -> Metric:
        """What the gate compares."""
        return self.objective.metric

    def value(self, logits: Logits) -> float:
        """The gate's metric of logits (rows, outputs)."""
        return self.metric.of(self.expected, self.answers(logits))

    def answered(self, draft: Bundle) -> Logits:
        """Logits (rows, outputs) of a bundle, one row a run."""
        return bundle_logits(Predictor(draft), self)

    def judge(
        self,
        reference: Logits,
        candidate: Logits,
        gate: GateRecipe,
        *,
        structural: bool,
        is_float: bool,
        looks: int = 1,
    ) -> Verdict:
        """`judge_answers` of the tuned model's logits and a candidate's."""
        return judge_answers(
            self.metric,
            self.expected,
            self.answers(reference),
            self.answers(candidate),
            gate,
            second=self.second_metric,
            structural=structural,
            is_float=is_float,
            looks=looks,
        )

    def answers(self, logits: Logits) -> NDArray[Any]:
        """Decisions for logits (rows, outputs), one entry a row."""
        return self.head.decide(logits)


def frozen_slice(tuned: TunedModel, metric: str, part: Part, train: Part, rows: int, seed: int) -> Slice:
    """At most `rows` rows of a part, the same for the same seed and data, in the order of the data."""
    task = TASKS[tuned.task]
    objective = task.objective(tuned.labels, metric, part.targets).served_by(tuned.head)
    indices = objective.drawn(part.targets, rows, seed)
    texts = tuple(part.texts[row] for row in indices)
    expected, learnt = objective.expected(part.targets)[indices], objective.expected(train.targets)
    return Slice(texts, expected, open_head(tuned.head), objective, task, learnt)


def torch_stages(tuned: TunedModel, rows: Slice, progress: Progress) -> dict[str, Logits]:
    """Logits (rows, labels) of base, tuned and merged in PyTorch, fp32."""
    folders: dict[str, tuple[Path, Path | None]] = {
        "base": (tuned.base_folder, None),
        "tuned": (tuned.base_folder, tuned.adapter_folder) if tuned.adapter_folder else (tuned.model_folder, None),
        "merged": (tuned.model_folder, None),
    }
    encoder = Encoder.of(tuned)
    # A prompt is the tuned model's alone, and the base reads pictures at its own size.
    of_base = Encoder.of_folder(tuned.base_folder, tuned.max_tokens, rows.task, tuned.codec)
    logits: dict[str, Logits] = {}
    for stage, (folder, adapter) in folders.items():
        same = next((name for name in logits if folders[name] == (folder, adapter)), None)
        if same is not None:  # without adapters the tuned model and the merged one are the same files
            logits[stage] = logits[same]
            continue
        model = open_model(folder, adapter=adapter)
        read_by = of_base if stage == "base" else encoder
        logits[stage] = model_logits(model, read_by, rows.texts, progress=progress)
        progress.say(f"quality of {stage} measured on {len(rows.texts):,} rows")
    return logits


def model_answers(tuned: TunedModel, rows: Slice) -> Logits:
    """Logits (rows, labels) of a tuned model in PyTorch, fp32."""
    return model_logits(open_model(tuned.model_folder), Encoder.of(tuned), rows.texts)


def encoded(predictor: Predictor, rows: Slice) -> list[EncodedText]:
    """The rows as a bundle's graph takes them."""
    return predictor.encode(codec_inputs(rows.task.codec, rows.texts))


def bundle_logits(predictor: Predictor, rows: Slice) -> Logits:
    """Logits (rows, labels) of a bundle through its own runtime, one row a run, as single requests are answered."""
    return predictor.logits(encoded(predictor, rows), batch_size=1)


def batched_answers(predictor: Predictor, rows: Slice, alone: Logits) -> BatchedAnswers:
    """How a bundle's answers change where it answers many rows in a run; `alone` are its logits one row a run."""
    together = predictor.logits(encoded(predictor, rows), batch_size=BATCH)
    same = rows.objective.agreement(rows.answers(together), rows.answers(alone))
    return BatchedAnswers(
        batch_size=BATCH,
        n=len(rows.texts),
        changed=1 - same,
        max_abs_diff=float(difference(together, alone).max()),
    )


def stage_qualities(logits: Mapping[str, Logits], rows: Slice) -> list[StageQuality]:
    """One entry a stage, compared with the stage named `tuned`; the base is not compared."""
    metric, tuned = rows.objective.metric, rows.answers(logits["tuned"])
    tuned_value = metric.of(rows.expected, tuned)
    entries = []
    for stage, outputs in logits.items():
        answers = rows.answers(outputs)
        value = metric.of(rows.expected, answers)
        further = {other.name: other.of(rows.expected, answers) for other in rows.metrics if other != metric}
        entry = StageQuality(
            stage=stage,
            value=value,
            ci95=list(metric_interval(metric, metric.rows(rows.expected, answers))),
            metrics=further | rows.objective.figures(rows.expected, answers),
        )
        if stage != "base":
            differences = difference(outputs, logits["tuned"])
            entry = msgspec.structs.replace(
                entry,
                agreement=rows.objective.agreement(answers, tuned),
                max_abs_diff=float(differences.max()),
                mean_abs_diff=float(differences.mean()),
                drop=float(metric.loss(np.asarray(tuned_value), np.asarray(value))),
            )
        entries.append(entry)
    return entries


def first_loss(stages: Sequence[StageQuality], metric: Metric) -> str | None:
    """The first stage after tuning whose metric is worse than the tuned model's."""
    least = 0.0 if metric.higher_is_better else ROUNDING
    return next((entry.stage for entry in stages if entry.drop is not None and entry.drop > least), None)
