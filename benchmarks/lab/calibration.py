"""Calibration and abstention of finished bundles: ECE before and after, coverage by max_error, texts out of scope.

    python -m benchmarks.lab.calibration BUNDLE... [--out-of-scope FILE] [--markdown FILE]

Each bundle lies beside its work folder, whose data set has the validation and test parts. It is answered one text a
run; temperature and thresholds are settled again as the bench stage does. One thread; times are not measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click
import msgspec

from edgetune.benchmarks.answer_recipe import AnswerRecipe
from edgetune.benchmarks.prove.calibration import Scored
from edgetune.benchmarks.prove.confidence import OutsideAnswers, settle_head
from edgetune.serve.loading import load
from edgetune.serve.report_confidence import Abstention, AnsweredRows, Calibration
from edgetune.tune.data.dataset import Dataset, Part
from edgetune.tune.data.out_of_scope import OutOfScope
from edgetune.tune.tasks import TASKS

MAX_ERRORS = (0.01, 0.02, 0.05)
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Figures:
    """What is shown of a bundle: its calibration, and what is answered by each rule."""

    name: str
    calibration: Calibration
    rules: dict[str, Abstention]


def measure(folder: Path, outside: Path | None, seed: int) -> Figures:
    """Answer the parts of a bundle's data set and settle its head by each rule."""
    dataset, predictor = Dataset.open(folder.with_name(f"{folder.name}.work") / "data"), load(folder, threads=1)
    manifest = predictor.bundle.manifest
    objective = TASKS[manifest.task].objective(dataset.labels, "", dataset.train.targets)
    head = msgspec.structs.replace(manifest.answer_heads[0], temperature=1.0, abstain_below=None)

    def scored(part: Part) -> Scored:
        logits = predictor.logits(predictor.encode(part.texts), batch_size=1)
        return Scored(logits, objective.expected(part.targets))

    validation, test, texts = scored(dataset.validation), scored(dataset.test), None
    if outside is not None:
        lines = tuple(dict.fromkeys(line for line in outside.read_text("utf-8").split("\n") if line.strip()))
        halves = OutOfScope(lines, outside.name, ()).halves(seed)
        choosing, reporting = (predictor.logits(predictor.encode(half), batch_size=1) for half in halves)
        texts = OutsideAnswers(outside.name, choosing, reporting)
    plain = settle_head(head, validation, None, AnswerRecipe(), CONFIDENCE, seed)
    if plain is None:
        raise click.ClickException(f"The answers of {folder} have no probabilities.")
    rules = {f"max_error {limit:g}": (AnswerRecipe(max_error=limit), None) for limit in MAX_ERRORS}
    chosen = {**rules, **({"out_of_scope": (AnswerRecipe(), texts)} if texts else {})}
    told = {}
    for rule, (recipe, others) in chosen.items():
        settled = settle_head(head, validation, others, recipe, CONFIDENCE, seed)
        abstention = settled.abstention(test) if settled else None
        if abstention is not None:
            told[rule] = abstention
    return Figures(folder.name, plain.calibration(test), told)


def page(figures: list[Figures]) -> str:
    """The figures as Markdown tables."""
    lines = [
        "| bundle | test rows | temperature | ECE before | after | by chance | NLL before | after | Brier | after |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in figures:
        c = one.calibration
        cells = (
            f"{c.temperature:.3f}",
            *(f"{100 * value:.2f}%" for value in (c.before.ece_equal_mass, c.after.ece_equal_mass, c.ece_by_chance)),
            *(f"{value:.4f}" for value in (c.before.nll, c.after.nll, c.before.brier, c.after.brier)),
        )
        lines.append(f"| {one.name} | {c.n:,} | {' | '.join(cells)} |")
    lines += [
        "",
        "| bundle | rule | unsure below | coverage | wrong of those | 95% interval | out of scope unsure | AUROC |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {one.name} | {rule} | {_row(told)} |" for one in figures for rule, told in one.rules.items()]
    return "\n".join([*lines, ""])


def _row(told: Abstention) -> str:
    if told.abstain_below is None:
        return "no threshold holds | | | | | "
    outside = told.out_of_scope
    beside = ("", "") if outside is None else (f"{100 * (outside.unsure or 0):.1f}%", f"{outside.auroc:.4f}")
    return " | ".join([f"{told.abstain_below:g}", *_answered(told.test), *beside])


def _answered(test: AnsweredRows) -> tuple[str, str, str]:
    low, high = test.error_ci95 or (0.0, 1.0)
    error = "" if test.error is None else f"{100 * test.error:.2f}%"
    return f"{100 * test.coverage:.1f}%", error, f"{100 * low:.2f} to {100 * high:.2f}%"


@click.command()
@click.argument("bundles", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out-of-scope", "outside", type=click.Path(path_type=Path), help="File of texts of no class, one a line."
)
@click.option("--seed", default=0, help="Of folds, pilot rows and halves.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File that the tables are written to.")
def main(bundles: tuple[Path, ...], outside: Path | None, seed: int, markdown: Path | None) -> None:
    """Print how far the probabilities of finished bundles hold, and what they answer."""
    text = page([measure(folder, outside, seed) for folder in bundles])
    click.echo(text)
    if markdown is not None:
        markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
