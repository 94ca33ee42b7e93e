"""Builds embeddings from the command line, on real texts, and writes a row a data set for docs/tasks.md.

Run as `python -m benchmarks.lab.embeddings --data DIR --chinese FOLDER --markdown FILE`. DIR holds the public data sets
and FOLDER a multilingual sentence encoder that was trained with "query: " and "passage: "; none is shipped.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.lab.real_data import table

BASE = "all-MiniLM-L6-v2"
Row = dict[str, Any]
BANKING, TITLES = "banking77, questions of one intent", "CSL, Chinese abstracts and their titles"


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the data sets.")
@click.option("--chinese", type=click.Path(path_type=Path, exists=True), help="Base of the Chinese set; without, none.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bundles"), help="Where bundles are built.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the table; stdout when not said.")
def main(data: Path, chinese: Path | None, out: Path, markdown: Path | None) -> None:
    """Build each data set by the defaults and print its figures."""
    out.mkdir(parents=True, exist_ok=True)
    folder = data / "text_en/banking77"
    reports = {BANKING: _build(BASE, out / "intents", [f"train={folder}/train.csv", f"test={folder}/test.csv"])}
    if chinese is not None:
        parts = {name: out / f"titles-{name}.jsonl" for name in ("dev", "test")}
        for name, path in parts.items():
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in titles(data, name))
            path.write_text("".join(lines), encoding="utf-8")
        prompts = json.dumps({"query": "query: ", "document": "passage: "})
        settings = [f"train={parts['dev']}", f"test={parts['test']}", f"prompts={prompts}"]
        reports[TITLES] = _build(str(chinese), out / "titles", settings)
    page = "\n".join([*table(HEAD, [_line(name, report) for name, report in reports.items()]), ""])
    if markdown:
        markdown.write_text(page, encoding="utf-8")
    else:
        click.echo(page)


HEAD = ["data", "metric", "TF-IDF", "base", "tuned", "bundle", "recall@1, 10 of base and bundle", "p50 ms", "MB", "min"]


def titles(data: Path, part: str) -> Iterator[Row]:
    """The abstracts of papers, each with its title."""
    for line in (data / f"seq2seq/csl_title_zh/{part}.tsv").read_text(encoding="utf-8").splitlines():
        _, abstract, title = line.split("\t")
        yield {"anchor": title, "positive": abstract}


def _build(base: str, out: Path, settings: list[str]) -> Row:
    """Build a data set as a user would, and return its report."""
    command = [sys.executable, "-m", "edgetune", "build", "--base", base, "--task", "feature-extraction"]
    command += [f"--set=data.{setting}" for setting in settings]
    subprocess.run([*command, "--out", str(out), "--fresh"], check=True)
    report: Row = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return report


def _line(name: str, report: Row) -> list[str]:
    stages = {stage["stage"]: stage for stage in report["quality"]["stages"]}
    base, bundle = stages["base"], stages[report["chosen"]]
    floor = {entry["stage"]: entry for entry in report["quality"]["floor"]}
    recalls = [f"{stage['metrics'][f'recall_at_{most}']:.3f}" for stage in (base, bundle) for most in (1, 10)]
    latency, sizes = report["latency_ms"], report["size_bytes"]
    return [
        name,
        report["quality"]["metric"],
        f"{floor['linear']['value']:.3f}" if "linear" in floor else "",
        _interval(base),
        f"{_interval(stages['tuned'])} ({report['training']['handed_on']})",
        f"{_interval(bundle)} ({report['chosen']}, {report['proof']['gate']})",
        "{}, {} to {}, {}".format(*recalls),
        f"{latency['base']['p50']:.1f} to {latency['bundle']['p50']:.1f}",
        f"{sizes['base'] / 1e6:.0f} to {sizes['bundle'] / 1e6:.0f}",
        f"{sum(report['build_seconds'].values()) / 60:.1f}",
    ]


def _interval(stage: Row) -> str:
    low, high = stage["ci95"]
    return f"{stage['value']:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    main()
