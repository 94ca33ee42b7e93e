"""Several tasks in one bundle against a bundle each: quality by task, and the cost of one pass.

Run as `python -m benchmarks.lab.several_tasks --data DIR --markdown FILE`; DIR holds the public data sets in the layout
of `SETS`. Costs are CPU seconds (`time.process_time`), of all bundles in turn on the same texts by one thread, so that
other programs on the machine bend them little. `--rows` cuts the training parts, to try the path.
"""

from __future__ import annotations

import csv
import io
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml

from benchmarks.lab.entities import SETS as ENTITIES
from benchmarks.lab.real_data import BASE, table
from benchmarks.lab.real_data import SETS as TEXTS
from edgetune.serve.loading import load
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import Report
from edgetune.serve.tasks_report import TasksReport
from edgetune.tune.data.dataset import Dataset

# The task's name: its kind, the task that is built alone, and its files by part.
SETS: dict[str, tuple[str, str, dict[str, str]]] = {
    name: ("label", "text-classification", {key.partition(".")[2]: path for key, path in TEXTS[name].items()})
    for name in ("banking77", "sst2")
} | {"wnut17": ("entities", "token-classification", ENTITIES["wnut17"][1])}
HEAD = ["task", "metric", "base", "alone: tuned", "alone: bundle", "together: tuned", "together: bundle", "points"]
COST_HEAD = ["bundle", "scheme", "MB", "CPU ms a text", "of the costliest alone"]
TIMED_TEXTS, TURNS = 200, 5


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the data sets.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("bundles/several"), help="Where bundles are built."
)
@click.option("--rows", type=int, help="Training rows of each task at most, drawn with a fixed seed [default: all].")
@click.option("--set", "settings", multiple=True, help="KEY=VALUE of every recipe, such as tune.epochs=1.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the tables [default: stdout].")
def main(data: Path, out: Path, rows: int | None, settings: tuple[str, ...], markdown: Path | None) -> None:
    """Build the tasks together and each alone, and compare them."""
    out.mkdir(parents=True, exist_ok=True)
    sections = {name: _section(name, data, out, rows) for name in SETS}
    _build(out / "together", {"tasks": {n: {"kind": SETS[n][0], "data": sections[n]} for n in SETS}}, settings)
    for name, (_, task, _) in SETS.items():
        _build(out / name, {"task": task, "data": sections[name]}, settings)
    page = "\n".join(["# Several tasks on one encoder", "", *_quality(out), "", *_cost(out), ""])
    if markdown:
        markdown.write_text(page, encoding="utf-8")
    else:
        click.echo(page)


def _section(name: str, data: Path, out: Path, rows: int | None) -> dict[str, Any]:
    """The data section of a task, whose training file is cut where that is asked for."""
    section: dict[str, Any] = {part: str(data / path) for part, path in SETS[name][2].items()}
    if rows is not None:
        source = Path(section["train"])
        cut = out / f"{name}-{rows}{source.suffix}"
        text = source.read_text(encoding="utf-8")
        if SETS[name][0] == "entities":
            pieces = [piece for piece in re.split(r"\n\s*\n", text) if piece.strip()]
            chosen = random.Random(0).sample(pieces, min(rows, len(pieces)))
            cut.write_text("\n\n".join(chosen) + "\n\n", encoding="utf-8")
        else:
            quoting = {"delimiter": ","} if source.suffix == ".csv" else {"delimiter": "\t", "quoting": csv.QUOTE_NONE}
            first, *lines = csv.reader(io.StringIO(text), **quoting)
            with cut.open("w", encoding="utf-8", newline="") as stream:
                csv.writer(stream, **quoting).writerows([first, *random.Random(0).sample(lines, min(rows, len(lines)))])
        section["train"] = str(cut)
    return section


def _build(folder: Path, own: dict[str, Any], settings: tuple[str, ...]) -> None:
    """Build a bundle from the command line, as a user would; what is finished in its work folder is opened."""
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump({"base": BASE, "out": str(folder), **own}), encoding="utf-8")
    flags = [f"--set={setting}" for setting in settings]
    subprocess.run([sys.executable, "-m", "edgetune", "build", str(recipe), *flags], check=True)


def _quality(out: Path) -> list[str]:
    """A row a task: the base, then tuned model and bundle, alone and together."""
    together = TasksReport.load(out / "together" / "report.json").tasks
    rows = []
    for name in SETS:
        alone, joint = Report.load(out / name / "report.json"), together[name]
        values = [
            alone.stage("base"),
            *(report.stage(stage) for report in (alone, joint) for stage in ("tuned", report.chosen)),
        ]
        cells = ["none" if stage is None else f"{100 * stage.value:.2f}" for stage in values]
        mine, theirs = values[-1], values[2]
        points = f"{100 * (mine.value - theirs.value):+.2f}" if mine and theirs else "not measured"
        rows.append([name, alone.quality.metric, *cells, points])
    return table(HEAD, rows)


def _cost(out: Path) -> list[str]:
    """A row a bundle: the CPU time of a text, all in turn on the test texts of all tasks."""
    texts = []
    for name in SETS:
        test = Dataset.open(out / f"{name}.work" / "data").test.texts
        texts += random.Random(0).sample([str(text) for text in test], min(len(test), TIMED_TEXTS // len(SETS)))
    random.Random(0).shuffle(texts)
    predictors = {name: load(out / name, threads=1) for name in ("together", *SETS)}
    seconds: dict[str, list[float]] = {name: [] for name in predictors}
    for turn in range(1 + TURNS):
        for name, predictor in predictors.items():
            spent = _seconds(predictor, texts)
            if turn:  # the first warms up
                seconds[name].append(spent)
    each = {name: float(np.median(spent)) / len(texts) for name, spent in seconds.items()}
    costliest = max(each[name] for name in SETS)
    rows = [
        [
            name,
            predictor.variant,
            f"{predictor.bundle.size_bytes / 1e6:.1f}",
            f"{1000 * each[name]:.3f}",
            f"{each[name] / costliest:.2f}",
        ]
        for name, predictor in predictors.items()
    ]
    return table(COST_HEAD, rows)


def _seconds(predictor: Predictor, texts: list[str]) -> float:
    start = time.process_time()
    for text in texts:
        predictor.predict_one(text)
    return time.process_time() - start


if __name__ == "__main__":
    main()
