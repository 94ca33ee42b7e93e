"""`edgetune verify`: are the bundle's bytes those that were packed, and does it answer here as it did there?"""

from __future__ import annotations

from dataclasses import asdict
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
    replays = {predictor.variant: replay_golden(predictor)}
    # Each graph that the bundle holds, since the loader may take another one elsewhere.
    for one in predictor.bundle.manifest.variants:
        if one.scheme not in replays and one.provider == predictor.bundle.manifest.provider:
            replays[one.scheme] = replay_golden(load(bundle, variant=one.scheme, verify=False))
    files = len(predictor.bundle.manifest.files)
    if as_json:
        told = {scheme: asdict(replay) for scheme, replay in replays.items()}
        facts = {"bundle": str(bundle), "files": files, "size_bytes": predictor.bundle.size_bytes}
        print_json({**facts, "golden": told[predictor.variant], "variants": told if len(told) > 1 else {}})
        return
    click.echo(f"{files} files have the sizes and digests that were packed ({predictor.bundle.size_bytes:,} bytes).")
    for scheme, replay in replays.items():
        of = f" of {scheme}" if len(replays) > 1 else ""
        click.echo(
            f"{replay.cases} golden answers{of} replayed: logits within {replay.max_abs_diff:.2g} "
            f"(allowed {replay.tolerance:.2g})."
        )
    if len(replays) > 1:
        click.echo(f"Here answers {predictor.variant_reason}")
