"""`edgetune verify`: are the bundle's bytes those that were packed, and does it answer here as it did there?

Bytes are compared here, and answers given in a process of its own: a bundle may hold what never ends.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgetune.commands.options import json_option, print_json
from edgetune.escaping import escaped
from edgetune.serve.bundle import SIGNATURE_NAME

if TYPE_CHECKING:
    from edgetune.serve.bundle import Bundle
    from edgetune.serve.proving import Proof


@click.command(name="verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--prove-seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds for it to give its golden answers.",
    show_default="120, and 1 for each 16 MiB",
)
@click.option(
    "--key",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Public key in PEM whose owner must have signed all files.",
    show_default="no signature is asked for",
)
@json_option
def command(bundle: Path, prove_seconds: float | None, key: Path | None, as_json: bool) -> None:
    """Check sizes and digests of all files of a bundle, then replay its golden answers on this machine.

    Files in its folder that the manifest does not list are named; nothing reads them. A bundle that does not give its
    golden answers in time, or asks for memory out of all proportion, is refused.

    \b
    Example:
      edgetune verify bundles/x
      edgetune verify bundles/x --key key.pub
    """
    from edgetune.serve.bundle import Bundle
    from edgetune.serve.proving import prove

    if key is not None:
        from edgetune.serve.signing import verify_signature

        verify_signature(bundle, key)  # before anything of it is parsed
    opened = Bundle.open(bundle)
    _print(opened, prove(opened, seconds=prove_seconds), key, as_json=as_json)


def _print(bundle: Bundle, proof: Proof, key: Path | None, *, as_json: bool) -> None:
    files, strangers, several = len(bundle.manifest.files), bundle.strangers(), len(proof.replays) > 1
    if as_json:
        golden = {scheme: asdict(replay) for scheme, replay in proof.replays.items()}
        facts = {"bundle": str(bundle.folder), "files": files, "size_bytes": bundle.size_bytes, "strangers": strangers}
        facts["signed_by"] = None if key is None else str(key)
        print_json({**facts, "golden": golden[proof.variant], "variants": golden if several else {}})
        return
    click.echo(f"{files} files have the sizes and digests that were packed ({bundle.size_bytes:,} bytes).")
    if key is not None:
        click.echo(f"All of them are signed by the owner of {escaped(str(key))}.")
    elif (bundle.folder / SIGNATURE_NAME).is_file():
        click.echo(f"Whose signature {SIGNATURE_NAME} is was not checked: give the public key with --key.")
    if strangers:
        click.echo(f"No part of the bundle, and never read: {', '.join(map(repr, strangers))}.")
    for scheme, replay in proof.replays.items():
        of = f" of {escaped(scheme)}" if several else ""
        click.echo(
            f"{replay.cases} golden answers{of} replayed: logits within {replay.max_abs_diff:.2g} "
            f"(allowed {replay.tolerance:.2g})."
        )
    if several:
        click.echo(f"Here answers {escaped(proof.reason)}")
