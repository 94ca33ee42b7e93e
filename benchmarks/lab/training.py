"""Seconds, memory and accuracy of each tuning method on real data, beside the script that a user writes first.

Run as `python -m benchmarks.lab.training --data DIR`; each row of the table is a process of its own. The data
sets are those of `benchmarks.lab.real_data`, the naive script is `benchmarks/peers/naive.py` of the sources.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.lab.real_data import BASE, SETS
from edgetune.benchmarks.timing.machine import describe_machine
from edgetune.serve.cores import usable_cores
from edgetune.tune.models.encoder import Encoder

METHODS = ("probe", "lora", "freeze", "full", "auto")
NAIVE_SETS = ("banking77", "sst2")
MARKERS = ("<!-- training -->", "<!-- /training -->")
HEADING = "## Training\n\nWritten by `python -m benchmarks.lab.training` (`make training`)."


@dataclass(frozen=True)
class Trial:
    """One method on one data set. Seconds and peak are the tuning's alone; accuracies 0 to 1, None if not taken."""

    name: str
    method: str
    seconds: float
    peak_bytes: int | None
    validation: float | None
    test: float
    handed_on: str


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    envvar="EDGETUNE_DATA",
    help="Folder of the data sets.",
)
@click.option("--sets", "names", multiple=True, type=click.Choice(list(SETS)), help="Data sets; repeat.")
@click.option("--methods", multiple=True, type=click.Choice(METHODS), help="Methods; repeat; all when not said.")
@click.option(
    "--naive",
    type=click.Path(path_type=Path),
    default=Path("benchmarks/peers/naive.py"),
    show_default=True,
    help="The naive script; its row is left out where there is no such file.",
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any recipe key; repeat.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the table; stdout when not said.")
def main(
    data: Path,
    names: tuple[str, ...],
    methods: tuple[str, ...],
    naive: Path,
    settings: tuple[str, ...],
    markdown: Path | None,
) -> None:
    """Tune each data set by each method and print the table."""
    trials = []
    for name in names or NAIVE_SETS:
        with tempfile.TemporaryDirectory() as folder:
            if naive.is_file() and name in NAIVE_SETS:
                trials.append(run_naive(name, data, naive, Path(folder)))
            trials += [run_method(name, method, data, Path(folder), settings) for method in methods or METHODS]
    text = "\n".join([MARKERS[0], HEADING, "", *table(trials), "", machine_line(), MARKERS[1], ""])
    if markdown:
        place(markdown, text)
    else:
        click.echo(text)


def run_method(name: str, method: str, data: Path, folder: Path, settings: tuple[str, ...] = ()) -> Trial:
    """`edgetune tune` in a process of its own; the tuned model is then judged on the test part, here."""
    said = [f"--set={key}={data / path}" for key, path in SETS[name].items()] + [f"--set={one}" for one in settings]
    out = folder / f"{name}-{method}"
    command = [sys.executable, "-m", "edgetune", "tune", "--base", BASE, "--method", method, *said]
    subprocess.run([*command, "--out", str(out), "--fresh"], check=True, stdout=sys.stderr)
    work = out.with_name(f"{out.name}.work")
    stage = json.loads((work / "stages.json").read_text(encoding="utf-8"))["tune"]
    training = json.loads((work / "tune" / "tuned.json").read_text(encoding="utf-8"))["training"]
    return Trial(
        name=name,
        method=method,
        seconds=stage["seconds"],
        peak_bytes=stage["peak_bytes"],
        validation=training["best_value"],
        test=test_accuracy(work),
        handed_on=training["handed_on"],
    )


def test_accuracy(work: Path) -> float:
    """Share of the test part that the tuned model of a work folder answers right, in fp32."""
    from edgetune.tune.data.dataset import Dataset
    from edgetune.tune.models.forward import model_logits
    from edgetune.tune.models.model import TunedModel, open_model

    tuned, test = TunedModel.open(work / "tune"), Dataset.open(work / "data").test
    logits = model_logits(open_model(tuned.model_folder), Encoder.of(tuned), test.texts)
    return float((logits.argmax(axis=1) == np.asarray(test.targets)).mean())


def run_naive(name: str, data: Path, script: Path, folder: Path) -> Trial:
    """The naive script in a process of its own."""
    out = folder / f"{name}-naive.json"
    command = [sys.executable, str(script), "--data", str(data), "--set", name, "--out", str(out)]
    subprocess.run(command, check=True, stdout=sys.stderr)
    found = json.loads(out.read_text(encoding="utf-8"))
    return Trial(name, "naive script", found["seconds"], found["peak_bytes"], None, found["accuracy"], "lora")


def table(trials: list[Trial]) -> list[str]:
    """The trials as a Markdown table."""
    head = ["data", "method", "seconds", "peak MB", "validation, %", "test, %", "handed on"]
    rows = [
        [
            trial.name,
            trial.method,
            f"{trial.seconds:,.0f}",
            "not measured" if trial.peak_bytes is None else f"{trial.peak_bytes / 1e6:,.0f}",
            "" if trial.validation is None else f"{100 * trial.validation:.2f}",
            f"{100 * trial.test:.2f}",
            trial.handed_on,
        ]
        for trial in trials
    ]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def machine_line() -> str:
    """Where the figures were taken, in a sentence."""
    machine = describe_machine(usable_cores())
    versions = ", ".join(f"{name} {machine.versions[name]}" for name in ("torch", "transformers", "peft"))
    return (
        f"{machine.cpu}, {machine.threads} threads, {', '.join(machine.isa)}; {versions}. One run each, seed 0; "
        "seconds and peak are the tuning's alone. The naive script has no validation part: it trains on those rows too."
    )


def place(path: Path, text: str) -> None:
    """Put the table between its markers in a file, or at the end of one that has none."""
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    start, end = _span(page)
    path.write_text(page[:start] + text + page[end:], encoding="utf-8")


def placed(path: Path) -> str:
    """The table with its markers, as it stands in a file; empty where there is none."""
    page = path.read_text(encoding="utf-8") if path.is_file() else ""
    return page[slice(*_span(page))]


def _span(page: str) -> tuple[int, int]:
    found = re.search(f"{re.escape(MARKERS[0])}.*?{re.escape(MARKERS[1])}\n?", page, flags=re.DOTALL)
    return found.span() if found else (len(page), len(page))


if __name__ == "__main__":
    main()
