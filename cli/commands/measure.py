"""`edgetune measure`: a bundle's answers, times, memory and cold start on this machine. Needs the floor only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.commands.options import json_option, print_json
from edgetune.escaping import escaped
from edgetune.serve.bundle import Bundle, RuntimeSettings
from edgetune.serve.errors import InputError, WorkError
from edgetune.writing import check_writable, write_text

if TYPE_CHECKING:
    from edgetune.benchmarks.measure.measure import MeasureOptions
    from edgetune.benchmarks.measure.measurement import Measurement
    from edgetune.tune.data.rows import Input

# Inputs of a file that are taken at most: the first ones would do, but a sorted file begins with its shortest.
MOST_INPUTS = 2_000


@click.command(name="measure")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--texts",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File of inputs to time, as predict --input takes it.",
    show_default="inputs as long as the data's, which the bundle carries",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0, max=600),
    help="Minutes of calls without a pause, to see whether warmth slows them.",
    show_default="10 seconds",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1, max=1024),
    help="Threads per inference run.",
    show_default="the bundle's own",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write the measurement to a JSON file.")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write the figures to an HTML page.")
@click.option(
    "--keep-threads",
    is_flag=True,
    help="Keep the fastest threads in BUNDLE.runtime.json, which every opening on this class of machine reads.",
)
@json_option
def command(
    bundle: Path,
    texts: Path | None,
    minutes: float | None,
    threads: int | None,
    output: Path | None,
    html: Path | None,
    keep_threads: bool,
    as_json: bool,
) -> None:
    """Measure BUNDLE on this machine, in under a minute.

    The golden answers are replayed first, and nothing is timed where they differ. Then single calls, threads in turn,
    throughput by size of batch, peak memory, cold start in fresh processes, and calls without a pause. Where the
    machine was too busy for times to mean anything, that is said.

    \b
    Example:
      edgetune measure bundles/x
      edgetune measure bundles/x --texts messages.csv --output measure.json
      edgetune measure bundles/x --minutes 1 --html measure.html --keep-threads
    """
    from edgetune.benchmarks.measure.measure import DRIFT_SECONDS, MeasureOptions

    for path, option in ((output, "--output"), (html, "--html")):
        check_writable(path, option=option)
    if keep_threads and threads is not None:
        raise click.UsageError("--keep-threads keeps the fastest of all threads: leave --threads away.")
    opened = Bundle.open(bundle)
    options = MeasureOptions(
        drift_seconds=DRIFT_SECONDS if minutes is None else 60 * minutes,
        threads=threads,
        given=None if texts is None else _given(opened, texts),
    )
    measurement = _measured(opened, options)
    if output is not None:
        write_text(output, measurement.to_json().decode(), option="--output")
    if html is not None:
        from edgetune.benchmarks.measure.page import measured_page

        write_text(html, measured_page([measurement], None), option="--html")
    kept = _keep(opened, measurement) if keep_threads else ""
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(measurement))
    else:
        _print(measurement)
    for sentence in filter(None, [kept, *(f"Written to {path}." for path in (output, html) if path is not None)]):
        click.echo(escaped(sentence), err=True)


def _measured(bundle: Bundle, options: MeasureOptions) -> Measurement:
    from edgetune.benchmarks.measure.measure import measure

    if bundle.manifest.generation is None:
        return measure(bundle, options, StandardError())
    from edgetune.benchmarks.measure.decoder import measure_decoder
    from edgetune.serve.bundle import TOKENIZER_NAME
    from edgetune.serve.stepwise.codec import TokenCodec

    codec = TokenCodec(bundle.folder / TOKENIZER_NAME)
    tokens = None if options.given is None else [len(codec.encode(str(text))) for text in options.given]
    return measure_decoder(bundle, options, tokens, StandardError())


def _given(bundle: Bundle, file: Path) -> list[Input]:
    """The inputs of a file, spread evenly over it; blank ones are left out.

    Raises:
        InputError: it cannot be read, or holds none.
    """
    from edgetune.commands.bundle_inputs import bundle_inputs, column_request
    from edgetune.commands.texts import Source
    from edgetune.tune.data.dialect import FileOptions

    source = Source((), str(file), FileOptions(), column_request(bundle.manifest, ()))
    rows = [parts for parts in bundle_inputs(bundle.manifest, source) if "".join(parts).strip()]
    if not rows:
        raise InputError(f"{file} has no input that is not blank.", expected="a text a row", action="name another file")
    step = max(1, len(rows) // MOST_INPUTS)
    return [parts if len(parts) > 1 else parts[0] for parts in rows[::step][:MOST_INPUTS]]


def _keep(bundle: Bundle, measurement: Measurement) -> str:
    """Keep the fastest settings beside the bundle; a sentence that says so, or why not.

    Raises:
        WorkError: the file cannot be written.
    """
    from edgetune.serve.kept_settings import keep_settings, settings_path

    best = measurement.best
    if best is None:
        return f"No threads were kept: {measurement.timing_remark or 'there was nothing to choose from'}"
    machine = measurement.machine
    settings = RuntimeSettings(threads=best.threads, spinning=best.spinning, cpu=machine.cpu, cores=machine.cores)
    try:
        path = keep_settings(bundle, measurement.bundle.variant, settings)
    except OSError as error:
        raise WorkError(
            f"{settings_path(bundle.folder)} cannot be written: {error.strerror or error}.",
            expected="a folder beside the bundle that this user may write to",
            action="leave --keep-threads away, and give load() the threads",
        ) from error
    return f"{best.threads} threads{'' if best.spinning else ', not spinning,'} are kept in {path}."


def _print(measurement: Measurement) -> None:
    """The figures as a table, then what else there is to say."""
    from edgetune.benchmarks.measure.figures import of_measurement, rows
    from edgetune.benchmarks.measure.page import drift_line, golden_line
    from edgetune.benchmarks.report import charts

    machine = measurement.machine
    click.echo(escaped(f"{measurement.bundle.name} on {machine.cpu}, {', '.join(measurement.providers)}"))
    for scheme, replay in measurement.golden.items():
        line = golden_line(replay.cases, replay.max_abs_diff, replay.tolerance)
        click.echo(escaped(f"golden answers of {scheme}: {line}"))
    click.echo()
    table = rows(of_measurement(measurement))
    for entry in measurement.settings:
        name = f"p50 with {entry.threads} threads{'' if entry.spinning else ', not spinning'}"
        table.append((name, charts.milliseconds(entry.p50_ms)))
    width = max(len(name) for name, _ in table) + 2
    for name, value in table:
        click.echo(f"{name:<{width}}{value:>14}")
    others = measurement.others_cores
    remarks = [drift_line(measurement).replace("°", ""), measurement.timing_remark]
    if others is not None:
        remarks.append(f"Other programs took {others:.1f} of {machine.cores} cores meanwhile.")
    click.echo()
    for remark in filter(None, remarks):
        click.echo(escaped(remark))


class StandardError:
    """Tells on stderr what is being measured; of a terminal the last line is written anew."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._clear = "\r\x1b[K" if self._live else ""

    def say(self, text: str) -> None:
        """A line of its own."""
        click.echo(f"{self._clear}{escaped(text)}", err=True)

    def advance(self, done: int, total: int, note: str = "") -> None:
        """How far a part is, on a terminal."""
        if self._live:
            click.echo(f"{self._clear}{escaped(note)} {done} of {total}", err=True, nl=False)
