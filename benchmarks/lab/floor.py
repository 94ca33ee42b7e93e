"""What needs no pretrained model beside what was built: a constant answer, a linear model, base, tuned, bundle.

Run as `python -m benchmarks.lab.floor --data DIR --markdown FILE`, which takes seconds; with `--bundles DIR`, where
benchmarks/lab/real_data.py has built the sets, their reports give base, tuned and bundle too. DIR holds the public data
sets in the layout of `SETS`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchmarks.lab.real_data import SETS as REAL_SETS
from benchmarks.lab.real_data import table
from edgetune.benchmarks.prove.floor import measure_floor
from edgetune.benchmarks.prove.ledger import Slice
from edgetune.serve.heads import open_head
from edgetune.serve.report import Report
from edgetune.serve.verdict import FloorQuality
from edgetune.tune.data.dataset import DataRecipe, Dataset
from edgetune.tune.tasks import TASKS

SETS: dict[str, dict[str, str]] = {
    **REAL_SETS,
    "csl_category": {
        f"data.{part}": f"text_zh/csl_category/{name}.tsv"
        for part, name in (("train", "train"), ("validation", "dev"), ("test", "test"))
    },
}
HEAD = ["data", "rows", "majority", "linear", "CPU s", "base", "tuned", "bundle", "bundle over linear, points"]
TASK = TASKS["text-classification"]


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the data sets.")
@click.option("--bundles", type=click.Path(path_type=Path), help="Folder of bundles, each named as its set.")
@click.option("--only", multiple=True, type=click.Choice(list(SETS)), help="Data sets [default: all].")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the table [default: stdout].")
def main(data: Path, bundles: Path | None, only: tuple[str, ...], markdown: Path | None) -> None:
    """Fit the linear model on each data set, and print its accuracy beside those of a finished build."""
    rows = []
    for name in only or SETS:
        report = bundles / name / "report.json" if bundles else None
        built = Report.load(report) if report and report.is_file() else None
        rows.append(_built(name, built) if built else _fitted(name, data))
    page = "\n".join(["# The floor", "", *table(HEAD, rows), ""])
    if markdown:
        markdown.write_text(page, encoding="utf-8")
    else:
        click.echo(page)


def _fitted(name: str, data: Path) -> list[str]:
    """The floor alone, on the test part as a build splits it."""
    values: dict[str, Any] = {key.partition(".")[2]: str(data / path) for key, path in SETS[name].items()}
    dataset = Dataset.load(DataRecipe(**values), TASK, seed=0)
    objective = TASK.objective(dataset.labels, "", dataset.train.targets)
    expected, learnt = (objective.expected(part.targets) for part in (dataset.test, dataset.train))
    rows = Slice(dataset.test.texts, expected, open_head(objective.untuned_head()), objective, TASK, learnt)
    sizes = f"{len(dataset.train):,} and {len(dataset.test):,}"
    return [name, sizes, *_floor(measure_floor(rows, dataset, 0).entries), *["not built"] * 4]


def _built(name: str, report: Report) -> list[str]:
    stages = [report.stage(stage) for stage in ("base", "tuned", report.chosen)]
    pair = report.comparison("linear", report.chosen)
    over = "not measured" if pair is None else f"{-100 * pair.drop:+.2f}"
    if pair is not None:
        over += f" ({-100 * pair.drop_interval[1]:+.2f} to {-100 * pair.drop_interval[0]:+.2f})"
    return [
        name,
        f"{report.data.rows['train']:,} and {report.quality.n:,}",
        *_floor(report.quality.floor),
        *("none" if stage is None else f"{100 * stage.value:.2f}%" for stage in stages),
        over,
    ]


def _floor(entries: list[FloorQuality]) -> list[str]:
    values = {entry.stage: f"{100 * entry.value:.2f}%" for entry in entries}
    seconds = {entry.stage: f"{entry.cpu_seconds:.1f}" for entry in entries}
    return [values.get("majority", "none"), values.get("linear", "none"), seconds.get("linear", "none")]


if __name__ == "__main__":
    main()
