"""How a recipe becomes a bundle, one screen long: each stage opens what it left before, or runs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from edgetune import __version__
from edgetune.benchmarks.bench import Benched, Contest, bench
from edgetune.benchmarks.html import render_html
from edgetune.compress.compression import Compressed, compress_all, open_candidates
from edgetune.compress.schemes import chosen_schemes
from edgetune.export.export import export
from edgetune.export.graph import Graph
from edgetune.export.pack import Packing, check_place, finish_bundle, golden_texts, package_versions, restore_bundle
from edgetune.progress import StageLines
from edgetune.recipe import Recipe
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import Interrupted
from edgetune.serve.report import Report
from edgetune.tune.base import Base, find_base, known_labels
from edgetune.tune.dataset import Dataset
from edgetune.tune.model import TunedModel
from edgetune.tune.tuning import tune
from edgetune.work import Work

STAGES = ("data", "tune", "export", "compress", "bench", "pack")


@dataclass(frozen=True)
class Built:
    """How far a build went: the last stage run, the work folder, and what there is by then."""

    last: str
    work: Path
    tuned: TunedModel | None = None
    graph: Graph | None = None
    compressed: Compressed | None = None
    report: Report | None = None
    bundle: Bundle | None = None


def build(recipe: Recipe, lines: StageLines, *, until: str = "pack", fresh: bool = False) -> Built:
    """Run the stages of a recipe up to `until`; finished ones are opened, not run again.

    Raises:
        EdgetuneError: any stage's; nothing is written to the output unless the whole build succeeds.
        Interrupted: Ctrl-C, with the command that continues.
    """
    out = Path(recipe.out)
    restore_bundle(out)
    check_place(out)
    base = find_base(recipe.base, allow_pickle=recipe.tune.allow_pickle)
    work = Work(out.with_name(f"{out.name}.work"), lines, fresh=fresh)
    try:
        return _stages(recipe, base, work, out, lines, until)
    except (KeyboardInterrupt, Interrupted) as error:
        what = f"{error} " if isinstance(error, Interrupted) else "The build was stopped. "
        raise Interrupted(
            f"{what}What is finished is kept in {work.folder}.", action=f"{_command()} continues"
        ) from None


def _stages(recipe: Recipe, base: Base, work: Work, out: Path, lines: StageLines, until: str) -> Built:
    versions = {"edgetune": __version__, **package_versions()}
    dataset = work.stage(
        "data",
        [_plain(recipe.data), _source_state(recipe), recipe.seed, known_labels(base), versions],
        lambda folder: Dataset.load(recipe.data, seed=recipe.seed, label_order=known_labels(base)).save(folder),
        Dataset.open,
        lambda found: f"{_counts(found)}, {len(found.labels)} labels",
    )
    if until == "data":
        return Built("data", work.folder)
    tuned = work.stage(
        "tune",
        [_plain(recipe.tune), base.digest, recipe.task, recipe.gate.metric, recipe.device],
        lambda folder: tune(
            dataset,
            base,
            recipe.tune,
            task=recipe.task,
            metric=recipe.gate.metric,
            device=recipe.device,
            seed=recipe.seed,
            folder=folder,
            progress=lines.progress,
        ),
        TunedModel.open,
        lambda found: f"{found.training.handed_on}: validation {found.training.best_value:.4f}",
    )
    if until == "tune":
        return Built("tune", work.folder, tuned)
    graph = work.stage(
        "export",
        _plain(recipe.export),
        lambda folder: export(tuned, dataset, recipe.export.provider, folder, lines.progress),
        Graph.open,
        lambda found: f"{found.nodes} nodes, parity within {found.max_abs_diff:.1e}",
    )
    if until == "export":
        return Built("export", work.folder, tuned, graph)
    schemes = chosen_schemes(recipe.compress.schemes)
    compressed = work.stage(
        "compress",
        _plain(recipe.compress),
        lambda folder: compress_all(graph.path, schemes, folder, lines.progress),
        lambda folder: open_candidates(folder, schemes),
        lambda found: f"{len(found.candidates)} candidates",
    )
    if until == "compress":
        return Built("compress", work.folder, tuned, graph, compressed)
    packing = Packing(out.name, tuned, dataset.digest, recipe.export.provider, golden_texts(dataset.test.texts))
    contest = Contest(
        compressed, packing, dataset, recipe.gate, recipe.budget, recipe.benchmark, recipe.seed, _command()
    )
    benched = work.stage(
        "bench",
        [_plain(recipe.gate), _plain(recipe.budget), _plain(recipe.benchmark), out.name],
        lambda folder: bench(contest, folder, work.folder / "report.json", lines.progress),
        Benched.open,
        lambda found: f"{found.report.chosen} chosen",
    )
    report = msgspec.structs.replace(benched.report, build_seconds=work.seconds, build_peak_bytes=work.peak_bytes)
    work.write("report.json", report.to_json())
    work.write("report.html", render_html(report).encode())
    if until == "bench":
        return Built("bench", work.folder, tuned, graph, compressed, report)
    extra = {
        "report.json": report.to_json(),
        "report.html": render_html(report).encode(),
        "recipe.yaml": recipe.to_yaml().encode(),
    }
    with lines.running("pack") as line:
        bundle = finish_bundle(benched.draft, out, extra)
        line.found(f"{bundle.size_bytes / 1e6:.1f} MB in {out}")
    return Built("pack", work.folder, tuned, graph, compressed, report, bundle)


def _plain(section: Any) -> Any:
    return section.model_dump(mode="json")


def _counts(dataset: Dataset) -> str:
    parts: Sequence[tuple[str, int]] = [
        ("train", len(dataset.train)),
        ("validation", len(dataset.validation)),
        ("test", len(dataset.test)),
    ]
    return ", ".join(f"{rows:,} {name}" for name, rows in parts)


def _source_state(recipe: Recipe) -> dict[str, list[int]]:
    """Size and modification time of every local data file: a changed file is read again."""
    paths = [recipe.data.path, recipe.data.train, recipe.data.validation, recipe.data.test]
    files = [file for path in paths if path for file in _files(Path(path))]
    return {str(file): [file.stat().st_size, file.stat().st_mtime_ns] for file in files}


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if file.is_file())
    return [path] if path.is_file() else []


def _command() -> str:
    """The command line as it was given, to repeat or to continue with."""
    import sys

    return shlex.join(["edgetune", *sys.argv[1:]])
