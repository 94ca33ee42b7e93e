"""`edgetune verify`: are the bundle's bytes those that were packed, and does it answer here as it did there?"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.commands.options import json_option, print_json
from edgetune.escaping import escaped

if TYPE_CHECKING:
    from edgetune.serve.bundle import Bundle
    from edgetune.serve.golden import Replay


@click.command(name="verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Check sizes and digests of all files of a bundle, then replay its golden answers on this machine.

    Files in its folder that the manifest does not list are named; nothing reads them.

    \b
    Example:
      edgetune verify bundles/x
    """
    from edgetune.serve.bundle import Bundle
    from edgetune.serve.golden import replay_golden
    from edgetune.serve.loading import load

    opened = Bundle.open(bundle)
    if opened.manifest.generation is not None:
        from edgetune.serve.stepwise.generator import Generator
        from edgetune.serve.stepwise.golden import read_golden, replay

        by_scheme = {opened.manifest.scheme: replay(Generator.open(bundle), read_golden(opened))}
        _tell(opened, by_scheme, opened.manifest.scheme, as_json=as_json)
        return
    predictor = load(bundle)
    replays = {predictor.variant: replay_golden(predictor)}
    # Each graph that the bundle holds, since the loader may take another one elsewhere.
    for one in predictor.bundle.manifest.variants:
        if one.scheme not in replays and one.provider == predictor.bundle.manifest.provider:
            replays[one.scheme] = replay_golden(load(bundle, variant=one.scheme, verify=False))
    _tell(predictor.bundle, replays, predictor.variant, as_json=as_json)
    if len(replays) > 1 and not as_json:
        click.echo(f"Here answers {escaped(predictor.variant_reason)}")


def _tell(bundle: Bundle, replays: dict[str, Replay], variant: str, *, as_json: bool) -> None:
    files, strangers = len(bundle.manifest.files), bundle.strangers()
    if as_json:
        golden = {scheme: asdict(replay) for scheme, replay in replays.items()}
        facts = {"bundle": str(bundle.folder), "files": files, "size_bytes": bundle.size_bytes, "strangers": strangers}
        print_json({**facts, "golden": golden[variant], "variants": golden if len(golden) > 1 else {}})
        return
    click.echo(f"{files} files have the sizes and digests that were packed ({bundle.size_bytes:,} bytes).")
    if strangers:
        click.echo(f"No part of the bundle, and never read: {', '.join(map(repr, strangers))}.")
    for scheme, replay in replays.items():
        of = f" of {escaped(scheme)}" if len(replays) > 1 else ""
        click.echo(
            f"{replay.cases} golden answers{of} replayed: logits within {replay.max_abs_diff:.2g} "
            f"(allowed {replay.tolerance:.2g})."
        )
