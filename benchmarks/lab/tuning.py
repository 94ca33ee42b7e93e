"""What the default tuning gains on the test part over the probe and over LoRA, and what it takes.

Run as `python -m benchmarks.lab.tuning --data DIR --chinese-base FOLDER`; each tuning is a process of its own. The
data sets are those of `benchmarks.lab.real_data`, Chinese ones on a base for Chinese, and banking77 with few rows
a class. LoRA with a patience of one pass is what `auto` trained before it trained all layers.
"""

from __future__ import annotations

import csv
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from benchmarks.lab.real_data import BASE, SETS
from benchmarks.lab.training import machine_line
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.data.rows import Input
from edgetune.tune.metrics import ACCURACY
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.training.gain import Gain, paired_gain

CSL = {
    "data.train": "text_zh/csl_category/train.tsv",
    "data.validation": "text_zh/csl_category/dev.tsv",
    "data.test": "text_zh/csl_category/test.tsv",
}
FEW = {f"banking77, {rows} rows a class": rows for rows in (5, 10, 50)}
KEYS = {**SETS, "csl_category": CSL, **dict.fromkeys(FEW, SETS["banking77"])}
CHINESE = {"waimai_10k", "csl_category"}
METHODS = {"lora": ["--method=lora", "--set=tune.patience=1"], "auto": ["--method=auto"]}


@dataclass(frozen=True)
class Tuning:
    """One tuning.

    Attributes:
        processor_seconds: of all its threads.
        validation, probe_validation: accuracies on the validation part, 0 to 1, of what is handed on and the probe.
        test: the accuracy on the test part, 0 to 1.
        gain: over the probe, on the test part.
    """

    name: str
    method: str
    handed_on: str
    epochs: float
    seconds: float
    processor_seconds: float
    validation: float
    probe_validation: float
    test: float
    gain: Gain


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the data sets.")
@click.option("--chinese-base", help="Base for Chinese data sets, which are left out without one.")
@click.option("--sets", "names", multiple=True, type=click.Choice(list(KEYS)), help="Data sets; repeat [default: all].")
@click.option("--methods", multiple=True, type=click.Choice(list(METHODS)), help="Methods; repeat [default: all].")
@click.option("--seeds", default=1, show_default=True, help="Seeds of each, which draw the few rows too.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the table [default: stdout].")
def main(
    data: Path,
    chinese_base: str | None,
    names: tuple[str, ...],
    methods: tuple[str, ...],
    seeds: int,
    markdown: Path | None,
) -> None:
    """Tune each data set by each method and print the table."""
    tunings = []
    for name in names or KEYS:
        base = chinese_base if name in CHINESE else BASE
        for method in methods or METHODS:
            for seed in range(seeds if base else 0):
                with tempfile.TemporaryDirectory() as folder:
                    tunings.append(run_tuning(name, method, str(base), data, seed, Path(folder)))
    text = "\n".join(["# Tuning", "", *table(tunings), "", machine_line(), ""])
    if markdown:
        markdown.write_text(text, encoding="utf-8")
    else:
        click.echo(text)


def run_tuning(name: str, method: str, base: str, data: Path, seed: int, folder: Path) -> Tuning:
    """`edgetune tune` in a process of its own; tuned model and probe are then judged on the test part, here."""
    paths = {key: data / path for key, path in KEYS[name].items()}
    if name in FEW:
        paths["data.train"] = draw_rows(paths["data.train"], FEW[name], seed, folder / "train.csv")
    arguments = [*METHODS[method], *(f"--set={key}={path}" for key, path in paths.items()), f"--seed={seed}"]
    command = [sys.executable, "-m", "edgetune", "tune", "--base", base, *arguments, "--out", str(folder / "out")]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=sys.stderr)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    work = folder / "out.work"
    tuned, test = TunedModel.open(work / "tune"), Dataset.open(work / "data").test
    training, expected = tuned.training, np.asarray(test.targets)
    base_answers, answers = (answers_of(tuned, path, test.texts) for path in (tuned.base_folder, tuned.model_folder))
    return Tuning(
        name=name,
        method=method,
        handed_on=training.handed_on,
        epochs=training.epochs,
        seconds=json.loads((work / "stages.json").read_text(encoding="utf-8"))["tune"]["seconds"],
        processor_seconds=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
        validation=training.best_value,
        probe_validation=training.probe_value,
        test=ACCURACY.of(expected, answers),
        gain=paired_gain(ACCURACY, expected, base_answers, answers),
    )


def answers_of(tuned: TunedModel, folder: Path, texts: Sequence[Input]) -> NDArray[np.int64]:
    """The classes (texts,) that a model of a tuning's folder answers, in fp32."""
    return np.asarray(model_logits(open_model(folder), Encoder.of(tuned), texts).argmax(axis=1))


def draw_rows(source: Path, rows: int, seed: int, target: Path) -> Path:
    """Write so many rows of each category of a CSV file, drawn by the seed; returns where."""
    with source.open(newline="", encoding="utf-8") as stream:
        table = list(csv.DictReader(stream))
    drawn: dict[str, list[dict[str, str]]] = {}
    for place in np.random.default_rng(seed).permutation(len(table)):
        of_class = drawn.setdefault(table[place]["category"], [])
        if len(of_class) < rows:
            of_class.append(table[place])
    with target.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(table[0]))
        writer.writeheader()
        writer.writerows(row for category in sorted(drawn) for row in drawn[category])
    return target


def table(tunings: list[Tuning]) -> list[str]:
    """The tunings as a Markdown table."""
    head = ["data", "method", "handed on", "epochs", "seconds", "processor seconds"]
    head += ["validation of probe and tuned, %", "test of probe and tuned, %", "gain on test, points"]
    rows = [
        [
            tuning.name,
            tuning.method,
            tuning.handed_on,
            f"{tuning.epochs:g}",
            f"{tuning.seconds:,.0f}",
            f"{tuning.processor_seconds:,.0f}",
            f"{100 * tuning.probe_validation:.2f}, {100 * tuning.validation:.2f}",
            f"{100 * (tuning.test - tuning.gain.value):.2f}, {100 * tuning.test:.2f}",
            f"{100 * tuning.gain.value:+.2f} ± {100 * tuning.gain.error:.2f}",
        ]
        for tuning in tunings
    ]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    main()
