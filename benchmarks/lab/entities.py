"""Builds entities from the command line, as a user would, and writes rows of docs/tasks.md as Markdown.

Run as `python -m benchmarks.lab.entities --data DIR --chinese BASE`; docs/measurements/tasks.md comes from here. DIR
holds the public data sets; BASE is an encoder that knows Chinese. None is shipped with the project.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

from benchmarks.lab.real_data import table

# name: whether it is Chinese, and the files of its parts, relative to the data folder
SETS: dict[str, tuple[bool, dict[str, str]]] = {
    "wnut17": (
        False,
        {
            "train": "ner_en/wnut17/wnut17train.conll",
            "validation": "ner_en/wnut17/emerging.dev.conll",
            "test": "ner_en/wnut17/emerging.test.annotated",
        },
    ),
    "resume": (
        True,
        {
            "train": "ner_zh/resume/train.char.bmes",
            "validation": "ner_zh/resume/dev.char.bmes",
            "test": "ner_zh/resume/test.char.bmes",
        },
    ),
}
ENGLISH = "all-MiniLM-L6-v2"
Row = dict[str, Any]


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the data sets.")
@click.option("--chinese", help="Base of the Chinese sets; they are left out without one.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bundles"), help="Where bundles are built.")
@click.option("--set", "settings", multiple=True, help="Recipe settings of all builds, as edgetune build takes them.")
@click.option("--build/--no-build", default=True, help="Build anew, or tell the bundles that are in --out already.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the tables; stdout when not said.")
def main(
    data: Path, chinese: str | None, out: Path, settings: tuple[str, ...], build: bool, markdown: Path | None
) -> None:
    """Build each data set anew by the defaults and print its figures."""
    names = [name for name, (is_chinese, _) in SETS.items() if chinese or not is_chinese]
    for name in names if build else ():
        base = chinese if SETS[name][0] and chinese else ENGLISH
        parts = [f"--set=data.{part}={data / path}" for part, path in SETS[name][1].items()]
        command = [sys.executable, "-m", "edgetune", "build", "--base", base, *parts]
        command += [*(f"--set={setting}" for setting in settings), "--out", str(out / name), "--fresh"]
        subprocess.run(command, check=True)
    reports = {name: json.loads((out / name / "report.json").read_text(encoding="utf-8")) for name in names}
    head = ["data", "base, probed", "tuned", "bundle", "p50", "MB", "build min"]
    lines = [HEAD, *table(head, [_line(name, report) for name, report in reports.items()]), ""]
    page = "\n".join([*lines, *(_section(name, report) for name, report in reports.items())])
    if markdown:
        markdown.write_text(page, encoding="utf-8")
    else:
        click.echo(page)


HEAD = """# Figures on entities

Written by `python -m benchmarks.lab.entities --data DIR --chinese BASE`, by the defaults. F1 of exact spans on the test
part, with 95% intervals over its texts (bootstrap).
"""


def _line(name: str, report: Row) -> list[str]:
    latency, sizes = report["latency_ms"], report["size_bytes"]
    speedup = latency["speedup"]["p50"]
    faster = f"{speedup:.1f} times faster" if report["timing_valid"] and speedup else "not judged: the machine was busy"
    return [
        f"{name}, {report['data']['rows']['train']:,} texts, base {Path(report['base']).name}",
        _value(report, "base"),
        f"{_value(report, 'tuned')} ({report['training']['handed_on']}, {report['training']['epochs']:g} epochs)",
        f"{_value(report, report['chosen'])} ({report['chosen']}, {report['proof']['gate']})",
        faster,
        f"{sizes['base'] / 1e6:.0f} to {sizes['bundle'] / 1e6:.0f}",
        f"{sum(report['build_seconds'].values()) / 60:.1f}",
    ]


def _value(report: Row, name: str) -> str:
    (stage,) = (stage for stage in report["quality"]["stages"] if stage["stage"] == name)
    low, high = stage["ci95"]
    return f"{stage['value']:.3f} ({low:.3f} to {high:.3f})"


def _section(name: str, report: Row) -> str:
    quality = report["quality"]
    figures = list(quality["stages"][0]["metrics"])
    stages = [[stage["stage"], *(f"{stage['metrics'][key]:.4f}" for key in figures)] for stage in quality["stages"]]
    columns = ["label", "rows", "precision", "recall", "f1"]
    kinds = [
        [f"{kind[key]:.3f}" if isinstance(kind[key], float) else str(kind[key]) for key in columns]
        for kind in quality["classes"]
    ]
    tried = [
        [
            one["scheme"],
            f"{one['value']:.4f}",
            f"{100 * one['drop']:+.2f}",
            one["gate"],
            f"{one['size_bytes'] / 1e6:.1f}",
        ]
        for one in report["candidates"]
    ]
    return "\n".join(
        [
            f"## {name}",
            "",
            f"> {report['verdict']}",
            "",
            *table(["stage", *figures], stages),
            "",
            *table(["type", "entities", "precision", "recall", "F1"], kinds),
            "",
            "On the validation part, which chooses:",
            "",
            *table(["scheme", "F1", "points lost", "gate", "MB"], tried),
            "",
        ]
    )


if __name__ == "__main__":
    main()
