"""`edgetune feedback`: the next build's data from what people said about answers, and how far they agree with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from edgetune.commands.options import json_option, print_json
from edgetune.escaping import escaped
from edgetune.feedback.agreement import Agreement, Share, agreement
from edgetune.feedback.rows import KINDS, as_json_lines, rows_of
from edgetune.serve.errors import WorkError
from edgetune.serve.feedback.reading import Feedback, read_feedback
from edgetune.writing import write_text

F = TypeVar("F", bound=Callable[..., Any])

EPILOG = """\b
Example:
  edgetune feedback report feedback
  edgetune feedback export feedback -o corrected.jsonl
"""
EXPORT_EPILOG = """\b
Example:
  edgetune feedback export feedback -o corrected.jsonl
  edgetune feedback export feedback --model talk --kind pairs -o pairs.jsonl
"""
REPORT_EPILOG = """\b
Example:
  edgetune feedback report feedback
  edgetune feedback report feedback --model intents --json
"""
MOST_SHOWN = 20


def _folder_and_model(function: F) -> F:
    """The folder, and whose answers of it."""
    function = click.option("--model", help="Name of the model whose answers count.", show_default="all")(function)
    return click.argument("folder", type=click.Path(path_type=Path))(function)


@click.group("feedback", epilog=EPILOG)
def command() -> None:
    """Use what people said about the answers of `edgetune serve --feedback`."""


@command.command("export", epilog=EXPORT_EPILOG)
@_folder_and_model
@click.option("-o", "--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write.")
@click.option(
    "--kind",
    type=click.Choice(["auto", *KINDS]),
    default="auto",
    help="Rows: labels of a classifier; of a language model pairs (prompt, chosen, rejected), votes (prompt, "
    "completion, label) or answers (prompt, completion).",
)
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@json_option
def export(folder: Path, model: str | None, out: Path, kind: str, force: bool, as_json: bool) -> None:
    """Write rows for the next build, JSON Lines, from FOLDER.

    Labels are corrections, and the model's own where people found them right. Of several people who judged the same,
    most decide; where they are even, the row is left out and counted.
    """
    if out.exists() and not force:
        raise WorkError(
            f"{out} exists already.", expected="a name that is free", action="name another, or pass --force."
        )
    feedback = read_feedback(folder, model)
    made = rows_of(feedback, kind)
    write_text(out, as_json_lines(made.rows), option="-o")
    facts = {"rows": len(made.rows), "disputed": made.disputed, "without_label": made.without_label}
    if as_json:
        print_json({"file": str(out), "kind": made.kind, **facts, "folder": feedback.counts})
        return
    click.echo(f"Wrote {out}: {len(made.rows):,} rows of the kind {made.kind}.")
    if made.disputed:
        click.echo(f"{made.disputed:,} left out: people differ on them.")
    if made.without_label:
        click.echo(f"{made.without_label:,} left out: found wrong, and nobody said what is right.")
    _tell_faults(feedback)


@command.command("report", epilog=REPORT_EPILOG)
@_folder_and_model
@json_option
def report(folder: Path, model: str | None, as_json: bool) -> None:
    """Show how far people agree with the model, by label and by day, with 95% intervals.

    These are shares of the answers that somebody judged. People judge what they notice: of all answers they say little.
    """
    feedback = read_feedback(folder, model)
    found = agreement(feedback)
    if as_json:
        print_json({"folder": feedback.counts, "agreement": found.as_json()})
        return
    click.echo(f"{feedback.answers:,} answers, {feedback.votes:,} votes, {found.all.of:,} answers judged.")
    _tell_faults(feedback)
    _show(found)


def _show(found: Agreement) -> None:
    if found.all.of:
        click.echo(f"People agree with {found.all}.")
    if found.people.of:
        click.echo(f"Of answers with several judges, all agree on {found.people}.")
    if found.first_chosen.of:
        click.echo(f"Of two answers the first was chosen in {found.first_chosen}.")
    for title, group in (("label", found.by_label), ("day", found.by_day), ("bundle", found.by_version)):
        _show_group(title, group)
    for given, meant, count in found.wrong[:MOST_SHOWN]:
        click.echo(f"{count:>6}  answered {escaped(given)}, people say {escaped(meant)}")


def _show_group(title: str, group: dict[str, Share]) -> None:
    if len(group) < 2:
        return
    click.echo(f"By {title}:")
    for name, share in sorted(group.items(), key=lambda item: item[1].interval[0])[:MOST_SHOWN]:
        click.echo(f"  {escaped(name)}: {share}")
    if len(group) > MOST_SHOWN:
        click.echo(f"  and {len(group) - MOST_SHOWN:,} more; --json has all")


def _tell_faults(feedback: Feedback) -> None:
    words = {
        "torn": "torn lines were skipped",
        "without_answer": "votes are on requests that this folder does not have",
        "ambiguous": "votes are on request ids that several requests share",
        "unfit": "votes name an answer that their request does not have",
    }
    for name, sentence in words.items():
        if count := feedback.counts[name]:
            click.echo(f"{count:,} {sentence}.", err=True)
