"""Figures of the static student on real data: accuracy beside the tuned model's, CPU seconds, megabytes, and a cascade.

Run as `python -m benchmarks.lab.static_student --work DIR...`; each DIR is the work folder that `edgetune tune` or
`build` left. Seconds are of the processor (`time.process_time`); the cascade's shares are set on the test part, so its
curve shows what is there to gain and not what a threshold chosen on validation rows reaches.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.lab.real_data import table
from edgetune.compress.material import Material
from edgetune.compress.schemes import static
from edgetune.compress.static_student.features import Features
from edgetune.compress.static_student.learn import StaticStudent
from edgetune.compress.static_student.learning import Learnt
from edgetune.serve.engines.tables import StaticTables
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.training.progress import Silent

SHARES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True)
class Figures:
    """One data set's. `cascade` is the metric by each of SHARES, none where the margin of an answer means nothing."""

    name: str
    metric: str
    tuned: float
    student: float
    agreement: float
    seconds: float
    megabytes: float
    made_by: str
    cascade: tuple[float, ...]


@click.command()
@click.option("--work", "works", type=click.Path(path_type=Path, exists=True), multiple=True, required=True)
@click.option("--seed", default=0, help="Of the student.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the tables; stdout when not said.")
def main(works: tuple[Path, ...], seed: int, markdown: Path | None) -> None:
    """Learn a static student of each work folder's tuned model and judge it on the test part."""
    text = "\n".join(page([measure(work, seed) for work in works]))
    if markdown:
        markdown.write_text(text, encoding="utf-8")
    else:
        click.echo(text)


def measure(work: Path, seed: int) -> Figures:
    """The figures of the tuned model in a work folder, the teacher's answers asked anew."""
    dataset, tuned = Dataset.open(work / "data"), TunedModel.open(work / "tune")
    material = Material(tuned, dataset.train, dataset.validation, dataset.unlabeled, "cpu", "cpu", seed, Silent())
    if reason := static.unsuitable(material):
        raise click.ClickException(f"{work}: {reason}")
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        student = static.learn(material, Path(folder) / "static")
        seconds = time.process_time() - start
    return judge(work.name.removesuffix(".work"), material, dataset, student, seconds)


def judge(name: str, material: Material, dataset: Dataset, student: StaticStudent, seconds: float) -> Figures:
    """A student held against its teacher on the test part."""
    objective, test = material.objective.in_units(), dataset.test
    expected = objective.expected(test.targets)
    strong = model_logits(open_model(material.model.model_folder), material.encoder, test.texts)
    small = table_logits(student.tables, [row["input_ids"] for row in material.encoder.rows(test.texts)])
    answers, own = objective.answers(strong), objective.answers(small)
    cascade: tuple[float, ...] = ()
    if material.model.head.kind == "label":
        order = np.argsort(-margins(small), kind="stable")
        cascade = tuple(
            objective.metric.of(expected[order], np.concatenate([own[order[:count]], answers[order[count:]]]))
            for count in (round(share * len(order)) for share in SHARES)
        )
    size = sum(getattr(student.tables, field).nbytes for field in StaticTables.__dataclass_fields__)
    metric = objective.metric
    values = metric.of(expected, answers), metric.of(expected, own)
    agreement = objective.agreement(own, answers)
    return Figures(name, metric.name, *values, agreement, seconds, size / 1e6, student.made_by, cascade)


def table_logits(tables: StaticTables, inputs: list[list[int]]) -> NDArray[np.float32]:
    """What tables answer to encoded inputs: (inputs, outputs) float32."""
    tokens = np.flatnonzero(tables.token_rows)
    features = Features(tokens, np.zeros_like(tokens), tables.pair_keys, len(tables.token_rows))
    rows = tables.rows * tables.scales[:, None]
    return Learnt(rows, tables.head, tables.bias).outputs(features.bags(inputs))


def margins(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Best minus second probability of each row (rows,)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    ordered = np.sort(powers / powers.sum(axis=1, keepdims=True), axis=1)
    gaps: NDArray[np.float32] = ordered[:, -1] - ordered[:, -2]
    return gaps


def page(figures: list[Figures]) -> list[str]:
    """Both tables as Markdown."""
    head = ["data", "metric", "tuned", "static", "same answer", "CPU s, teacher's answers included", "MB of tables"]
    rows = [
        [
            one.name,
            one.metric,
            f"{one.tuned:.4f}",
            f"{one.student:.4f}",
            f"{one.agreement:.4f}",
            f"{one.seconds:.0f}",
            f"{one.megabytes:.2f}",
        ]
        for one in figures
    ]
    shares = [[one.name, *(f"{value:.4f}" for value in one.cascade), f"{one.tuned:.4f}"] for one in figures]
    curve = ["share answered by static", *map(str, SHARES), "tuned alone"]
    made = [f"- {one.name}: {one.made_by}." for one in figures]
    curves = [row for row, one in zip(shares, figures, strict=True) if one.cascade]
    return [*table(head, rows), "", *table(curve, curves), "", *made, ""]


if __name__ == "__main__":
    main()
