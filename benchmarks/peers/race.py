"""The race against other tools: base in PyTorch, our bundles and each peer's artefact, timed in turn in one run.

Every side is a fresh process with the same number of threads; blocks, warm-ups and intervals are those of
`edgetune.benchmarks.timing.race`. Run by edgetune's Python; the peers answer in environments of their own (setup.py).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec
import numpy as np

from edgetune.benchmarks.timing.blocks import timed_blocks
from edgetune.benchmarks.timing.machine import describe_machine
from edgetune.benchmarks.timing.race import THROUGHPUT_ROUNDS, THROUGHPUT_TEXTS
from edgetune.benchmarks.timing.samples import flat, ratio_interval, summarize
from edgetune.benchmarks.timing.side import ContestantProcess, Side
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.training.progress import Progress, Silent

HERE = Path(__file__).parent
PEERS: dict[str, dict[str, Any]] = json.loads((HERE / "peers.json").read_text(encoding="utf-8"))
BASE = "PyTorch fp32"
COLD_STARTS = 5
HEAD = ["side", "p50 ms", "p90 ms", "times faster", "texts/s", "MB", "peak MB", "cold ms", "accuracy"]


@dataclass(frozen=True)
class PeerSide(Side):
    """A peer's artefact, answered by `python`, that of its environment.

    `lean` takes the bare tokenizers library in place of AutoTokenizer.
    """

    python: Path = Path()
    engine: str = "onnxruntime"
    lean: bool = False

    def command(self, first: str) -> list[str]:
        """The command line of its process; see contestant.py."""
        settings = {"threads": self.threads, "max_tokens": self.max_tokens, "lean": self.lean, "first": first}
        script = str(HERE / "contestant.py")
        return [str(self.python), script, self.engine, str(self.folder), json.dumps(settings)]


@dataclass(frozen=True)
class Figures:
    """What the race gives for one side; times in ms, `faster` the ratio of the base's p50 to this side's.

    `accuracy` is over all rows given; `label_share` is how many of the texts that were timed got the base's label.
    """

    p50: float | None
    p90: float | None
    faster: float
    faster_ci95: list[float]
    texts_per_second: float
    size_bytes: int
    rss_peak_bytes: int | None
    cold_start_ms: float
    accuracy: float
    label_share: float
    samples: list[float]


class Told(Silent):
    """Says on stderr how far the race is, which takes minutes."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """One line a step."""
        click.echo(f"{note}: {done} of {total}", err=True)


def named_bundles(said: Sequence[str]) -> dict[str, Path]:
    """`name=path` or a path alone, which is called after its last part."""
    pairs = (one.partition("=") if "=" in one else (Path(one).name, "=", one) for one in said)
    return {name: Path(path).resolve() for name, _, path in pairs}


def peer_sides(envs: Path, models: Path, threads: int, max_tokens: int, tokenizers: Sequence[bool]) -> dict[str, Side]:
    """A side for each peer whose artefact is there, and each way of tokenizing."""
    return {
        f"{name}{' (lean)' if lean else ''}": PeerSide(
            kind="base",
            folder=(models / name).resolve(),
            threads=threads,
            max_tokens=max_tokens,
            python=(envs / peer["environment"]).absolute() / "bin" / "python",
            engine=peer["engine"],
            lean=lean,
        )
        for name, peer in PEERS.items()
        for lean in tokenizers
        if (models / name).is_dir()
    }


def run(
    sides: dict[str, Side], rows: Sequence[tuple[str, str]], samples: int, progress: Progress
) -> dict[str, Figures]:
    """Time all sides on the texts of `rows`, (text, label) each; then let each answer all of them.

    Raises:
        EdgetuneError: a side's process ended; its last line of error output is told.
    """
    texts = [text for text, _ in rows]
    with ExitStack() as stack:
        running = {name: stack.enter_context(ContestantProcess(side, texts[0])) for name, side in sides.items()}
        timed = timed_blocks(running, texts, samples, progress)
        speeds = throughputs(running, texts)
        # Memory before all rows are answered: that is no part of serving.
        peaks = {name: process.ask("memory")["memory"]["rss_peak_bytes"] for name, process in running.items()}
        labels = {name: process.ask("throughput", texts=texts)["answers"] for name, process in running.items()}
    colds = cold_starts(sides, texts[0])
    blocks, answers = timed.ms, timed.answers
    base, expected = flat(blocks[BASE]), answers[BASE]
    found = {}
    for name, side in sides.items():
        samples_of = flat(blocks[name])
        summary = summarize(samples_of)
        found[name] = Figures(
            p50=summary.p50,
            p90=summary.p90,
            faster=float(np.median(base) / np.median(samples_of)),
            faster_ci95=ratio_interval(blocks[BASE], blocks[name]),
            texts_per_second=speeds[name],
            size_bytes=sum(path.stat().st_size for path in side.folder.rglob("*") if path.is_file()),
            rss_peak_bytes=peaks[name],
            cold_start_ms=colds[name],
            accuracy=float(np.mean([got == label for got, (_, label) in zip(labels[name], rows, strict=True)])),
            label_share=float(np.mean([answers[name][text] == label for text, label in expected.items()])),
            samples=summary.samples,
        )
    return found


def cold_starts(sides: dict[str, Side], text: str) -> dict[str, float]:
    """From the start of a process to its first answer, ms: the median of starts, in turn, with no other side alive."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(COLD_STARTS):
        for name, side in sides.items():
            with ContestantProcess(side, text) as process:
                taken[name].append(process.cold_start_ms)
    return {name: float(np.median(found)) for name, found in taken.items()}


def throughputs(running: dict[str, ContestantProcess], texts: Sequence[str]) -> dict[str, float]:
    """Texts a second in batches of 32 sorted by length: the median of rounds, in which the sides take turns."""
    batch = list(itertools.islice(itertools.cycle(texts), THROUGHPUT_TEXTS))
    seconds: dict[str, list[float]] = {name: [] for name in running}
    for _ in range(THROUGHPUT_ROUNDS):
        for name, process in running.items():
            seconds[name].append(process.ask("throughput", texts=batch)["seconds"])
    return {name: len(batch) / float(np.median(taken)) for name, taken in seconds.items()}


def table(found: dict[str, Figures]) -> str:
    """The figures as Markdown, one side a row."""
    rows = [HEAD, ["---"] * len(HEAD), *(cells(name, one) for name, one in found.items())]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cells(name: str, one: Figures) -> list[str]:
    """One row of the table."""
    low, high = one.faster_ci95
    return [
        name,
        "too few" if one.p50 is None else f"{one.p50:.2f}",
        "too few" if one.p90 is None else f"{one.p90:.2f}",
        "1" if name == BASE else f"{one.faster:.1f} ({low:.1f} to {high:.1f})",
        f"{one.texts_per_second:,.0f}",
        f"{one.size_bytes / 1e6:.1f}",
        "not measured" if one.rss_peak_bytes is None else f"{one.rss_peak_bytes / 1e6:,.0f}",
        f"{one.cold_start_ms:,.0f}",
        f"{100 * one.accuracy:.2f}%",
    ]


@click.command()
@click.option(
    "--base",
    type=click.Path(path_type=Path, exists=True),
    required=True,
    help="The model in PyTorch: tune/base of a build's work.",
)
@click.option("--bundle", multiple=True, help="A bundle of ours, NAME=FOLDER or FOLDER; repeat.")
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="A build's data folder.")
@click.option("--envs", type=click.Path(path_type=Path), required=True, help="Where setup.py made the environments.")
@click.option("--models", type=click.Path(path_type=Path), required=True, help="Where setup.py made the artefacts.")
@click.option("--samples", default=400, help="Latencies a side.")
@click.option("--threads", default=2, help="Of every side.")
@click.option("--rows", default=0, help="Test rows to use; 0 is all.")
@click.option(
    "--max-tokens", default=128, help="Where peers cut their texts; base and bundles cut where the build did."
)
@click.option(
    "--tokenizer",
    type=click.Choice(["auto", "lean", "both"]),
    default="both",
    help="How peers tokenize: AutoTokenizer as documented, the bare tokenizers library, or both.",
)
@click.option("--json", "report", type=click.Path(path_type=Path), help="File for all figures and samples.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the table.")
def main(
    base: Path,
    bundle: tuple[str, ...],
    data: Path,
    envs: Path,
    models: Path,
    samples: int,
    threads: int,
    rows: int,
    max_tokens: int,
    tokenizer: str,
    report: Path | None,
    markdown: Path | None,
) -> None:
    """Time PyTorch, bundles and peers against each other and print the table."""
    dataset = Dataset.open(data)
    labels = [dataset.labels[int(target)] for target in dataset.test.targets]
    test = list(zip(dataset.test.texts, labels, strict=True))
    ways = {"auto": [False], "lean": [True], "both": [False, True]}[tokenizer]
    sides = {
        BASE: Side("base", base.resolve(), threads=threads, tuned=base.resolve().parent),
        **{name: Side("bundle", path, threads=threads) for name, path in named_bundles(bundle).items()},
        **peer_sides(envs, models, threads, max_tokens, ways),
    }
    found = run(sides, test[: rows or None], samples, Told())
    page = table(found)
    click.echo(page)
    if markdown:
        markdown.write_text(page + "\n", encoding="utf-8")
    if report:
        machine = describe_machine(threads)
        document = {"machine": machine, "threads": threads, "rows": len(test[: rows or None]), "sides": found}
        report.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2))


if __name__ == "__main__":
    main()
