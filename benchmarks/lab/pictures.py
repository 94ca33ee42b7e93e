"""Builds a model of pictures by the defaults, and shows the gate what ruins networks of convolutions.

Run as `python -m benchmarks.lab.pictures --base MODEL --data PICTURES`; neither is shipped with the project. One scale
for a whole tensor, and scales taken at run time, are made beside the build's own candidates and judged as those are.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from benchmarks.lab.real_data import table
from edgetune.benchmarks.prove.gate import judge_answers
from edgetune.benchmarks.prove.ledger import bundle_logits, frozen_slice, model_answers
from edgetune.benchmarks.recipe import GateRecipe
from edgetune.compress.candidate import Candidate
from edgetune.compress.convolutions import quantize_convolutions
from edgetune.compress.material import Material
from edgetune.compress.schemes.int8_dynamic import _by_onnxruntime
from edgetune.export.once.graph import Graph
from edgetune.export.once.pack import Packing, draft_bundle, golden_inputs
from edgetune.serve.predictor import Predictor
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.models.model import TunedModel
from edgetune.tune.training.progress import Silent

Report = dict[str, Any]


@click.command()
@click.option("--base", required=True, help="Folder of the base model.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of pictures.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bundles"), help="Where the bundle is built.")
@click.option("--method", default="auto", help="How to tune.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the table; stdout when not said.")
def main(base: str, data: Path, out: Path, method: str, markdown: Path | None) -> None:
    """Build on one thread, print the figures, and judge two graphs that are known to be ruined."""
    bundle = out / data.name
    command = [sys.executable, "-m", "edgetune", "build", "--base", base, "--data", str(data), "--out", str(bundle)]
    subprocess.run([*command, "--method", method, "--set", "benchmark.threads=1"], check=True)
    report: Report = json.loads((bundle / "report.json").read_text(encoding="utf-8"))
    lines = [*_figures(data.name, report), "", *_ruined(bundle.with_name(f"{bundle.name}.work"), report)]
    page = "\n".join([*lines, "", f"> {report['verdict']}", ""])
    if markdown:
        markdown.write_text(page, encoding="utf-8")
    else:
        click.echo(page)


def _figures(name: str, report: Report) -> list[str]:
    head = ["data", "pixels", "base with its head solved", "tuned", "bundle", "p50 ms", "times faster", "model MB"]
    head.append("build min")
    stages = {stage["stage"]: stage for stage in report["quality"]["stages"]}
    latency, chosen = report["latency_ms"], report["chosen"]
    graph = next(each for each in report["candidates"] if each["chosen"])
    ratio = latency["speedup"]["p50"]
    settings = report["training"]["settings"]
    row = [
        name,
        f"{settings['picture_size']}, of the base {settings['base_picture_size']}",
        _with_interval(stages["base"]),
        f"{_with_interval(stages['tuned'])} ({report['training']['handed_on']})",
        f"{_with_interval(stages[chosen])} ({chosen}, {report['proof']['gate']})",
        f"{latency['base']['p50']:.2f} to {latency['bundle']['p50']:.2f}",
        f"{ratio:.1f}" if ratio else "not judged",
        f"{graph['size_bytes'] / 1e6:.2f}",
        f"{sum(report['build_seconds'].values()) / 60:.1f}",
    ]
    return table(head, [row])


def _with_interval(stage: Report) -> str:
    low, high = stage["ci95"]
    return f"{stage['value']:.4f} ({low:.4f} to {high:.4f})"


def _ruined(work: Path, report: Report) -> list[str]:
    """Graphs with one scale a tensor, and with scales taken at run time, as the gate judges them."""
    tuned, dataset, graph = TunedModel.open(work / "tune"), Dataset.open(work / "data"), Graph.open(work / "export")
    material = Material(tuned, dataset.train, dataset.validation, (), "cpu", "cpu", 0, Silent())
    rows = frozen_slice(tuned, "", dataset.test, dataset.train, 1_000, 0)
    expected = rows.answers(model_answers(tuned, rows))
    packing = Packing("ruined", tuned, dataset.digest, "cpu", golden_inputs(tuned.codec, dataset.validation.texts))
    ways: dict[str, Callable[[Path], str]] = {
        "int8, a scale a channel": lambda target: quantize_convolutions(graph.path, target, material),
        "int8, a scale a tensor": lambda target: quantize_convolutions(graph.path, target, material, per_channel=False),
        "int8, scales taken at run time": lambda target: _by_onnxruntime(graph.path, target),
    }

    def judged() -> Iterator[list[str]]:
        for name, make in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                target = Path(folder) / "model.onnx"
                candidate = Candidate.of("int8_static", target, make(target))
                draft = draft_bundle(candidate, packing, Path(folder) / "draft", 0.05)
                answers = rows.answers(bundle_logits(Predictor(draft, threads=1), rows))
            verdict = judge_answers(rows.objective.metric, rows.expected, expected, answers, GateRecipe())
            yield [name, f"{rows.objective.metric.of(rows.expected, answers):.4f}", verdict.gate, verdict.reason]

    return table(["graph", report["quality"]["metric"], "gate", "why"], list(judged()))


if __name__ == "__main__":
    main()
