"""The table of what edgetune must reach: builds from the command line, then one race of all artefacts in turn.

Run as `python -m benchmarks.lab.performance --data DIR --markdown docs/measurements/performance.md`. For each data set
three bundles are built from one tuned model: one keeps its layers as they are, one keeps them and may lose feed-forward
columns, both with at most half a point lost, and one with everything allowed may lose a point. With --peers and --envs
other tools' artefacts run in the same race (benchmarks/peers/README.md says how they are made). A row that is not
reached keeps its figure.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.lab.real_data import BASE, SETS, mega, table
from benchmarks.lab.training import placed

WHOLE, NARROW, SMALL = "all layers", "all layers narrowed", "everything allowed"
# What the race calls the base.
PYTORCH = "PyTorch fp32"
SETTINGS = {
    WHOLE: ("--set=compress.structural=false", "--set=gate.max_drop=0.005", "--set=gate.when_inconclusive=accept"),
    NARROW: (
        *(f"--scheme={name}" for name in ("int8_dynamic", "int8_static", "trimmed", "pruned")),
        "--set=gate.max_drop=0.005",
        "--set=gate.when_inconclusive=accept",
    ),
    SMALL: ("--set=gate.max_drop=0.01", "--set=gate.when_inconclusive=accept"),
}


@dataclass(frozen=True)
class Row:
    """A figure with what it must reach and what it aims at; `least` where more is better."""

    figure: str
    must: float
    aim: float
    measured: float | None
    unit: str
    least: bool = True
    remark: str = ""

    def cells(self) -> list[str]:
        """The row of the table, with a word on what was reached."""
        word = "at least" if self.least else "at most"
        found = "not measured" if self.measured is None else f"**{self.measured:,.4g}{self.unit}**"
        must, aim = f"{word} {self.must:.3g}{self.unit}", f"{self.aim:.3g}{self.unit}"
        return [self.figure, must, aim, found, self.reached(), self.remark]

    def reached(self) -> str:
        """aim, must, or what is missing."""
        if self.measured is None:
            return ""
        if self._holds(self.aim):
            return "aim"
        return "yes" if self._holds(self.must) else "**no**"

    def _holds(self, limit: float) -> bool:
        assert self.measured is not None
        return self.measured >= limit if self.least else self.measured <= limit


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    envvar="EDGETUNE_DATA",
    required=True,
    help="Folder of the data sets; also from EDGETUNE_DATA.",
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("bundles"), help="Where bundles are built.")
@click.option("--only", multiple=True, type=click.Choice(list(SETS)), default=["banking77", "sst2"])
@click.option(
    "--start",
    type=click.Choice(["build", "race", "tell"]),
    default="build",
    help="Where to start: build anew, race the bundles that are in --out, or tell the race that was run there.",
)
@click.option("--peers", type=click.Path(path_type=Path), default=Path("benchmarks/peers"), help="The peers' folder.")
@click.option(
    "--envs",
    type=click.Path(path_type=Path),
    help="The peers' environments, with their artefacts in models/DATASET; without them ours race alone.",
)
@click.option("--remark", multiple=True, help="A sentence on the circumstances of this run, for the page; repeat.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the tables; stdout when not said.")
def main(
    data: Path,
    out: Path,
    only: Sequence[str],
    start: str,
    peers: Path,
    envs: Path | None,
    remark: Sequence[str],
    markdown: Path | None,
) -> None:
    """Build, race, and print the tables."""
    found = {}
    for name in only:
        if start == "build":
            for kind in SETTINGS:
                build_bundle(name, kind, data, out)
        if start != "tell":
            run_race(name, out, peers, envs or out / "no-peers")
        raced = json.loads((out / f"{name}-race.json").read_text("utf-8"))
        reports = {kind: json.loads((folder(out, name, kind) / "report.json").read_text("utf-8")) for kind in SETTINGS}
        found[name] = reports, raced
    page = "\n".join([_head(remark), *summary(found), "", *(section(name, *found[name]) for name in found)])
    if markdown:
        # Another script puts its table at the end of the same page.
        markdown.write_text("\n".join(filter(None, [page, placed(markdown)])), encoding="utf-8")
    else:
        click.echo(page)


def folder(out: Path, name: str, kind: str) -> Path:
    """Where a bundle of a data set lies."""
    return out / f"{name}-{kind.replace(' ', '-')}"


def build_bundle(name: str, kind: str, data: Path, out: Path) -> None:
    """Build from the command line; all kinds share a work folder, so that the later ones start from the tuned model."""
    keys = [f"--set={key}={data / path}" for key, path in SETS[name].items()]
    command = [sys.executable, "-m", "edgetune", "build", "--base", BASE, *keys, *SETTINGS[kind]]
    work = out / name
    subprocess.run([*command, "--out", str(work), *(["--fresh"] if kind == WHOLE else [])], check=True)
    place = folder(out, name, kind)
    subprocess.run(["rm", "-rf", str(place)], check=True)
    work.rename(place)


def run_race(name: str, out: Path, peers: Path, envs: Path) -> None:
    """All sides in turn, by the peers' own script, which writes its figures beside the bundles."""
    work, found = out / f"{name}.work", out / f"{name}-race.json"
    bundles = [part for kind in SETTINGS for part in ("--bundle", f"{kind}={folder(out, name, kind)}")]
    places: list[str | Path] = ["--base", work / "tune" / "base", "--data", work / "data", "--envs", envs]
    places += ["--models", envs / "models" / name]
    command = [sys.executable, peers / "race.py", *bundles, *places, "--json", found]
    subprocess.run(command, check=True)


def _head(remarks: Sequence[str]) -> str:
    return (
        "# Performance\n\n"
        "Written by `python -m benchmarks.lab.performance` (`make performance`). Batch 1, text in to label out, "
        "all sides in turn in one run with the same threads; ratios travel better than milliseconds. A row that is not "
        "reached stays, with its figure.\n" + "".join(f"\n{remark}\n" for remark in remarks)
    )


def summary(found: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Any]]]) -> list[str]:
    """One line a bundle: what it reaches beside the base in PyTorch, in the race."""
    head = [
        "data",
        "bundle",
        "accuracy: base, tuned, bundle",
        "p50 ms",
        "times faster",
        "MB",
        "peak MB",
        "cold start ms",
    ]
    lines = []
    for name, (reports, raced) in found.items():
        base = raced["sides"][PYTORCH]
        for kind, report in reports.items():
            side = raced["sides"][kind]
            values = {stage["stage"]: stage["value"] for stage in report["quality"]["stages"]}
            shown = [values["base"], values["tuned"], report["proof"]["value"]]
            low, high = side["faster_ci95"]
            lines.append(
                [
                    f"{name}, {len(report['data']['labels'])} labels",
                    f"{kind}: {report['chosen']}",
                    ", ".join(f"{100 * value:.2f}%" for value in shown),
                    f"{base['p50']:.1f} to {side['p50']:.2f}",
                    f"{side['faster']:.1f} ({low:.1f} to {high:.1f})",
                    f"{base['size_bytes'] / 1e6:.0f} to {side['size_bytes'] / 1e6:.1f}",
                    f"{base['rss_peak_bytes'] / 1e6:.0f} to {side['rss_peak_bytes'] / 1e6:.0f}",
                    f"{base['cold_start_ms']:,.0f} to {side['cold_start_ms']:,.0f}",
                ]
            )
    return table(head, lines)


def section(name: str, reports: dict[str, dict[str, Any]], raced: dict[str, Any]) -> str:
    """One data set: the table of targets, the race, the candidates."""
    machine = raced["machine"]
    lines = [
        f"## {name}",
        "",
        f"{machine['cpu']}, {raced['threads']} threads, {', '.join(machine['isa'])}; {raced['rows']:,} test rows.",
        "",
        *table(
            ["figure", "must reach", "aim", "measured", "reached", ""], [row.cells() for row in rows(reports, raced)]
        ),
        "",
        "The race:",
        "",
        *table(["side", "p50 ms", "times faster", "texts/s", "MB", "peak MB", "cold ms", "accuracy"], _raced(raced)),
        "",
    ]
    for kind, report in reports.items():
        lines += [f"**{kind}** ({report['chosen']}): {report['verdict']} {report['why']}", ""]
        lines += [
            *table(["candidate", "accuracy", "drop, points", "gate", "p50 ms", "MB", "front"], _tried(report)),
            "",
        ]
        lines += [f"Not tried or failed: {'; '.join(f'{k}: {v}' for k, v in report['skipped'].items())}", ""]
    return "\n".join(lines)


def rows(reports: dict[str, dict[str, Any]], raced: dict[str, Any]) -> list[Row]:
    """The targets with what was measured."""
    sides, base = raced["sides"], raced["sides"][PYTORCH]
    small = sides[SMALL]
    lost = {kind: 100 * report["proof"]["drop"] for kind, report in reports.items()}
    build = {stage: s for stage, s in reports[WHOLE]["build_seconds"].items() if stage != "bench"}
    peak = max(reports[WHOLE]["build_peak_bytes"].values())
    tuned = next(one["value"] for one in reports[WHOLE]["quality"]["stages"] if one["stage"] == "tuned")
    ratio = small["rss_peak_bytes"] / base["rss_peak_bytes"]
    times = {kind: sides[kind]["texts_per_second"] / base["texts_per_second"] for kind in SETTINGS}
    fastest = max(times, key=lambda kind: times[kind])
    openvino = sides.get("openvino_int8", {"texts_per_second": 4.5 * base["texts_per_second"]})
    ahead = openvino["texts_per_second"] / base["texts_per_second"]
    return [
        *(
            Row(
                f"p50, {kind}, against PyTorch fp32",
                9,
                12,
                sides[kind]["faster"],
                " times",
                remark=_lost(lost[kind], 0.5),
            )
            for kind in (WHOLE, NARROW)
        ),
        Row("p50, everything allowed", 15, 25, small["faster"], " times", remark=_lost(lost[SMALL], 1)),
        *_against_peers(sides),
        Row("bundle, all files", 15, 6, small["size_bytes"] / 1e6, " MB", least=False, remark=_lost(lost[SMALL], 1)),
        Row("peak resident memory, of PyTorch's", 0.25, 1 / 6, ratio, "", least=False),
        Row("cold start, process start to first label", 180, 120, small["cold_start_ms"], " ms", least=False),
        Row(
            "throughput, batch 32, sorted",
            4.5,
            ahead,
            times[fastest],
            " times",
            remark="; ".join(f"{kind}: {value:.2f} times" for kind, value in times.items()),
        ),
        Row("accuracy of the tuned model", 92.5, 94, 100 * tuned, "%", remark="asked of banking77"),
        Row("build without benchmark, no structural schemes", 240, 90, sum(build.values()), " s", least=False),
        Row("peak memory of the build", 2.5, 1.5, peak / 1e9, " GB", least=False),
    ]


def _lost(points: float, allowed: float) -> str:
    return f"loses {points:+.2f} points on the test part, {allowed:g} allowed"


def _against_peers(sides: dict[str, Any]) -> list[Row]:
    """The best artefact of ours against each peer's, in the same race."""
    best = min(sides[kind]["p50"] for kind in SETTINGS)
    ours = {PYTORCH, *SETTINGS}
    return [
        Row(f"p50, best of ours, against {name}", 1, 2, side["p50"] / best, " times")
        for name, side in sides.items()
        if name not in ours
    ]


def _raced(raced: dict[str, Any]) -> list[list[str]]:
    return [
        [
            name,
            f"{side['p50']:.2f}",
            "1"
            if name == PYTORCH
            else f"{side['faster']:.1f} ({side['faster_ci95'][0]:.1f} to {side['faster_ci95'][1]:.1f})",
            f"{side['texts_per_second']:,.0f}",
            f"{side['size_bytes'] / 1e6:.1f}",
            f"{side['rss_peak_bytes'] / 1e6:,.0f}",
            f"{side['cold_start_ms']:,.0f}",
            f"{100 * side['accuracy']:.2f}%",
        ]
        for name, side in raced["sides"].items()
    ]


def _tried(report: dict[str, Any]) -> list[list[str]]:
    return [
        [
            one["scheme"] + (" (chosen)" if one["chosen"] else ""),
            f"{100 * one['value']:.2f}%",
            f"{100 * one['drop']:+.2f} ({100 * one['drop_interval'][0]:+.2f} to {100 * one['drop_interval'][1]:+.2f})",
            one["gate"] + (f", {one['stopped_at']}" if one["stopped_at"] else ""),
            "not timed" if one["latency_ms"] is None else f"{one['latency_ms']['p50']:.2f}",
            f"{mega(one['bundle_bytes']):.1f}",
            "yes" if one["front"] else "",
        ]
        for one in report["candidates"]
    ]


if __name__ == "__main__":
    main()
