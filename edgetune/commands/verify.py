"""`edgetune verify`: are the bundle's bytes those that were packed, and does it answer here as it did there?"""

from __future__ import annotations

from pathlib import Path

import click

from edgetune.commands.options import json_option, print_json


@click.command(name="verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Check sizes and digests of all files of a bundle, then replay its golden answers on this machine.

    \b
    Example:
      edgetune verify bundles/x
    """
    from edgetune.serve.golden import replay_golden
    from edgetune.serve.loading import load

    predictor = load(bundle)
    replay = replay_golden(predictor)
    files = len(predictor.bundle.manifest.files)
    if as_json:
        print_json(
            {
                "bundle": str(bundle),
                "files": files,
                "size_bytes": predictor.bundle.size_bytes,
                "golden": {
                    "cases": replay.cases,
                    "max_abs_diff": replay.max_abs_diff,
                    "tolerance": replay.tolerance,
                },
            }
        )
        return
    click.echo(f"{files} files have the sizes and digests that were packed ({predictor.bundle.size_bytes:,} bytes).")
    click.echo(
        f"{replay.cases} golden answers replayed: logits within {replay.max_abs_diff:.2g} "
        f"(allowed {replay.tolerance:.2g})."
    )
