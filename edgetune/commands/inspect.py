"""`edgetune inspect`: what a bundle is and what it was measured to do. Opens no graph."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from edgetune.commands.options import json_option, print_json
from edgetune.serve.bundle import REPORT_NAME, Bundle
from edgetune.serve.report import Report


@click.command(name="inspect")
@click.argument("bundle", type=click.Path(path_type=Path))
@json_option
def command(bundle: Path, as_json: bool) -> None:
    """Show a bundle's manifest and the verdict of its report, after a check of all sizes and digests.

    \b
    Example:
      edgetune inspect bundles/x
      edgetune inspect bundles/x --json | jq .report.quality
    """
    opened = Bundle.open(bundle)
    path = bundle / REPORT_NAME
    report = Report.load(path) if path.is_file() else None
    if as_json:
        print_json(
            {
                "manifest": msgspec.to_builtins(opened.manifest),
                "report": msgspec.to_builtins(report) if report else None,
            }
        )
        return
    for name, value in _facts(opened):
        click.echo(f"{name:<12}{value}")
    if report:
        click.echo(f"\n{report.verdict}\n\nThe whole report: {bundle / 'report.html'}")


def _facts(bundle: Bundle) -> list[tuple[str, str]]:
    manifest = bundle.manifest
    labels = ", ".join(manifest.labels[:8]) + (", ..." if len(manifest.labels) > 8 else "")
    dtypes = ", ".join(
        f"{100 * share:.0f}% {name.lower()}" for name, share in manifest.dtypes.items() if share >= 0.005
    )
    inputs = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in manifest.inputs)
    outputs = ", ".join(f"{spec.name} {spec.dtype} {spec.shape}" for spec in manifest.outputs)
    return [
        ("name", manifest.name),
        ("task", manifest.task),
        ("labels", f"{len(manifest.labels)}: {labels}"),
        ("scheme", f"{manifest.scheme} for {manifest.provider} ({dtypes})"),
        ("size", f"{bundle.size_bytes:,} bytes in {len(manifest.files) + 1} files"),
        ("inputs", f"{inputs}, at most {manifest.max_tokens} tokens"),
        ("outputs", outputs),
        ("base", f"{manifest.base.id} ({manifest.base.digest[:19]}...)"),
        ("data", f"{manifest.data_digest[:19]}..."),
        ("created", f"{manifest.created} by edgetune {manifest.versions.get('edgetune', '?')}"),
    ]
