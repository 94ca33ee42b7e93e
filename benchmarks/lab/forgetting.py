"""Forgetting curves: one task learnt after another, with EWC, L2-SP and replay of several strengths, on real data.

Run as `python -m benchmarks.lab.forgetting --data DIR --markdown docs/methods.md`. The earlier task is banking77, the
new one sst2; each row is `edgetune tune --from` in a process of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click

from benchmarks.lab.methods import MINILM, SETS, cut_rows, put_between

MARKERS = ("<!-- forgetting-measured -->", "<!-- /forgetting-measured -->")
TRIALS: dict[str, tuple[str, ...]] = {
    "nothing": ("tune.ewc=0",),
    **{f"EWC {strength}": (f"tune.ewc={strength}",) for strength in (10, 100, 1_000, 10_000, 100_000)},
    **{f"L2-SP {strength}": ("tune.ewc=0", f"tune.l2_sp={strength}") for strength in (0.001, 0.01, 0.1, 1)},
    **{f"replay {share}": ("tune.ewc=0", f"data.replay={share}") for share in (0.1, 0.3, 1)},
    "EWC 1000 and replay 0.3": ("tune.ewc=1000", "data.replay=0.3"),
}


@click.command()
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, envvar="EDGETUNE_DATA")
@click.option("--method", default="layers", show_default=True, help="full, layers or freeze.")
@click.option("--trials", multiple=True, type=click.Choice(list(TRIALS)), help="Repeat [default: all].")
@click.option("--most-rows", type=int, help="Training rows of the earlier task at most, drawn by a seed.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any recipe key of the new task; repeat.")
@click.option("--markdown", type=click.Path(path_type=Path), help="Page for the table; stdout without it.")
def main(
    data: Path,
    method: str,
    trials: tuple[str, ...],
    most_rows: int | None,
    settings: tuple[str, ...],
    markdown: Path | None,
) -> None:
    """Learn the earlier task once, the new one by each trial, and print what became of both."""
    new = [f"{key}={data / path}" for key, path in SETS["sst2"].paths.items()]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        earlier = cut_rows(data / SETS["banking77"].paths["data.train"], folder, a_class=None, most=most_rows)
        run_tune(["--base", MINILM, "--data", str(earlier), "--method", method], folder / "earlier")
        started = ["--from", str(folder / "earlier"), "--remember", str(earlier), "--method", method]
        for trial in trials or TRIALS:
            chosen = [f"--set={setting}" for setting in (*new, *TRIALS[trial], *settings)]
            rows.append((trial, run_tune([*started, *chosen], folder / trial.replace(" ", "-"))))
            click.echo(table(rows)[-1], err=True)
    put_between(MARKERS, table(rows), markdown)


def run_tune(arguments: list[str], out: Path) -> dict[str, Any]:
    """`edgetune tune` in a process of its own; what it says of the training."""
    command = [sys.executable, "-m", "edgetune", "tune", *arguments, "--out", str(out), "--fresh"]
    subprocess.run(command, check=True, stdout=sys.stderr)
    work = out.with_name(f"{out.name}.work")
    training: dict[str, Any] = json.loads((work / "tune" / "tuned.json").read_text(encoding="utf-8"))["training"]
    return training


def table(rows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Accuracy on both tasks' test rows by trial, in percent, as a Markdown table."""
    head = ["held by", "handed on", "earlier before", "earlier after", "new after", "validation of both"]
    lines = []
    for trial, training in rows:
        memory = {entry["task"]: entry for entry in training["memory"]}
        values = [memory["earlier"]["before"], memory["earlier"]["after"], memory["new"]["after"]]
        values.append(training["best_value"])
        lines.append([trial, training["handed_on"], *(f"{100 * value:.1f}" for value in values)])
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]


if __name__ == "__main__":
    main()
