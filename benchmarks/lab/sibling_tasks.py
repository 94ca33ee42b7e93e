"""Builds several labels, numbers and pairs from the command line, on data sets that are made of public ones.

Run as `python -m benchmarks.lab.sibling_tasks --data DIR`; docs/measurements/sibling-tasks.md comes from here. DIR
holds the public data sets; none is shipped with the project. None of them is of these tasks, so each is made of one
that is not, by rules that stand in `SETS`: what is measured is real text, with targets that follow from real labels.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.lab.real_data import table

BASE = "all-MiniLM-L6-v2"
Row = dict[str, Any]


def entity_kinds(data: Path) -> Iterator[Row]:
    """WNUT 17's sentences, each with the kinds of entities that stand in it."""
    for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated"):
        lines = (data / "ner_en/wnut17" / name).read_text(encoding="utf-8").splitlines()
        tokens = [(word.strip(), tag.strip()) for word, _, tag in (line.partition("\t") for line in lines)]
        for blank, sentence in itertools.groupby(tokens, key=lambda token: not token[0]):
            if not blank:
                words, tags = zip(*sentence, strict=True)
                kinds = {kind for tag in tags for kind in re.findall(r"[BI]-([\w-]+)", tag)}
                yield {"text": " ".join(words), "labels": sorted(kinds)}


def solution_steps(data: Path) -> Iterator[Row]:
    """GSM8K's problems, each with the number of sums in its solution."""
    for line in (data / "instruct/gsm8k/test.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        yield {"text": row["question"], "target": row["answer"].count("<<")}


def _banking(data: Path) -> list[tuple[str, str]]:
    with (data / "text_en/banking77/train.csv").open(encoding="utf-8", newline="") as lines:
        return [(row["text"], row["category"]) for row in csv.DictReader(lines)]


def same_intent(data: Path, pairs: int = 6_000) -> Iterator[Row]:
    """Pairs of banking77's questions, half with the same intent, half drawn from two that differ."""
    rows, draw = _banking(data), np.random.default_rng(0)
    by_intent: dict[str, list[str]] = {}
    for text, intent in rows:
        by_intent.setdefault(intent, []).append(text)
    intents = sorted(by_intent)
    for place in range(pairs):
        first, second = draw.choice(len(intents), 2, replace=False)
        same = place % 2 == 0
        left = by_intent[intents[first]]
        right = left if same else by_intent[intents[second]]
        one, other = draw.integers(len(left)), draw.integers(len(right))
        if left[one] != right[other]:
            yield {"text": left[one], "text_pair": right[other], "label": "same" if same else "different"}


def shared_tokens(data: Path, pairs: int = 4_000) -> Iterator[Row]:
    """Pairs of banking77's questions with the same intent, and the Jaccard similarity of their words."""
    for row in same_intent(data, 2 * pairs):
        if row["label"] == "same":
            one, other = (set(row[key].lower().split()) for key in ("text", "text_pair"))
            yield {"text": row["text"], "text_pair": row["text_pair"], "score": len(one & other) / len(one | other)}


@dataclass(frozen=True)
class Made:
    """A data set that is made: of what, in words, the task that it is of, and how."""

    source: str
    task: str
    rows: Callable[[Path], Iterator[Row]]


SETS = {
    "entity-kinds": Made(
        "WNUT 17, which kinds of entities a sentence holds", "multi-label-classification", entity_kinds
    ),
    "solution-steps": Made("GSM8K, how many sums a problem's solution takes", "text-regression", solution_steps),
    "same-intent": Made(
        "banking77, whether two questions have the same intent", "text-pair-classification", same_intent
    ),
    "shared-words": Made(
        "banking77, the Jaccard similarity of two questions' words", "text-pair-regression", shared_tokens
    ),
}


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the data sets.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bundles"), help="Where bundles are built.")
@click.option("--only", multiple=True, type=click.Choice(list(SETS)), help="Data sets to build; all when not said.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the table; stdout when not said.")
def main(data: Path, out: Path, only: tuple[str, ...], markdown: Path | None) -> None:
    """Make each data set, build it anew by the defaults and print its figures."""
    reports = {name: _build(name, data, out) for name in only or SETS}
    page = "\n".join([HEAD, *_summary(reports), "", *(_section(name, report) for name, report in reports.items())])
    if markdown:
        markdown.write_text(page, encoding="utf-8")
    else:
        click.echo(page)


HEAD = """# Figures on several labels, numbers and pairs

Written by `python -m benchmarks.lab.sibling_tasks --data DIR`, by the defaults; base all-MiniLM-L6-v2. The data sets
are made of public ones of other tasks, by rules in that file: real texts, with targets that follow from real labels.
"""


def _build(name: str, data: Path, out: Path) -> Row:
    """Make a data set, build it as a user would, and return its report."""
    out.mkdir(parents=True, exist_ok=True)
    source = out / f"{name}.jsonl"
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in SETS[name].rows(data))
    source.write_text("".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "edgetune", "build", "--base", BASE, "--data", str(source)]
    command += ["--task", SETS[name].task, "--out", str(out / name), "--fresh"]
    subprocess.run(command, check=True)
    report: Row = json.loads((out / name / "report.json").read_text(encoding="utf-8"))
    return report


def _summary(reports: dict[str, Row]) -> list[str]:
    head = ["data", "task", "metric", "base with its head solved", "tuned", "bundle", "p50 ms", "MB", "build min"]
    return table(head, [_line(name, report) for name, report in reports.items()])


def _line(name: str, report: Row) -> list[str]:
    values = {stage["stage"]: stage["value"] for stage in report["quality"]["stages"]}
    latency, sizes = report["latency_ms"], report["size_bytes"]
    return [
        SETS[name].source,
        report["task"],
        report["quality"]["metric"],
        f"{values['base']:.4f}",
        f"{values['tuned']:.4f} ({report['training']['handed_on']})",
        f"{report['proof']['value']:.4f} ({report['chosen']}, {report['proof']['gate']})",
        f"{latency['base']['p50']:.1f} to {latency['bundle']['p50']:.1f}",
        f"{sizes['base'] / 1e6:.0f} to {sizes['bundle'] / 1e6:.0f}",
        f"{sum(report['build_seconds'].values()) / 60:.1f}",
    ]


def _section(name: str, report: Row) -> str:
    quality = report["quality"]
    names = list(quality["stages"][0].get("metrics", {}))
    rows = [[stage["stage"], *(f"{stage['metrics'][key]:.4f}" for key in names)] for stage in quality["stages"]]
    parts = ", ".join(f"{count:,} {part}" for part, count in report["data"]["rows"].items())
    lines = [f"## {name}", "", f"{parts}.", "", f"> {report['verdict']}", "", *table(["stage", *names], rows), ""]
    return "\n".join([*lines, report["timing_remark"], ""] if report.get("timing_remark") else lines)


if __name__ == "__main__":
    main()
