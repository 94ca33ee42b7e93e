"""`edgetune check`: a bundle against a budget, for continuous integration. Needs the floor only, no ONNX Runtime."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.commands.options import json_option, print_json
from edgetune.escaping import escaped
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleError
from edgetune.serve.stepwise.report import report_of
from edgetune.writing import check_writable, write_text

if TYPE_CHECKING:
    from edgetune.benchmarks.measure.budget import Checked, Evidence

NOT_MET = 3


@click.command(name="check")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--budget",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of limits, a line each: `p90_ms: 5`.",
)
@click.option(
    "--measured",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of edgetune measure, whose times and memory are held against the budget.",
    show_default="the build's own report",
)
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="Older bundle: `drop` is then the loss of the metric against it.",
    show_default="the tuned model",
)
@click.option("--junit", type=click.Path(path_type=Path, dir_okay=False), help="Write the verdicts to a JUnit file.")
@click.option(
    "--markdown", type=click.Path(path_type=Path, dir_okay=False), help="Write a summary for a pull request to a file."
)
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    budget: Path,
    measured: Path | None,
    against: Path | None,
    junit: Path | None,
    markdown: Path | None,
    as_json: bool,
) -> None:
    """Hold BUNDLE against a budget: exit code 0 where all of it is met, 3 where any of it is not.

    Limits are size_mb, p50_ms, p90_ms, cold_start_ms, rss_mb, slower, metric, drop, and of language models
    first_token_ms and tokens_per_second. What was not measured, or on a machine too busy for times, is not met.

    \b
    Example:
      edgetune check bundles/x --budget budget.yaml --measured measure.json
      edgetune check bundles/x --budget budget.yaml --against bundles/old --junit check.xml --markdown check.md
    """
    from edgetune.benchmarks.measure.budget import as_markdown, check, read_budget
    from edgetune.benchmarks.measure.junit import junit as junit_text

    for path, option in ((junit, "--junit"), (markdown, "--markdown")):
        check_writable(path, option=option)
    limits = read_budget(budget)
    opened = Bundle.open(bundle)
    checks = check(limits, _evidence(opened, measured, against))
    name, met = opened.manifest.name, all(one.met for one in checks)
    if junit is not None:
        write_text(junit, junit_text(name, checks), option="--junit")
    if markdown is not None:
        write_text(markdown, as_markdown(name, checks), option="--markdown")
    if as_json:
        print_json({"bundle": str(bundle), "met": met, "limits": [dataclasses.asdict(one) for one in checks]})
    else:
        _print(checks)
    if not met:
        ctx.exit(NOT_MET)


def _evidence(bundle: Bundle, measured: Path | None, against: Path | None) -> Evidence:
    """What is known of the bundle.

    Raises:
        BundleError: the measurement is of another bundle, or the older bundle has no report.
    """
    from edgetune.benchmarks.measure.budget import Evidence
    from edgetune.benchmarks.measure.figures import of_measurement, of_report
    from edgetune.benchmarks.measure.measurement import Measurement

    report = report_of(bundle)
    machine, source = (of_report(report) if report else None), "the build's report"
    if measured is not None:
        measurement = Measurement.load(measured)
        measurement.require(bundle, measured)
        machine, source = of_measurement(measurement), f"{measured.name}, {measurement.machine.cpu}"
    older = None if against is None else report_of(Bundle.open(against))
    if against is not None and older is None:
        raise BundleError(f"The older bundle {against} has no report.", expected="a bundle as edgetune build leaves it")
    return Evidence(bundle.size_bytes, machine, source, report, older)


def _print(checks: list[Checked]) -> None:
    width = max(len(one.name) for one in checks) + 2
    for one in checks:
        figure = "not measured" if one.figure is None else f"{one.figure:.4g}"
        verdict = "met" if one.met else "NOT MET"
        click.echo(f"{one.name:<{width}}{verdict:<9}{figure:>12}  of {one.limit:g}, {escaped(one.source)}")
        if one.remark:
            click.echo(f"{'':<{width}}{escaped(one.remark)}")
