"""Every tuning method on real data: what it reaches, what it trains, what it takes, and what its bundle is.

Run as `python -m benchmarks.lab.methods --data DIR --markdown docs/methods.md`; each row is a build in a process of its
own, with the recipe's defaults for its method. A method that does worse than the probe hands the probe on, and its row
says so; the validation columns are of the method and of the probe alone.
"""

from __future__ import annotations

import csv
import json
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.lab.training import machine_line
from edgetune.tune.methods import METHODS

MINILM, E5, SMOLLM = "sentence-transformers/all-MiniLM-L6-v2", "e5", "smollm2"
MARKERS = ("<!-- methods-measured -->", "<!-- /methods-measured -->")
FEW = 5  # rows a class of the sets that end so
_ADAPTERS = ("lora", "rslora", "dora", "pissa", "loraplus", "adalora", "vera", "ia3")
DECODER_METHODS = (*_ADAPTERS, "prompt", "p-tuning", "prefix", "freeze", "full")


@dataclass(frozen=True)
class DataSet:
    """Where a data set lies in the data folder, and the base that is tuned on it: a name, or an option's."""

    paths: dict[str, str]
    base: str = MINILM
    settings: tuple[str, ...] = ()
    methods: tuple[str, ...] = tuple(METHODS)


BANKING = {"data.train": "text_en/banking77/train.csv", "data.test": "text_en/banking77/test.csv"}
SETS = {
    "banking77": DataSet(BANKING),
    f"banking77-{FEW}-a-class": DataSet(BANKING),
    "sst2": DataSet(
        {
            "data.train": "text_en/sst2/train.tsv",
            "data.validation": "text_en/sst2/dev.tsv",
            "data.test": "text_en/sst2/test.tsv",
        }
    ),
    "waimai_10k": DataSet({"data.path": "text_zh/waimai_10k/waimai_10k.csv"}, base=E5),
    "banking77-chat": DataSet(
        BANKING, base=SMOLLM, settings=("task=text-generation", "tune.epochs=1"), methods=DECODER_METHODS
    ),
}


@dataclass(frozen=True)
class Row:
    """One method on one data set, as its build's report tells it; scores 0 to 1, None where there is none."""

    data: str
    method: str
    handed_on: str
    validation: float | None
    probe: float | None
    test: float
    interval: tuple[float, float]
    trained: int
    seconds: float
    peak_bytes: int | None
    bundle_bytes: int | None
    p50_ms: float | None


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, envvar="EDGETUNE_DATA")
@click.option("--sets", "names", multiple=True, type=click.Choice(list(SETS)), help="Data sets; repeat [default: all].")
@click.option("--methods", multiple=True, type=click.Choice(sorted({*METHODS, *DECODER_METHODS})), help="Repeat.")
@click.option("--e5", help="Folder of multilingual-e5-small; without it, sets on it are left out.")
@click.option("--smollm2", help="Folder of SmolLM2-135M-Instruct; without it, sets on it are left out.")
@click.option("--most-rows", type=int, help="Training rows at most, drawn by a seed, for a quick look.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any recipe key; repeat.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Page for the table; stdout without it.")
def main(
    data: Path,
    names: tuple[str, ...],
    methods: tuple[str, ...],
    e5: str | None,
    smollm2: str | None,
    most_rows: int | None,
    settings: tuple[str, ...],
    markdown: Path | None,
) -> None:
    """Build each data set by each method and print the table."""
    bases = {MINILM: MINILM, E5: e5, SMOLLM: smollm2}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names or SETS:
            chosen = SETS[name]
            base = bases[chosen.base]
            if base is None:
                click.echo(f"{name} is left out: its base is not given", err=True)
                continue
            paths = {key: data / path for key, path in chosen.paths.items()}
            if name.endswith("-a-class") or most_rows:
                most = FEW if name.endswith("-a-class") else None
                paths["data.train"] = cut_rows(paths["data.train"], Path(folder), a_class=most, most=most_rows)
            given = [f"{key}={path}" for key, path in paths.items()] + [*chosen.settings, *settings]
            for method in methods or chosen.methods:
                if method in chosen.methods:
                    rows.append(build_row(name, method, base, given, Path(folder)))
                    click.echo(table(rows)[-1], err=True)
    put_between(MARKERS, table(rows), markdown)


def put_between(markers: tuple[str, str], lines: list[str], page: Path | None) -> None:
    """Put a table and the machine that gave it between two lines of a page, or print it where no page is named."""
    text = "\n".join([markers[0], *lines, "", machine_line(), markers[1], ""])
    if page is None:
        click.echo(text)
        return
    before, _, rest = page.read_text(encoding="utf-8").partition(markers[0])
    page.write_text(before + text + rest.partition(f"{markers[1]}\n")[2], encoding="utf-8")


def cut_rows(path: Path, folder: Path, *, a_class: int | None, most: int | None) -> Path:
    """A file of some rows of a CSV file, drawn by a seed: at most so many a class, and so many in all."""
    with path.open(encoding="utf-8", newline="") as stream:
        head, *rows = csv.reader(stream)
    random.Random(0).shuffle(rows)
    if a_class:
        seen: dict[str, int] = defaultdict(int)
        picked = []
        for row in rows:
            seen[row[-1]] += 1
            if seen[row[-1]] <= a_class:
                picked.append(row)
        rows = picked
    target = folder / f"{path.stem}-{a_class}-{most}.csv"
    with target.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([head, *rows[:most]])
    return target


def build_row(name: str, method: str, base: str, settings: list[str], folder: Path) -> Row:
    """A whole build by one method, and what its report says."""
    out = folder / f"{name}-{method}"
    command = [sys.executable, "-m", "edgetune", "build", "--base", base, "--method", method, "--out", str(out)]
    command += [f"--set={setting}" for setting in (*settings, "gate.when_inconclusive=accept")]
    code = subprocess.run([*command, "--fresh"], check=False, stdout=sys.stderr).returncode
    work = out.with_name(f"{out.name}.work")
    report = out / "report.json"
    if code == 3:  # a gate was not met; its report says which
        report = next(work.rglob("report.json"))
    elif code:
        raise click.ClickException(f"{' '.join(command)} ended with {code}")
    return row_of(name, method, json.loads(report.read_text(encoding="utf-8")), work)


def row_of(name: str, method: str, report: dict[str, Any], work: Path) -> Row:
    """The row of a finished build."""
    stage = json.loads((work / "stages.json").read_text(encoding="utf-8"))["tune"]
    training, last = report["training"], report["quality"]["stages"][-1]
    values = [point["validation_value"] for point in training["curve"]]
    latency = report.get("latency_ms") or {}
    return Row(
        data=name,
        method=method,
        handed_on=training.get("handed_on", method),
        validation=max(values, default=None),
        probe=training.get("probe_value"),
        test=last["value"],
        interval=(last["ci95"][0], last["ci95"][1]),
        trained=training["settings"].get("trained_parameters", 0),
        seconds=stage["seconds"],
        peak_bytes=stage["peak_bytes"],
        bundle_bytes=report["size_bytes"]["bundle"],
        p50_ms=(latency.get("bundle") or {}).get("p50"),
    )


def table(rows: list[Row]) -> list[str]:
    """The rows as a Markdown table."""
    head = ["data", "method", "validation", "probe", "handed on", "bundle on test, 95%", "trained", "tune s"]
    head += ["peak MB", "bundle MB", "p50 ms"]
    lines = [
        [
            row.data,
            f"`{row.method}`",
            _percent(row.validation),
            _percent(row.probe),
            row.handed_on,
            f"{100 * row.test:.1f} ({100 * row.interval[0]:.1f} to {100 * row.interval[1]:.1f})",
            f"{row.trained:,}",
            f"{row.seconds:,.0f}",
            _number(row.peak_bytes, 1e6, 0),
            _number(row.bundle_bytes, 1e6, 1),
            _number(row.p50_ms, 1, 2),
        ]
        for row in rows
    ]
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _number(value: float | None, unit: float, digits: int) -> str:
    return "" if value is None else f"{value / unit:,.{digits}f}"


if __name__ == "__main__":
    main()
