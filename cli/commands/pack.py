"""`edgetune pack`: a bundle as the folder that another server opens. Needs the floor only, and no ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import click

from edgetune.commands.options import json_option, print_json
from edgetune.export.layouts import (
    LAYOUTS,
    MODEL_LAYOUTS,
    TARGET_LAYOUTS,
    WEIGHTS,
    WEIGHTS_LAYOUTS,
    command_to_run,
    layout_named,
    write_layout,
)
from edgetune.export.layouts.edge import PLATFORMS, PYTHONS, EdgeTarget, here
from edgetune.serve.bundle import Bundle


@click.command(name="pack")
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option(
    "--layout", type=click.Choice(list(LAYOUTS)), help="Layout of the folder, named after what opens it; see --list."
)
@click.option("-o", "--out", type=click.Path(path_type=Path, file_okay=False), help="Folder to write.")
@click.option(
    "--work",
    type=click.Path(path_type=Path, file_okay=False),
    help="Work folder of the build that made BUNDLE; for the layouts hf and gguf.",
    show_default="BUNDLE.work beside it",
)
@click.option(
    "--weights",
    type=click.Choice(WEIGHTS),
    default=WEIGHTS[0],
    show_default=True,
    help="Weights of the layout gguf: the merged model's, or as the bundle has them in 4 or 8 bits.",
)
@click.option(
    "--platform",
    type=click.Choice(list(PLATFORMS)),
    help="Machine that the layout edge is for.",
    show_default="one like this",
)
@click.option("--python", type=click.Choice(PYTHONS), help="Its Python.", show_default="this one's")
@click.option(
    "--wheels",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Folder to take the wheels of the layout edge from.",
    show_default="pip's index",
)
@click.option("--force", is_flag=True, help="Replace an older folder of the same layout and model.")
@click.option("--list", "listed", is_flag=True, help="Print the layouts and do nothing.")
@json_option
def command(
    bundle: Path | None,
    layout: str | None,
    out: Path | None,
    work: Path | None,
    weights: str,
    platform: str | None,
    python: str | None,
    wheels: Path | None,
    force: bool,
    listed: bool,
    as_json: bool,
) -> None:
    """Write BUNDLE as the folder that another server opens.

    Sizes and digests of the bundle are checked first, the folder by the layout's own rules last; it is written beside
    its place and renamed, so that it is whole or not there. Ends with the command that serves it. Layouts for engines
    with graphs of their own (hf, gguf) take the merged weights from the build's work folder, by their digest.

    \b
    Example:
      edgetune pack --list
      edgetune pack bundles/x --layout mlserver -o served/x
      edgetune pack bundles/x --layout edge --platform linux-aarch64 --python 3.11 -o board/x
    """
    if listed:
        _list_layouts(as_json)
        return
    if bundle is None or layout is None or out is None:
        needed = {"BUNDLE": bundle, "--layout": layout, "--out": out}
        missing = ", ".join(name for name, value in needed.items() if value is None)
        raise click.UsageError(f"Missing {missing}; `edgetune pack --list` shows the layouts.")
    if work is not None and layout not in MODEL_LAYOUTS:
        raise click.UsageError(f"--work is for {', '.join(MODEL_LAYOUTS)}: {layout} is made of the bundle alone.")
    if weights != WEIGHTS[0] and layout not in WEIGHTS_LAYOUTS:
        raise click.UsageError(f"--weights is for {' and '.join(WEIGHTS_LAYOUTS)}: {layout} takes them as they are.")
    if (platform or python or wheels) and layout not in TARGET_LAYOUTS:
        raise click.UsageError(f"--platform, --python and --wheels are for {', '.join(TARGET_LAYOUTS)}.")
    opened, like = Bundle.open(bundle), here()
    target = EdgeTarget(platform or like.platform, python or like.python, wheels)
    files = write_layout(opened, layout, out, replace=force, work=work, weights=weights, target=target)
    run = command_to_run(layout_named(layout), opened, out)
    sizes = {name: (out / name).stat().st_size for name in files}
    if as_json:
        print_json({"layout": layout, "folder": str(out), "files": sizes, "run": run})
        return
    for name, size in sizes.items():
        click.echo(f"{size:>12,}  {name}")
    click.echo(f"{sum(sizes.values()):>12,}  bytes in {len(sizes)} files of {out}, by the rules of {layout}.")
    click.echo(f"\nTo run it:\n  {run}")


def _list_layouts(as_json: bool) -> None:
    layouts = {name: layout_named(name) for name in LAYOUTS}
    if as_json:
        print_json([{"layout": name, "help": one.HELP, "run": one.RUN} for name, one in layouts.items()])
        return
    width = max(map(len, layouts)) + 2
    for name, one in layouts.items():
        click.echo(f"{name:<{width}}{one.HELP}")
