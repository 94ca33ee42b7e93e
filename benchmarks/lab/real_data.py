"""Builds real data sets from the command line, as a user would, and writes the figures as Markdown.

Run as `python -m benchmarks.lab.real_data --data DIR`; docs/measurements/real-data.md comes from here. DIR holds the
public data sets in the layout of `SETS`; none is shipped with the project.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import click

# name: recipe keys, with paths relative to the data folder
SETS: dict[str, dict[str, str]] = {
    "banking77": {"data.train": "text_en/banking77/train.csv", "data.test": "text_en/banking77/test.csv"},
    "sst2": {
        "data.train": "text_en/sst2/train.tsv",
        "data.validation": "text_en/sst2/dev.tsv",
        "data.test": "text_en/sst2/test.tsv",
    },
    "waimai_10k": {"data.path": "text_zh/waimai_10k/waimai_10k.csv"},
}
BASE = "all-MiniLM-L6-v2"
NOT_JUDGED = "not judged: the machine was busy"
TIMES = ("p50 ms", "p90 ms", "p99 ms", "texts a second", "cold start ms")


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of the data sets.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bundles"), help="Where bundles are built.")
@click.option("--only", multiple=True, type=click.Choice(list(SETS)), help="Data sets to build; all when not said.")
@click.option("--method", default="auto", help="Tuning method.")
@click.option("--build/--no-build", default=True, help="Build anew, or tell the bundles that are in --out already.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the tables; stdout when not said.")
def main(data: Path, out: Path, only: tuple[str, ...], method: str, build: bool, markdown: Path | None) -> None:
    """Build each data set anew and print its figures."""
    reports = {}
    for name in only or SETS:
        if build:
            build_bundle(name, data, out, method)
        reports[name] = json.loads((out / name / "report.json").read_text(encoding="utf-8"))
    page = "\n".join(
        [_head(method), *summary(reports), "", *(section(name, method, reports[name]) for name in reports)]
    )
    if markdown:
        markdown.write_text(page, encoding="utf-8")
    else:
        click.echo(page)


def build_bundle(name: str, data: Path, out: Path, method: str) -> None:
    """Build one data set from the command line, as a user would."""
    settings = [f"--set={key}={data / path}" for key, path in SETS[name].items()]
    command = [sys.executable, "-m", "edgetune", "build", "--base", BASE, "--method", method, *settings]
    subprocess.run([*command, "--out", str(out / name), "--fresh"], check=True)


def _head(method: str) -> str:
    return (
        "# Figures on real data\n\n"
        f"Written by `python -m benchmarks.lab.real_data --data DIR --method {method}`. Base and bundle ran in "
        "turn in one run on the machine that each section names; ratios travel better than milliseconds.\n"
    )


def summary(reports: dict[str, dict[str, Any]]) -> list[str]:
    """One line a data set: quality of base, tuned model and bundle, speed, size, memory, cold start, build time."""
    head = ["data", "base", "tuned", "bundle", "p50 ms", "times faster", "MB", "peak MB", "cold start ms", "build min"]
    return table(head, [_line(name, report) for name, report in reports.items()])


def _line(name: str, report: dict[str, Any]) -> list[str]:
    values = {stage["stage"]: 100 * stage["value"] for stage in report["quality"]["stages"]}
    latency, memory, cold = report["latency_ms"], report["memory"], report["cold_start_ms"]
    speedup = latency["speedup"]
    sizes = [mega(report["size_bytes"][side]) or 0 for side in ("base", "bundle")]
    peaks = [mega(memory[side]["rss_peak_bytes"]) or 0 for side in ("base", "bundle")]
    return [
        f"{name}, {len(report['data']['labels'])} labels",
        f"{values['base']:.2f}%",
        f"{values['tuned']:.2f}% ({report['training']['handed_on']})",
        f"{values[report['chosen']]:.2f}% ({report['chosen']})",
        f"{latency['base']['p50']:.1f} to {latency['bundle']['p50']:.1f}",
        f"{speedup['p50']:.1f} ({_interval(speedup)})" if report.get("timing_valid", True) else NOT_JUDGED,
        f"{sizes[0]:.0f} to {sizes[1]:.0f}",
        f"{peaks[0]:.0f} to {peaks[1]:.0f}",
        f"{cold['base']:,.0f} to {cold['bundle']:,.0f}",
        f"{sum(report['build_seconds'].values()) / 60:.1f}",
    ]


def section(name: str, method: str, report: dict[str, Any]) -> str:
    """One data set's figures as Markdown, from its report.json."""
    machine, data, training = report["machine"], report["data"], report["training"]
    rows = ", ".join(f"{count:,} {part}" for part, count in data["rows"].items())
    lines = [
        f"## {name}",
        "",
        f"{rows}; {len(data['labels'])} labels. "
        f"{100 * data['unknown_share']:.1f}% unknown tokens; base {report['base']}; "
        f"asked for {method}, handed on {training['handed_on']} (validation: probe {training['probe_value']:.4f}, "
        f"best {training['best_value']:.4f}). {machine['cpu']}, {machine['threads']} threads, "
        f"{', '.join(machine['isa'])}.",
        "",
        f"> {report['verdict']}",
        "",
        *table(["stage", report["quality"]["metric"], "95% interval", "agreement", "drop, points"], _quality(report)),
        "",
        *table(["", "base (PyTorch)", "bundle", "ratio"], _speed(report)),
        "",
        *table(["candidate", "MB", "drop, points", "gate", "p50 ms"], _candidates(report)),
        "",
        *table(["stage of the build", "seconds", "peak MB"], _build(report)),
        "",
        f"Curve: {training['remark']}",
        "",
    ]
    return "\n".join(lines)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def _quality(report: dict[str, Any]) -> list[list[str]]:
    return [
        [
            stage["stage"],
            f"{100 * stage['value']:.2f}%",
            f"{100 * stage['ci95'][0]:.2f} to {100 * stage['ci95'][1]:.2f}",
            "" if stage["agreement"] is None else f"{100 * stage['agreement']:.2f}%",
            "" if stage["drop"] is None else f"{100 * stage['drop']:+.2f}",
        ]
        for stage in report["quality"]["stages"]
    ]


def _speed(report: dict[str, Any]) -> list[list[str]]:
    latency, valid = report["latency_ms"], report.get("timing_valid", True)
    rows = [
        _pair("p50 ms", latency["base"]["p50"], latency["bundle"]["p50"]),
        _pair("p90 ms", latency["base"]["p90"], latency["bundle"]["p90"]),
        _pair("p99 ms", latency["base"]["p99"], latency["bundle"]["p99"]),
        _pair("texts a second", **report["throughput_per_second"]),
        _pair("peak resident MB", *(mega(report["memory"][side]["rss_peak_bytes"]) for side in ("base", "bundle"))),
        _pair("cold start ms", **report["cold_start_ms"]),
        _pair("size MB", mega(report["size_bytes"]["base"]), mega(report["size_bytes"]["bundle"])),
    ]
    rows[0][3] += f" (95% {_interval(latency['speedup'])})" if valid else ""
    return rows if valid else [[*row[:3], NOT_JUDGED if row[0] in TIMES else row[3]] for row in rows]


def _interval(speedup: dict[str, Any]) -> str:
    low, high = speedup["ci95"]
    return f"{low:.1f} to {high:.1f}"


def mega(size: float | None) -> float | None:
    """Bytes in MB."""
    return None if size is None else size / 1e6


def _pair(name: str, base: float | None, bundle: float | None) -> list[str]:
    if base is None or bundle is None:
        return [name, "not measured", "not measured", ""]
    return [name, f"{base:,.2f}", f"{bundle:,.2f}", f"{max(base, bundle) / min(base, bundle):.1f}"]


def _candidates(report: dict[str, Any]) -> list[list[str]]:
    return [
        [
            one["scheme"] + (" (chosen)" if one["chosen"] else ""),
            f"{one['size_bytes'] / 1e6:.1f}",
            f"{100 * one['drop']:+.2f} ({100 * one['drop_interval'][0]:+.2f} to {100 * one['drop_interval'][1]:+.2f})",
            one["gate"],
            "not timed" if one["latency_ms"] is None else f"{one['latency_ms']['p50']:.2f}",
        ]
        for one in report["candidates"]
    ]


def _build(report: dict[str, Any]) -> list[list[str]]:
    peaks = report["build_peak_bytes"]
    rows = [
        [stage, f"{seconds:.1f}", f"{peaks[stage] / 1e6:,.0f}" if stage in peaks else "not measured"]
        for stage, seconds in report["build_seconds"].items()
    ]
    return [*rows, ["all", f"{sum(report['build_seconds'].values()):.1f}", f"{max(peaks.values()) / 1e6:,.0f}"]]


if __name__ == "__main__":
    main()
