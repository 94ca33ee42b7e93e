"""A small real Llama tuned on real rows from the command line: what was learnt, and what few bits lose.

Run as `python -m benchmarks.lab.language.real_model --data DIR --markdown docs/measurements/language-models.md`. DIR
holds public models and data sets in the layout of `MODEL` and `SETS`; none is shipped with the project. Apart from the
race of random models, whose speed says nothing of their answers.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.lab.language.page import Markers, place
from benchmarks.lab.language.written_stories import write_stories
from benchmarks.lab.real_data import table
from edgetune.serve.stepwise.report import AnswerQuality, LanguageReport

MODEL = "models/stories260K-llama"
MARKERS = Markers("language models: answers")


@dataclass(frozen=True)
class RowSet:
    """Rows to learn: their file in the data folder, or "" where they are written; what they are; recipe settings."""

    file: str
    what: str
    settings: tuple[str, ...] = ()


SETS: Mapping[str, RowSet] = {
    "stories": RowSet("", "small stories by a grammar (written_stories.py), as plain texts", ("data.format=text",)),
    "banking77": RowSet(
        "text_en/banking77/train.csv",
        "questions to a bank, as plain texts",
        ("data.format=text", "data.columns={text: text}"),
    ),
    "gsm8k": RowSet("instruct/gsm8k/test.jsonl", "sums in words, question and answer"),
}


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of models and data.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bundles"), help="Where bundles are built.")
@click.option("--only", multiple=True, type=click.Choice(list(SETS)), help="Rows to learn; all when not said.")
@click.option("--method", default="full", show_default=True, help="Tuning method.")
@click.option("--build/--no-build", default=True, help="Build anew, or tell the bundles that are in --out already.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the tables; stdout when not said.")
def main(data: Path, out: Path, only: tuple[str, ...], method: str, build: bool, markdown: Path | None) -> None:
    """Build each set anew and print what its report says."""
    reports = {}
    for name in only or SETS:
        if build:
            _build(SETS[name], data, out / f"stories-{name}", method)
        reports[name] = LanguageReport.load(out / f"stories-{name}" / "report.json")
    text = page(reports, method)
    if markdown:
        place(markdown, text, MARKERS)
    else:
        click.echo(text)


def _build(rows: RowSet, data: Path, out: Path, method: str) -> None:
    settings = [f"--set={one}" for one in rows.settings]
    command = [sys.executable, "-m", "edgetune", "build", "--base", str(data / MODEL), "--method", method]
    file = data / rows.file
    if not rows.file:
        file = out.with_name(f"{out.name}.jsonl")
        file.parent.mkdir(parents=True, exist_ok=True)
        write_stories(file)
    command += ["--data", str(file), "--task", "text-generation", *settings]
    subprocess.run([*command, "--out", str(out), "--fresh"], check=True)


def page(reports: Mapping[str, LanguageReport], method: str) -> str:
    """The text between the markers, with them."""
    lines = [
        MARKERS.start,
        "## Answers: a small real model",
        "",
        "Written by `python -m benchmarks.lab.language.real_model`: stories260K, a Llama of 260 thousand "
        f"trained parameters, tuned with `{method}` and default settings by `edgetune build`, which proves before it "
        "packs that 64 greedy tokens of the fp32 graph are those of PyTorch's `generate`, on four prompts. Perplexity "
        "is that of the answers' tokens in the test part; the schemes stand beside the tuned model on the validation "
        "part. A model so small is the hard case for few bits, since each of its weights carries more. The stories "
        "were written after the other two sets had been measured, as the narrow task that such a model is fit for: "
        "with few tokens nearly as likely as others, agreement is high there. The other sets show it elsewhere.",
        "",
        *_learnt(reports),
        "",
        *_kept(reports),
        MARKERS.end,
        "",
    ]
    return "\n".join(lines)


def _learnt(reports: Mapping[str, LanguageReport]) -> list[str]:
    rows = []
    for name, report in reports.items():
        stages = {one.stage: one for one in report.quality.stages}
        base, tuned = stages["base"], stages["tuned"]
        counts = " / ".join(f"{report.data.rows[part]:,}" for part in ("train", "validation", "test"))
        rows.append(
            [
                name,
                SETS[name].what,
                counts,
                f"{base.value:.3g}",
                f"{tuned.value:.3g}",
                _accuracy(base),
                _accuracy(tuned),
                _packed(report),
            ]
        )
    head = ["set", "rows of", "train / validation / test", "perplexity of the base", "tuned"]
    return table([*head, "token accuracy of the base", "tuned", "packed"], rows)


def _packed(report: LanguageReport) -> str:
    base, bundle = report.size_bytes.base, report.size_bytes.bundle
    return f"{report.chosen}, {base / bundle:.1f} times smaller" if base and bundle else report.chosen


def _accuracy(stage: AnswerQuality) -> str:
    return "" if stage.token_accuracy is None else f"{100 * stage.token_accuracy:.1f}%"


def _kept(reports: Mapping[str, LanguageReport]) -> list[str]:
    rows = [
        [
            name,
            one.scheme,
            f"{100 * one.agreement:.1f}%",
            f"{one.kl:.4f}",
            f"{100 * one.rise:+.1f}%",
            f"{one.size_bytes / 1e6:.2f}",
            one.gate,
        ]
        for name, report in reports.items()
        for one in report.candidates
    ]
    head = ["set", "scheme", "top-1 as the tuned model", "KL, nats a token", "rise of perplexity", "graph MB", "gate"]
    return [*table(head, rows), ""]


if __name__ == "__main__":
    main()
