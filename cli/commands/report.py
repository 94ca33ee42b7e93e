"""`edgetune report`: a bundle on every machine that it was measured on, as one page. Needs the floor only."""

from __future__ import annotations

from pathlib import Path

import click

from edgetune.commands.options import json_option, print_json
from edgetune.escaping import escaped
from edgetune.serve.bundle import Bundle
from edgetune.serve.stepwise.report import report_of
from edgetune.writing import check_writable, write_text


@click.command(name="report")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("measured", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("measured.html"),
    show_default=True,
    help="HTML page to write.",
)
@json_option
def command(bundle: Path, measured: tuple[Path, ...], output: Path, as_json: bool) -> None:
    """Join the report of BUNDLE's build and files of edgetune measure in one HTML page.

    A column for each machine, the one that built it first, then what each machine showed. Measurements of another
    bundle are refused.

    \b
    Example:
      edgetune report bundles/x measure-board.json measure-server.json -o page.html
    """
    from edgetune.benchmarks.measure.measurement import Measurement
    from edgetune.benchmarks.measure.page import measured_page

    check_writable(output, option="--output")
    opened = Bundle.open(bundle)
    measurements = [Measurement.load(path) for path in measured]
    for path, measurement in zip(measured, measurements, strict=True):
        measurement.require(opened, path)
    write_text(output, measured_page(measurements, report_of(opened)), option="--output")
    if as_json:
        print_json({"page": str(output), "measurements": [str(path) for path in measured]})
    click.echo(escaped(f"Written to {output}."), err=True)
