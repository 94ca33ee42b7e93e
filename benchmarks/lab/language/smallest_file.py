"""The smallest file of a real language model within a rise of perplexity: every rung of the ladder, judged and timed.

Run as `python -m benchmarks.lab.language.smallest_file --model DIR --data FILE --markdown FILE`.
The model is tuned shortly on the rows, and each scheme is made and judged on held-out ones, also those that the search
would not try any more. What was tuned stays in the work folder, from which a second run goes on. Steps are timed by the
processor's clock, one thread, the schemes in turn, so that the machine need not be idle.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click
import msgspec

from benchmarks.lab.language.page import Markers, place
from benchmarks.lab.real_data import table
from edgetune.compress.gptq.schemes import SCHEMES
from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.serve.bundle import GRAPH_NAME
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.group import answer_together
from edgetune.serve.stepwise.report import LanguageCandidate
from edgetune.serve.stepwise.sampling import Sampling

MARKERS = Markers("language models: smallest file")
ROUNDS, STEPS, PROMPT = 7, 48, (5, 6, 7, 8)


@click.command()
@click.option("--model", type=click.Path(path_type=Path, exists=True), required=True, help="Folder of a chat model.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="File of its rows.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("bundles/smallest"), help="Where it works.")
@click.option("--limit", type=float, default=0.02, show_default=True, help="Largest relative rise of perplexity.")
@click.option("--set", "settings", multiple=True, help="Key of the recipe and its value; may be repeated.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the table; stdout when not said.")
def main(model: Path, data: Path, out: Path, limit: float, settings: tuple[str, ...], markdown: Path | None) -> None:
    """Tune once, judge every scheme, and print the table."""
    candidates = [_candidate(name, model, data, out, limit, settings) for name in SCHEMES]
    work = out.with_name(f"{out.name}.work")
    graphs = {one.scheme: work / "trials" / one.scheme / GRAPH_NAME for one in candidates}
    text = page(model.name, candidates, limit, tokens_per_second(graphs, DecoderGraph.open(work / "export")))
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


def tokens_per_second(graphs: Mapping[str, Path], graph: DecoderGraph) -> dict[str, float]:
    """Tokens in a second of processor time behind a short prompt, the median of rounds in which all take turns."""
    spec = msgspec.structs.replace(graph.spec, eos_ids=[])
    decoders = {name: Decoder(path, spec, threads=1) for name, path in graphs.items()}
    speeds: dict[str, list[float]] = {name: [] for name in graphs}
    for round_ in range(ROUNDS + 1):
        for name, decoder in decoders.items():
            pieces = answer_together(decoder, [decoder.answer(PROMPT, Sampling(max_tokens=STEPS + 1))], batch_size=1)
            next(pieces)
            start = time.process_time()
            steps = sum(1 for _ in pieces)
            if round_:  # the first makes memory that the others use again
                speeds[name].append(steps / (time.process_time() - start))
    return {name: statistics.median(of_scheme) for name, of_scheme in speeds.items()}


def page(model: str, candidates: Sequence[LanguageCandidate], limit: float, speeds: Mapping[str, float]) -> str:
    """The text between the markers, with them; `speeds` in tokens a second by scheme."""
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
            f"{speeds[one.scheme]:.0f}",
            one.made_by.partition(",")[0],
        ]
        for one in candidates
    ]
    head = ["scheme", "graph MB", "rise of perplexity", "interval", "KL, nats a token", "top-1", "tokens/s", "stored"]
    found = f"`{smallest.scheme}` with {smallest.size_bytes / 1e6:.1f} MB" if smallest else "none"
    lines = [
        MARKERS.start,
        "## The smallest file",
        "",
        f"Written by `python -m benchmarks.lab.language.smallest_file`: {model}, tuned, each scheme beside the tuned "
        f"model on the validation part. Tokens a second are of processor time, by one thread. "
        f"The smallest within {100 * limit:g}% of its perplexity is {found}.",
        "",
        *table(head, rows),
        "",
        MARKERS.end,
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
