"""The smallest file of a real language model within a rise of perplexity: every rung of the ladder, judged.

Run as `python -m benchmarks.lab.language.smallest_file --model DIR --data FILE --markdown FILE`.
The model is tuned shortly on the rows, and each scheme is made and judged on held-out ones, also those that the search
would not try any more. What was tuned stays in the work folder, from which a second run goes on.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click
import msgspec

from benchmarks.lab.language.page import Markers, place
from benchmarks.lab.real_data import table
from edgetune.compress.gptq.schemes import LADDER
from edgetune.serve.stepwise.report import LanguageCandidate

MARKERS = Markers("language models: smallest file")


@click.command()
@click.option("--model", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of a chat model.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="File of its rows.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bundles/smallest"), help="Where it works.")
@click.option("--limit", type=float, default=0.02, show_default=True, help="Largest relative rise of perplexity.")
@click.option("--set", "settings", multiple=True, help="Key of the recipe and its value; may be repeated.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the table; stdout when not said.")
def main(model: Path, data: Path, out: Path, limit: float, settings: tuple[str, ...], markdown: Path | None) -> None:
    """Tune once, judge every scheme, and print the table."""
    candidates = [_candidate(scheme.name, model, data, out, limit, settings) for scheme in LADDER]
    text = page(model.name, candidates, limit)
    if markdown:
        place(markdown, text, MARKERS)
    else:
        click.echo(text)


def _candidate(
    scheme: str, model: Path, data: Path, out: Path, limit: float, settings: Sequence[str]
) -> LanguageCandidate:
    """One scheme alone: a search ends with the second that passes, and what was made for it is used again."""
    given = [f"gate.max_rise={limit}", *settings]
    command = [sys.executable, "-m", "edgetune", "compress", "--base", str(model), "--data", str(data), "--json"]
    command += ["--task", "text-generation", "--out", str(out), "--scheme", scheme]
    ended = subprocess.run(
        [*command, *(f"--set={one}" for one in given)], check=True, stdout=subprocess.PIPE, text=True
    )
    (candidate,) = json.loads(ended.stdout)["candidates"]
    return msgspec.convert(candidate, LanguageCandidate)


def page(model: str, candidates: Sequence[LanguageCandidate], limit: float) -> str:
    """The text between the markers, with them."""
    within = [one for one in candidates if one.rise <= limit]
    smallest = min(within, key=lambda one: one.size_bytes, default=None)
    rows = [
        [
            one.scheme,
            f"{one.size_bytes / 1e6:.1f}",
            f"{100 * one.rise:+.2f}%",
            " to ".join(f"{100 * bound:+.2f}%" for bound in one.rise_interval),
            f"{one.kl:.4f}",
            f"{100 * one.agreement:.1f}%",
            one.made_by.partition(",")[0],
        ]
        for one in candidates
    ]
    head = ["scheme", "graph MB", "rise of perplexity", "interval", "KL, nats a token", "top-1", "stored"]
    found = f"`{smallest.scheme}` with {smallest.size_bytes / 1e6:.1f} MB" if smallest else "none"
    lines = [
        MARKERS.start,
        "## The smallest file",
        "",
        f"Written by `python -m benchmarks.lab.language.smallest_file`: {model}, tuned, each scheme beside the tuned "
        f"model on the validation part. The smallest within {100 * limit:g}% of its perplexity is {found}.",
        "",
        *table(head, rows),
        "",
        MARKERS.end,
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
