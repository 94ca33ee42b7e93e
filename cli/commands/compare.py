"""`edgetune compare`: two models on the same rows, bundles by their reports, or arms of traffic by votes."""

from __future__ import annotations

import importlib.util
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.commands.options import json_option, print_json
from edgetune.escaping import escaped
from edgetune.extras import pip_install
from edgetune.serve.errors import MissingDependency
from edgetune.writing import check_writable, write_text

if TYPE_CHECKING:
    from edgetune.benchmarks.compare.comparison import Compared
    from edgetune.benchmarks.compare.sequential import SequentialVerdict
    from edgetune.serve.json_types import JsonObject

FILE = click.Path(path_type=Path, dir_okay=False)
REQUIRED = ("better", "not-worse")
NOT_MET = 3


@click.command(name="compare")
@click.argument("models", nargs=-1, metavar="A B...")
@click.option("--data", type=click.Path(path_type=Path), help="Labelled rows that both answer; a file or folder.")
@click.option("--set", "settings", multiple=True, metavar="data.KEY=VALUE", help="How the rows are read; repeatable.")
@click.option("--task", default="", help="Task to compare, of bundles of several.")
@click.option("--metric", default="", help="Metric that gives the verdict.", show_default="the task's own")
@click.option("--rows", type=click.IntRange(min=2), default=2_000, help="Rows at most; more are drawn by the seed.")
@click.option(
    "--confidence", type=click.FloatRange(0.5, 0.9999), default=0.95, help="Confidence of the paired interval."
)
@click.option("--calls", type=click.IntRange(min=0), default=200, help="Timed calls of each side; 0 times nothing.")
@click.option("--seed", type=int, default=0, help="Seed of drawn rows and bootstraps.")
@click.option("--api-key-env", metavar="NAME", help="Environment variable with the key of an address.")
@click.option("--require", type=click.Choice(REQUIRED), help="Exit with 3 unless B is proven better, or not worse.")
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0, max=1),
    default=0.01,
    help="Loss that still counts as not worse: of a score 0.01 is a point, of an error one percent.",
)
@click.option("--judge", default="", help="Reward bundle, or address of a judge model, for generated answers.")
@click.option("--max-tokens", type=click.IntRange(min=1), default=128, help="Tokens of a generated answer at most.")
@click.option("--votes", type=click.Path(path_type=Path), multiple=True, help="File or folder of votes; repeatable.")
@click.option("--control", default="", help="Arm that the others are held against.", show_default="the first vote's")
@click.option("--html", type=FILE, help="Write the comparison to an HTML page.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    models: tuple[str, ...],
    data: Path | None,
    settings: tuple[str, ...],
    task: str,
    metric: str,
    rows: int,
    confidence: float,
    calls: int,
    seed: int,
    api_key_env: str | None,
    require: str | None,
    max_drop: float,
    judge: str,
    max_tokens: int,
    votes: tuple[Path, ...],
    control: str,
    html: Path | None,
    as_json: bool,
) -> None:
    """Compare A and B on the same labelled rows: a paired verdict, agreement, speed and size.

    A and B are bundles; one of them may be an address, http://HOST:PORT/v1/models/NAME (OpenAI's routes) or
    http://HOST:PORT/v2/models/NAME (Open Inference Protocol). Without --data, bundles of the same data are put side by
    side by their own reports. With --votes, arms of live traffic are judged by a test that may be looked at any time.

    \b
    Example:
      edgetune compare bundles/old bundles/new --data test.csv
      edgetune compare bundles/old bundles/new --data test.csv --require not-worse --html compare.html
      edgetune compare bundles/x http://127.0.0.1:8080/v2/models/x --data test.csv --set data.label=intent
      edgetune compare bundles/talk-a bundles/talk-b --data chats.jsonl --judge bundles/reward
      edgetune compare bundles/a bundles/b bundles/c
      edgetune compare --votes feedback/ --control a
    """
    check_writable(html, option="--html")
    if votes:
        if models or data:
            raise click.UsageError("--votes judges arms of traffic: leave A, B and --data away.")
        _print_votes(votes, control, 1 - confidence, as_json=as_json)
        return
    if len(models) < 2 or (data and len(models) > 2):
        raise click.UsageError("Name two sides, A and B, or more bundles without --data.")
    if data is None:
        _print_reports(models, as_json=as_json)
        return
    _require_extra()
    from edgetune.api.comparison import judge_on_rows
    from edgetune.benchmarks.compare.address import key_of
    from edgetune.benchmarks.compare.comparison import ComparisonRequest
    from edgetune.benchmarks.compare.generation import Judging
    from edgetune.commands.measure import StandardError

    request = ComparisonRequest(task, metric, rows, seed, confidence, calls, key_of(api_key_env))
    values = _values(data, settings)
    compared = judge_on_rows((models[0], models[1]), values, request, Judging(judge, max_tokens), StandardError())
    if html is not None:
        from edgetune.benchmarks.compare.page import comparison_page

        write_text(html, comparison_page(compared), option="--html")
    if as_json:
        print_json(compared.as_json())
    else:
        _print(compared)
    met = {"better": compared.gain.outcome == "better", "not-worse": compared.gain.is_not_worse(max_drop)}
    if require is not None and not met[require]:
        click.echo(f"B is not proven {require.replace('-', ' ')}.", err=True)
        ctx.exit(NOT_MET)


def _require_extra() -> None:
    """Check for what judging needs beside the floor.

    Raises:
        MissingDependency: with the pip command.
    """
    missing = [name for name in ("pydantic", "scipy", "yaml") if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingDependency(
            f"Comparing on rows needs packages that are not installed: {', '.join(missing)}.",
            action=pip_install("compare"),
        )


def _values(data: Path, settings: tuple[str, ...]) -> JsonObject:
    """The values of the data section that the options give.

    Raises:
        RecipeError: a setting is of another section.
    """
    from edgetune.recipe import parse_settings, recipe_values
    from edgetune.serve.errors import RecipeError

    values = recipe_values(None, {"data.path": str(data), **parse_settings(settings)})
    if others := sorted(values.keys() - {"data"}):
        raise RecipeError(f"--set gives values of {', '.join(others)}.", expected="keys of the data section alone")
    section: JsonObject = values["data"]
    return section


def _print(compared: Compared) -> None:
    from edgetune.benchmarks.compare.page import fact_cells, metric_cells, remarks

    for side, name in (("A", compared.a), ("B", compared.b)):
        click.echo(escaped(f"{side}  {name}"))
    click.echo()
    _print_table([["", "A", "B", "gain", "interval"], *map(metric_cells, compared.gains)])
    _print_table([["", "A", "B", ""], *fact_cells(compared)])
    for remark in remarks(compared):
        click.echo(escaped(remark))
    click.echo()
    click.echo(escaped(compared.verdict))


def _print_table(rows: list[list[str]]) -> None:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    for row in rows:
        cells = [
            f"{row[0]:<{widths[0]}}",
            *(f"{cell:>{width}}" for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        click.echo(escaped("  ".join(cells)).rstrip())
    click.echo()


def _print_reports(models: tuple[str, ...], *, as_json: bool) -> None:
    """Bundles side by side, by their reports."""
    from edgetune.api.comparison import compare

    comparison = compare(list(models))
    if as_json:
        bundles = [{**asdict(bundle), "folder": str(bundle.folder)} for bundle in comparison.bundles]
        print_json({**asdict(comparison), "bundles": bundles})
        return
    names = list(dict.fromkeys(name for bundle in comparison.bundles for name in bundle.figures))
    rows = [["", *(str(bundle.folder) for bundle in comparison.bundles)]]
    rows += [[name, *(bundle.figures.get(name, "") for bundle in comparison.bundles)] for name in names]
    _print_table(rows)
    click.echo(f"Measured on the same {comparison.test_rows:,} test rows. {comparison.remark}".rstrip())


def _print_votes(paths: tuple[Path, ...], control: str, alpha: float, *, as_json: bool) -> None:
    """The sequential verdict on each arm against the control."""
    from edgetune.benchmarks.compare.votes import judge_votes, read_votes

    votes = read_votes(paths)
    verdicts = judge_votes(votes, control, alpha)
    if as_json:
        print_json({"skipped": votes.skipped, "verdicts": [asdict(verdict) for verdict in verdicts]})
        return
    for verdict in verdicts:
        click.echo(escaped(_sentence(verdict)))
    for finding in votes.findings:
        click.echo(escaped(finding), err=True)


def _sentence(verdict: SequentialVerdict) -> str:
    arms = [
        f"{arm.name}: {arm.good:,} good of {arm.outcomes:,}" + ("" if arm.rate is None else f" ({100 * arm.rate:.1f}%)")
        for arm in (verdict.control, verdict.arm)
    ]
    low, high = (f"{100 * end:+.1f}" for end in verdict.interval)
    found = (
        f"{verdict.winner} is the winner, since vote {verdict.decided_at:,}"
        if verdict.winner is not None and verdict.decided_at is not None
        else f"no winner yet (evidence {verdict.wealth:.3g} of {verdict.needed:.3g})"
    )
    return f"{'; '.join(arms)}; difference {low} to {high} points. {found[0].upper()}{found[1:]}."
