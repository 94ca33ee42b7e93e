"""`edgetune target setup`: what a build needs to prove a bundle for processors of another architecture."""

from __future__ import annotations

import click

from edgetune.commands.options import json_option, print_json
from edgetune.serve.targets import ARM, TARGETS

EPILOG = """\b
Example:
  edgetune target setup arm64
"""


@click.group("target")
def command() -> None:
    """Set up what proves bundles for processors that are not at hand."""


@command.command("setup", epilog=EPILOG)
@click.argument("isa", type=click.Choice([one.name for one in TARGETS.values() if one.architecture == ARM]))
@json_option
def setup(isa: str, as_json: bool) -> None:
    """Fetch a Python and the runtime's wheels for Arm into a cache, once for all of Arm's classes.

    Takes apt's packages and pip's wheels, 60 MB to fetch and 300 MB unpacked, and installs nothing. The folder is
    ~/.cache/edgetune/targets, or what EDGETUNE_TARGETS names. `edgetune doctor` says what is there.
    """
    from edgetune.benchmarks.targets.emulation import prover_of
    from edgetune.benchmarks.targets.setup import set_up, try_setup

    root = set_up(lambda line: click.echo(line, err=True))
    tried, prover = try_setup(), prover_of(isa)
    if as_json:
        print_json({"target": isa, "folder": str(root), "proof": prover.proof, "how": prover.reason, "runs": tried})
        return
    click.echo(f"Set up in {root}.")
    click.echo(f"{tried} runs on an emulated processor." if tried else f"{isa} is {prover.proof}: {prover.reason}.")
