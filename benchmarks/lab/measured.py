"""Holds the p50 of `edgetune measure` against the one of a build's race, on one machine, in turn.

Run as `python -m benchmarks.lab.measured --bundle BUNDLE`, repeatable: finished builds with their work folders beside
them. Each round races base and bundle on the test part as the bench stage does, then measures the bundle on what it
carries, or on its golden inputs where it carries nothing.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from benchmarks.lab.real_data import table
from edgetune.benchmarks.measure.measure import MeasureOptions, measure
from edgetune.benchmarks.recipe import BenchmarkRecipe
from edgetune.benchmarks.timing.machine import describe_machine
from edgetune.benchmarks.timing.race import Race, race
from edgetune.benchmarks.timing.side import Side
from edgetune.serve.bundle import Bundle
from edgetune.serve.cores import usable_cores
from edgetune.serve.predictor import Predictor
from edgetune.serve.workload import WORKLOAD_NAME
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.models.model import TunedModel
from edgetune.tune.training.progress import Silent

HEADER = ["bundle", "inputs", "bench p50 ms", "measure p50 ms", "ratio", "seconds of measure", "quiet"]


@click.command()
@click.option("--bundle", "bundles", type=click.Path(path_type=Path, exists=True), multiple=True, required=True)
@click.option("--rounds", default=3, show_default=True)
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the table; stdout when not said.")
def main(bundles: tuple[Path, ...], rounds: int, markdown: Path | None) -> None:
    """Write a row for each bundle."""
    machine = describe_machine(usable_cores())
    rows = [_row(Bundle.open(folder), rounds) for folder in bundles]
    lines = [f"{machine.cpu}, {machine.cores} cores, medians of {rounds} rounds.", "", *table(HEADER, rows), ""]
    text = "\n".join(lines)
    if markdown:
        markdown.write_text(text, encoding="utf-8")
    else:
        click.echo(text)


def _row(bundle: Bundle, rounds: int) -> list[str]:
    work = bundle.folder.with_name(f"{bundle.folder.name}.work")
    tuned, dataset = TunedModel.open(work / "tune"), Dataset.open(work / "data")
    texts = list(dataset.test.texts)
    np.random.default_rng(0).shuffle(texts)
    base = Side("base", tuned.base_folder, usable_cores(), tuned=tuned.folder)
    runners = Race(base, Side("bundle", bundle.folder), tuned.max_tokens)
    raced, measured, seconds, quiet = [], [], [], []
    for _ in range(rounds):
        timing = race(runners, texts[:512], BenchmarkRecipe(grid=False, cold_starts=1), Silent())
        measurement = measure(bundle, MeasureOptions(), Silent())
        assert measurement.latency_ms is not None
        raced.append(timing.latency_ms.bundle.p50 or float("nan"))
        measured.append(measurement.latency_ms.p50 or float("nan"))
        seconds.append(measurement.seconds)
        quiet.append(timing.verdict.valid and measurement.timing_valid)
    theirs, ours = float(np.median(raced)), float(np.median(measured))
    carried = "workload" if WORKLOAD_NAME in bundle.manifest.files else "golden"
    name = f"{bundle.manifest.name}, {Predictor(bundle).variant}"
    held = f"{sum(quiet)} of {rounds}"
    return [name, carried, f"{theirs:.4g}", f"{ours:.4g}", f"{ours / theirs:.3f}", f"{max(seconds):.0f}", held]


if __name__ == "__main__":
    main()
