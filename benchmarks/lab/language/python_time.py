"""What a step of a language model takes outside of the graph: our Python, with the graph's weights between two steps.

Run as `python -m benchmarks.lab.language.python_time --bundle DIR [--markdown FILE]`. Wall and processor time of a
greedy answer minus those of its runs, one thread, the least of the rounds: on a busy machine the others are longer.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import msgspec

from benchmarks.lab.language.page import Markers, place
from edgetune.serve.bundle import GRAPH_NAME, Bundle
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.group import answer_together
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.serve.stepwise.spec import GenerationSpec

MARKERS = Markers("language models: outside of the graph")
ROUNDS, STEPS, PROMPT = 20, 100, (5, 6, 7, 8)
CLOCKS = (time.perf_counter, time.process_time)


class TimedSession:
    """A session that adds up the seconds of its runs, by each clock."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.seconds = [0.0 for _ in CLOCKS]

    def run_with_iobinding(self, binding: Any) -> None:
        """As ONNX Runtime's."""
        starts = [clock() for clock in CLOCKS]
        self._session.run_with_iobinding(binding)
        for number, clock in enumerate(CLOCKS):
            self.seconds[number] += clock() - starts[number]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)


def outside_ms(graph: Path, spec: GenerationSpec) -> list[float]:
    """Milliseconds a step outside of the runs of a graph with its cache in place, by each of `CLOCKS`."""
    decoder = Decoder(graph, msgspec.structs.replace(spec, eos_ids=[]), threads=1)
    session = TimedSession(decoder._session)
    decoder._session = session
    rounds = []
    for _ in range(ROUNDS):
        pieces = answer_together(decoder, [decoder.answer(PROMPT, Sampling(max_tokens=STEPS + 1))], batch_size=1)
        next(pieces)
        session.seconds = [0.0 for _ in CLOCKS]
        starts = [clock() for clock in CLOCKS]
        steps = sum(1 for _ in pieces)
        whole = [clock() - start for clock, start in zip(CLOCKS, starts, strict=True)]
        rounds.append([1000 * (one - run) / steps for one, run in zip(whole, session.seconds, strict=True)])
    return [min(of_clock) for of_clock in zip(*rounds, strict=True)]


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path, exists=True), required=True, help="Of a language model.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the sentence; stdout when not given.")
def main(bundle: Path, markdown: Path | None) -> None:
    """Time the steps and print what they take."""
    spec = Bundle.open(bundle).manifest.generation
    if spec is None:
        raise click.UsageError(f"{bundle} holds no language model.")
    wall, processor = outside_ms(bundle / GRAPH_NAME, spec)
    lines = [
        MARKERS.start,
        "## A step outside of the graph",
        "",
        f"Written by `python -m benchmarks.lab.language.python_time`: {bundle.name}, one thread, {STEPS} steps, "
        f"the least of {ROUNDS} rounds: {wall:.3f} ms a step by the wall clock, {processor:.3f} ms by the processor's.",
        "",
        MARKERS.end,
        "",
    ]
    if markdown:
        place(markdown, "\n".join(lines), MARKERS)
    else:
        click.echo("\n".join(lines))


if __name__ == "__main__":
    main()
