"""`edgetune join`: several bundles of virtual tokens over one graph as one bundle. Needs the floor, and no torch."""

from __future__ import annotations

from pathlib import Path

import click

from edgetune.commands.options import json_option, print_json

EPILOG = """\b
Example:
  edgetune join legal=bundles/legal medical=bundles/medical --out bundles/desk
  edgetune predict bundles/desk "is this covered?" --adapter medical
"""


@click.command(name="join", epilog=EPILOG)
@click.argument("bundles", nargs=-1, required=True, metavar="NAME=BUNDLE...")
@click.option(
    "-o",
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder of the bundle to write.",
)
@json_option
def command(bundles: tuple[str, ...], out: Path, as_json: bool) -> None:
    """Join language models that differ in their virtual tokens alone: one graph, and each request names who answers.

    Each BUNDLE was tuned by the method prompt, p-tuning or prefix, and all but the first took its graph, by --set
    compress.graph_of=BUNDLE, so that the gate judged it with their own virtual tokens. The first NAME answers where a
    request names none. Golden answers of all are replayed before anything is written.
    """
    from edgetune.export.stepwise.joining import join_bundles

    named: dict[str, Path] = {}
    for text in bundles:
        name, separator, path = text.partition("=")
        if not (separator and name and path):
            raise click.UsageError(f"{text!r} is no pair; expected NAME=BUNDLE, such as legal=bundles/legal.")
        if name in named:
            raise click.UsageError(f"The name {name!r} is given twice.")
        named[name] = Path(path)
    joined = join_bundles(named, out)
    if as_json:
        print_json({"bundle": str(out), "adapters": list(named), "bytes": joined.size_bytes})
        return
    click.echo(f"{len(named)} adapters over one graph in {out}, {joined.size_bytes:,} bytes: {', '.join(named)}.")
    click.echo(f"{next(iter(named))} answers where a request names none; golden answers of all were replayed.")
