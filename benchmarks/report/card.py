"""The model card of a bundle, README.md, with the YAML header that the Hugging Face Hub reads.

Header by huggingface.co/docs/hub/model-cards. It says what the report proved and what it did not; nothing is in it that
is not in the report, the manifest or the base's own card.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from edgetune.benchmarks.measure.figures import of_report, rows
from edgetune.benchmarks.report.summary import metric_of
from edgetune.serve.bundle import Manifest
from edgetune.serve.codecs import describe_codec
from edgetune.serve.heads import describe_head
from edgetune.serve.report import BuildReport

CARD_NAME = "README.md"
UNKNOWN_LICENCE = "unknown"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
# A licence by the header of a model card: `license: mit`, in quotes or not.
_LICENCE = re.compile(r"^license:[ \t]*[\"']?([\w.+-]+)[\"']?[ \t]*$", re.MULTILINE)


def base_licence(folder: Path) -> str:
    """The licence that the card of a base's folder names, by its identifier there; "unknown" without one."""
    try:
        card = (folder / CARD_NAME).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return UNKNOWN_LICENCE
    header = card.split("\n---", 1)[0] if card.startswith("---") else ""
    match = _LICENCE.search(header)
    return match[1].lower() if match else UNKNOWN_LICENCE


def model_card(manifest: Manifest, report: BuildReport, licence: str, pipeline_tag: str) -> str:
    """The card as Markdown.

    Args:
        manifest: of the bundle.
        report: of its build.
        licence: of the base, as `base_licence` gives it.
        pipeline_tag: the Hub's name of the task.
    """
    parts = [
        _header(manifest, report, licence, pipeline_tag),
        f"# {_plain(manifest.name)}",
        _what_it_is(manifest, report),
        "## How good it is",
        *(map(_plain, report.decision.lines) if report.decision else ()),
        _plain(report.verdict),
        _table(["", "value"], rows(of_report(report))),
        "## How to use it",
        _usage(manifest),
        "## Limits",
        _list(_limits(manifest, report)),
        "## The data",
        _list(report.data.findings),
        "## Where it comes from",
        _list(_origin(manifest, report, licence)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(manifest: Manifest, report: BuildReport, licence: str, pipeline_tag: str) -> str:
    """The YAML block: values are JSON, which YAML reads as it is."""
    name, value, *_ = metric_of(report)
    lines = [f"license: {licence if licence != UNKNOWN_LICENCE else 'other'}"]
    if _HUB_ID.fullmatch(manifest.base.id):
        lines += [f"base_model: {json.dumps(manifest.base.id)}", "base_model_relation: quantized"]
    lines += ["library_name: edgetune", f"pipeline_tag: {pipeline_tag}", "tags:", "- edgetune", "- onnx"]
    if value == value:
        task = {"type": pipeline_tag}
        data = {"type": "custom", "name": report.data.digest[:19]}
        metric = {"type": name, "value": round(value, 6), "name": f"{name} of {report.quality.n:,} held-out rows"}
        entry = {"name": manifest.name, "results": [{"task": task, "dataset": data, "metrics": [metric]}]}
        lines.append(f"model-index: {json.dumps([entry], ensure_ascii=False)}")
    return "\n".join(["---", *lines, "---"])


def _what_it_is(manifest: Manifest, report: BuildReport) -> str:
    takes = "a prompt" if manifest.generation is not None else describe_codec(manifest.codec)
    gives = (
        "text"
        if manifest.generation is not None
        else "; ".join(describe_head(head, 20) for head in manifest.answer_heads)
    )
    return (
        f"An [edgetune](https://pypi.org/project/edgetune/) bundle for {manifest.task}: it takes {takes} and gives "
        f"{_plain(gives)}. Tuned from `{manifest.base.id}` ({report.training.method}) and packed as `{report.chosen}` "
        f"for {manifest.provider}; it answers without torch."
    )


def _usage(manifest: Manifest) -> str:
    if manifest.generation is not None:
        call = 'generator = Generator.open("FOLDER")\ngenerator.generate("...")'
        imported = "from edgetune.serve.stepwise.generator import Generator"
    else:
        call, imported = 'bundle = load("FOLDER")\nbundle.predict([...])', "from edgetune.serve import load"
    return f'```\npip install "edgetune[cpu]"\nedgetune verify FOLDER\n```\n\n```python\n{imported}\n\n{call}\n```'


def _limits(manifest: Manifest, report: BuildReport) -> list[str]:
    held_out = f"{report.quality.n:,} held-out rows of the same data set"
    limits = [
        f"Proven on {held_out}; of texts unlike these, and of other languages, nothing is known.",
        f"At most {manifest.max_tokens:,} tokens are read at once." if manifest.max_tokens > 1 else "",
        f"Times are of one machine ({report.machine.cpu}, {report.machine.threads} threads); `edgetune measure` gives "
        "those of another. On processors with other instructions integer products round differently: `edgetune verify` "
        "replays the golden answers.",
        "" if report.timing_valid else report.timing_remark,
        getattr(report.quality, "warning", ""),
        *_weakest(report),
    ]
    return [limit for limit in limits if limit]


def _weakest(report: BuildReport) -> list[str]:
    """The classes that are told worst, where there are classes."""
    classes = sorted(getattr(report.quality, "classes", []), key=lambda one: one.f1)[:3]
    if len(classes) < 3:
        return []
    named = ", ".join(f"{one.label} ({one.f1:.2f} on {one.rows:,} rows)" for one in classes)
    return [f"The classes with the lowest F1: {named}."]


def _origin(manifest: Manifest, report: BuildReport, licence: str) -> list[str]:
    counts = ", ".join(f"{count:,} {part}" for part, count in report.data.rows.items())
    known = licence != UNKNOWN_LICENCE
    return [
        f"Base: `{manifest.base.id}`, {manifest.base.digest}.",
        f"Licence of the base: {licence}. The data's own terms hold beside it."
        if known
        else "The base's folder names no licence: look it up before you pass this bundle on.",
        f"Data: {counts} rows, digest {report.data.digest}.",
        f"Built {manifest.created} by edgetune {report.edgetune}; `recipe.yaml` repeats it, `report.html` has every "
        "measurement, `sbom.cdx.json` every part.",
    ]


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {_plain(line)}" for line in lines)


def _plain(text: str) -> str:
    """Words of the user's own, a label or a column's name, as Markdown shows them and never as a tag."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def _table(heading: Sequence[str], cells: Sequence[tuple[str, str]]) -> str:
    lines = [f"| {' | '.join(heading)} |", "|---|---|", *(f"| {name} | {value} |" for name, value in cells)]
    return "\n".join(lines)
