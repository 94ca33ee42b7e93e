"""The tasks of a bundle apart: for each a bundle of it alone, whose graph has its output and what leads to it.

Each is a whole bundle with golden answers, and a folder that optimum's and transformers' pipelines open as any other
(config.json has the architecture and labels of the task); it can be packed again, for a server that knows one task.
Needs onnx.
"""

from __future__ import annotations

import json
from pathlib import Path

import msgspec

from edgetune.export.layouts.embedded import write_json
from edgetune.serve.bundle import (
    CONFIG_NAME,
    GOLDEN_NAME,
    GRAPH_NAME,
    REPORT_NAME,
    TOKENIZER_NAME,
    Bundle,
    HeadSpec,
)
from edgetune.serve.codecs import codec_alone
from edgetune.serve.errors import BundleDamaged, BundleError
from edgetune.serve.golden_cases import Golden
from edgetune.serve.heads import PER_TOKEN
from edgetune.serve.predictor import Predictor
from edgetune.serve.tasks_report import TasksReport
from edgetune.tune.tasks import TASKS

HELP = "A bundle of each task alone, of a bundle of several tasks: for servers and pipelines that know one."
RUN = "edgetune serve FOLDER/*"

_TOKENIZER_CONFIG = "tokenizer_config.json"
# By the kind of a head the ending of transformers' class for it, and the problem that it solves.
_CLASSES = {
    "label": ("ForSequenceClassification", "single_label_classification"),
    "labels": ("ForSequenceClassification", "multi_label_classification"),
    "number": ("ForSequenceClassification", "regression"),
    "entities": ("ForTokenClassification", ""),
}


def write(bundle: Bundle, folder: Path) -> None:
    """Fill an empty folder with a bundle for each task."""
    heads = bundle.manifest.answer_heads
    path = bundle.path(REPORT_NAME)
    reports = TasksReport.load(path).tasks if path is not None else {}
    for head in heads:
        place = folder / head.name
        place.mkdir()
        _write_graph(bundle.folder / GRAPH_NAME, place / GRAPH_NAME, head.output)
        _write_config(bundle, place, head)
        for name in (TOKENIZER_NAME, _TOKENIZER_CONFIG):
            if source := bundle.path(name):
                (place / name).write_bytes(source.read_bytes())
        if head.name in reports:
            (place / REPORT_NAME).write_bytes(reports[head.name].to_json())
        _write_golden(bundle, place, head)
        _write_manifest(bundle, place, head)


def _write_graph(source: Path, target: Path, output: str) -> None:
    """The part of a graph that leads to one output, which is then called `logits`."""
    import onnx_ir
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    model = onnx_ir.load(source)
    kept = [value for value in model.graph.outputs if value.name == output]
    model.graph.outputs.clear()
    model.graph.outputs.extend(kept)
    kept[0].name = "logits"
    RemoveUnusedNodesPass()(model)
    onnx_ir.save(model, target)


def _write_config(bundle: Bundle, folder: Path, head: HeadSpec) -> None:
    """The configuration with the architecture, labels and problem of the task."""
    config = json.loads((bundle.folder / CONFIG_NAME).read_text(encoding="utf-8"))
    ending, problem = _CLASSES[head.kind]
    config["architectures"] = [
        name.removesuffix("EncoderModel").removesuffix("Model") + ending for name in config["architectures"]
    ]
    labels = head.labels or ["LABEL_0"]
    config["id2label"] = {str(place): label for place, label in enumerate(labels)}
    config["label2id"] = {label: place for place, label in enumerate(labels)}
    if problem:
        config["problem_type"] = problem
    write_json(folder / CONFIG_NAME, config)


def _write_golden(bundle: Bundle, folder: Path, head: HeadSpec) -> None:
    """The golden answers of the task, with the ids that its own codec gives."""
    golden = bundle.golden()
    rows = Predictor(bundle, task=head.name).encode([case.input for case in golden.cases])
    cases = []
    for case, row in zip(golden.cases, rows, strict=True):
        one = case.answers[head.name]
        cases.append(
            msgspec.structs.replace(
                case, input_ids=row.all_ids, logits=one.logits, label=one.label, answer=one.answer, answers={}
            )
        )
    value = Golden(tolerance=golden.tolerances.get(head.name, golden.tolerance), cases=cases)
    (folder / GOLDEN_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")


def _write_manifest(bundle: Bundle, folder: Path, head: HeadSpec) -> None:
    from edgetune.export.once.pack import listed_heads, write_manifest

    manifest = bundle.manifest
    output = next(spec for spec in manifest.outputs if spec.name == head.output)
    alone = msgspec.structs.replace(head, name="", output="logits")
    write_manifest(
        folder,
        msgspec.structs.replace(
            manifest,
            name=f"{manifest.name}-{head.name}",
            task=next(task.name for task in TASKS.values() if task.kind == head.kind),
            labels=head.labels,
            outputs=[msgspec.structs.replace(output, name="logits")],
            codec=codec_alone(manifest.codec, per_token=head.kind in PER_TOKEN),
            heads=listed_heads([alone]),
            files={},
        ),
    )


def check(folder: Path) -> list[str]:
    """The faults of the bundles in a folder: files that changed, graphs that do not open, answers that differ."""
    from edgetune.serve.golden import replay_golden

    faults = []
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            replay_golden(Predictor(Bundle.open(place)))
        except (BundleError, BundleDamaged) as error:
            faults.append(f"{place.name}: {error.found}")
    return faults or ([] if any(folder.iterdir()) else ["there is no bundle"])
