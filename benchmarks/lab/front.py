"""Times the fast end of the front: base, strong graph, small model and cascade of finished builds, in turn.

Run as `python -m benchmarks.lab.front --work DIR`, repeatable: the work folder of a build whose search made a cascade.
All four answer the same test texts one by one in processes of their own, block by block in turn; base and graph with
each number of threads that is named. Accuracy is that of the whole test part, one row a run.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from benchmarks.lab.real_data import table
from edgetune.benchmarks.prove.ledger import Slice, bundle_logits, frozen_slice, model_answers
from edgetune.benchmarks.prove.search import Searched
from edgetune.benchmarks.timing.machine import describe_machine
from edgetune.benchmarks.timing.quick import QuickFigures, quick_race
from edgetune.benchmarks.timing.side import Side
from edgetune.compress.route import CASCADE_MARK
from edgetune.serve.bundle import Bundle
from edgetune.serve.predictor import Predictor
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.models.model import TunedModel
from edgetune.tune.training.progress import Silent

HEADER = [
    "threads",
    "",
    "test",
    "against tuned",
    "p50 ms",
    "times",
    "mean ms",
    "times",
    "MB",
    "cold start ms",
    "peak MB",
]


@dataclass(frozen=True)
class Build:
    """A finished build: its data, its tuned model, and the drafts of its cascade's parts by name."""

    name: str
    dataset: Dataset
    tuned: TunedModel
    drafts: dict[str, Bundle]

    @classmethod
    def open(cls, work: Path) -> Build:
        """Open a work folder whose search made a cascade."""
        searched = Searched.open(work / "compress")
        cascade = next((one for one in searched.candidates if one.small), None)
        if cascade is None:
            raise click.UsageError(f"The search in {work} made no cascade: {searched.skipped}.")
        names = (cascade.scheme.rpartition(CASCADE_MARK)[2], cascade.small, cascade.scheme)
        drafts = {name: Bundle.open(work / "trials" / name / "draft") for name in names}
        return cls(work.stem, Dataset.open(work / "data"), TunedModel.open(work / "tune"), drafts)

    def rows(self) -> Slice:
        """The whole test part."""
        test = self.dataset.test
        return frozen_slice(self.tuned, "", test, self.dataset.train, len(test), 0)


@click.command()
@click.option("--work", "works", type=click.Path(path_type=Path, exists=True), multiple=True, required=True)
@click.option("--threads", type=int, multiple=True, default=(1,), show_default=True, help="Of base and graph.")
@click.option("--samples", default=400, show_default=True, help="Timed calls of each side.")
@click.option("--markdown", type=click.Path(path_type=Path), help="File for the tables; stdout when not said.")
def main(works: tuple[Path, ...], threads: tuple[int, ...], samples: int, markdown: Path | None) -> None:
    """Time and judge the fast end of each build, and write its table."""
    text = "\n".join(line for work in works for line in page(Build.open(work), threads, samples))
    if markdown:
        markdown.write_text(text + "\n", encoding="utf-8")
    else:
        click.echo(text)


def page(build: Build, threads: tuple[int, ...], samples: int) -> Iterator[str]:
    """The table of one build, with the machine and whether it was quiet."""
    rows = build.rows()
    metric = rows.objective.metric
    tuned = metric.of(rows.expected, rows.answers(model_answers(build.tuned, rows)))
    values = {
        name: metric.of(rows.expected, rows.answers(bundle_logits(Predictor(draft), rows)))
        for name, draft in build.drafts.items()
    }
    lines, is_quiet = [], True
    for count in threads:
        figures = _race(build, rows, count, samples)
        is_quiet &= all(one.timing_valid for one in figures.values())
        lines += [[str(count), *_cells(build, name, figures, values, tuned)] for name in figures]
    machine = describe_machine(max(threads))
    yield f"## {build.name}\n"
    yield f"{machine.cpu}, {machine.cores} cores; the machine was {'quiet' if is_quiet else 'BUSY: no times count'}.\n"
    yield from table(HEADER, lines)
    yield ""
    yield "The race answers each text before it is timed, so that its words have been met. Each test text once,"
    yield f"by a new predictor with {threads[0]} thread{'s' * (threads[0] > 1)}, without a race: " + "; ".join(
        f"{name} {p50:.3f} ms at the median and {mean:.3f} in the mean"
        for name, draft in build.drafts.items()
        for p50, mean in [_first_calls(draft, rows, threads[0])]
    )
    yield ""


def _first_calls(draft: Bundle, rows: Slice, threads: int) -> tuple[float, float]:
    """Median and mean time in ms of a text that was not answered before."""
    texts, times = list(rows.texts), []
    np.random.default_rng(0).shuffle(texts)
    with Predictor(draft, threads=threads) as predictor:
        predictor.predict_one(texts[0])
        for text in texts[1:]:
            begun = time.perf_counter()
            predictor.predict_one(text)
            times.append(1000 * (time.perf_counter() - begun))
    return float(np.median(times)), float(np.mean(times))


def _race(build: Build, rows: Slice, threads: int, samples: int) -> dict[str, QuickFigures]:
    """Base and drafts on the test texts, in an order of their own."""
    sides = {"base in PyTorch": Side("base", build.tuned.base_folder, threads, tuned=build.tuned.folder)}
    sides |= {name: Side("bundle", draft.folder, threads=threads) for name, draft in build.drafts.items()}
    texts = list(rows.texts)
    np.random.default_rng(0).shuffle(texts)
    return quick_race(sides, texts, Silent(), samples)


def _cells(
    build: Build, name: str, figures: dict[str, QuickFigures], values: dict[str, float], tuned: float
) -> Iterator[str]:
    """The cells of a side, beside the base of the same race."""
    base, mine = figures["base in PyTorch"], figures[name]
    draft = build.drafts.get(name)
    yield name
    yield "" if draft is None else f"{100 * values[name]:.2f}%"
    yield "" if draft is None else f"{100 * (values[name] - tuned):+.2f}"
    for own, other in ((mine.p50_ms, base.p50_ms), (mine.mean_ms, base.mean_ms)):
        yield f"{own:.3f}"
        yield f"{other / own:.1f}"
    yield "" if draft is None else f"{draft.size_bytes / 1e6:.2f}"
    yield f"{mine.cold_start_ms:.0f}"
    yield "" if mine.rss_peak_bytes is None else f"{mine.rss_peak_bytes / 1e6:.0f}"


if __name__ == "__main__":
    main()
