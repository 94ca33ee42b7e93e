"""Text classification from recipe to bundle: six stages, each opened if it is finished, else run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgetune import __version__
from edgetune.benchmarks.bench import Benched, Contest, bench
from edgetune.benchmarks.prove.ledger import frozen_slice, gate_metric, model_answers
from edgetune.benchmarks.prove.planning import plan_schemes
from edgetune.benchmarks.prove.search import Search, Searched, Terms
from edgetune.benchmarks.prove.trials import Kept, Workbench
from edgetune.benchmarks.report.html import render_html
from edgetune.compress.material import Material
from edgetune.export.once.export import export
from edgetune.export.once.graph import Graph
from edgetune.export.once.pack import Packing, golden_texts, package_versions
from edgetune.progress import StageLines
from edgetune.recipe import Recipe
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import WorkError
from edgetune.serve.report import Report
from edgetune.tasks.finishing import Finishing, show_outcome
from edgetune.tasks.sources import command_line, plain, source_state
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.models.base import Base, known_labels
from edgetune.tune.models.model import TunedModel
from edgetune.tune.training.hardware import choose_device
from edgetune.tune.training.processes import is_main
from edgetune.tune.tuning import tune
from edgetune.work import Work

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True)
class Built:
    """How far a build went: the last stage run, the work folder, and what there is by then."""

    last: str
    work: Path
    tuned: TunedModel | None = None
    graph: Graph | None = None
    searched: Searched | None = None
    report: Report | None = None
    bundle: Bundle | None = None

    def summary(self) -> dict[str, Any]:
        """What a script wants to know, as JSON types."""
        found: dict[str, Any] = {"stage": self.last, "work": str(self.work)}
        if self.tuned:
            found["tuned"] = {
                "folder": str(self.tuned.model_folder),
                "method": self.tuned.training.handed_on,
                "validation": self.tuned.training.best_value,
            }
        if self.graph:
            found["graph"] = {"path": str(self.graph.path), "max_abs_diff": self.graph.max_abs_diff}
        if self.searched:
            found["candidates"] = [msgspec.to_builtins(one) for one in self.searched.candidates]
            found["order"], found["skipped"] = self.searched.order, self.searched.skipped
        if self.report:
            found["report"] = msgspec.to_builtins(self.report)
        if self.bundle:
            found["bundle"] = str(self.bundle.folder)
        return found

    def show(self, console: Console) -> None:
        """Print the table of figures of a benched build, the paths otherwise."""
        from edgetune.terminal import print_report

        where = self.bundle.folder if self.bundle else self.work
        show_outcome(self.report, where, self.last, self.work, print_report, console)


@dataclass(frozen=True)
class Stages:
    """One build's stages: each names what goes in, how it is made, how it is opened, and what its line tells."""

    recipe: Recipe
    base: Base
    work: Work
    lines: StageLines

    def run(self, until: str) -> Built:
        dataset = self.data()
        tuned = self.tune(dataset)
        if until == "tune" or not is_main():  # beside the main process the others only help to train
            return Built("tune", self.work.folder, tuned)
        graph = self.export(dataset, tuned)
        if until == "export":
            return Built("export", self.work.folder, tuned, graph)
        searched = self.compress(dataset, tuned, graph)
        if until == "compress":
            return Built("compress", self.work.folder, tuned, graph, searched)
        benched = self.bench(dataset, tuned, graph, searched)
        report = self.finishing.report(benched.report)
        if until == "bench":
            return Built("bench", self.work.folder, tuned, graph, searched, report)
        return Built(
            "pack", self.work.folder, tuned, graph, searched, report, self.finishing.pack(benched.draft, report)
        )

    def data(self) -> Dataset:
        recipe, order = self.recipe, known_labels(self.base)
        versions = {"edgetune": __version__, **package_versions()}
        return self.work.stage(
            "data",
            [
                plain(recipe.data),
                source_state(
                    recipe.data.path, recipe.data.train, recipe.data.validation, recipe.data.test, recipe.data.unlabeled
                ),
                recipe.seed,
                order,
                versions,
            ],
            lambda folder: Dataset.load(recipe.data, seed=recipe.seed, label_order=order).save(folder),
            Dataset.open,
            lambda found: f"{_counts(found)}, {len(found.labels)} labels",
            others="wait",
        )

    def tune(self, dataset: Dataset) -> TunedModel:
        recipe = self.recipe
        return self.work.stage(
            "tune",
            [plain(recipe.tune), self.base.digest, recipe.task, recipe.gate.metric, recipe.device],
            lambda folder: tune(
                dataset,
                self.base,
                recipe.tune,
                task=recipe.task,
                metric=recipe.gate.metric,
                device=recipe.device,
                seed=recipe.seed,
                folder=folder,
                progress=self.lines.progress,
            ),
            TunedModel.open,
            lambda found: f"{found.training.handed_on}: validation {found.training.best_value:.4f}",
            others="help",
        )

    def export(self, dataset: Dataset, tuned: TunedModel) -> Graph:
        return self.work.stage(
            "export",
            plain(self.recipe.export),
            lambda folder: export(tuned, dataset, self.recipe.export.provider, folder, self.lines.progress),
            Graph.open,
            lambda found: f"{found.nodes} nodes, parity within {found.max_abs_diff:.1e}",
        )

    def compress(self, dataset: Dataset, tuned: TunedModel, graph: Graph) -> Searched:
        recipe = self.recipe
        kept = Kept(self.trials, self.work.chain)  # before the stage: trials outlive another gate or list of schemes
        return self.work.stage(
            "compress",
            [
                plain(recipe.compress),
                plain(recipe.gate),
                plain(recipe.budget),
                recipe.benchmark.threads,
                recipe.device,
            ],
            lambda folder: self._search(dataset, tuned, graph, kept).run().save(folder),
            self._open_search,
            lambda found: f"{len(found.candidates)} candidates, {found.order[0] if found.order else 'none'} preferred",
        )

    def _open_search(self, folder: Path) -> Searched:
        """Open what the search found.

        Raises:
            WorkError: its candidates have been removed.
        """
        searched = Searched.open(folder)
        missing = [name for name in searched.order if not (self.trials / name / "draft").is_dir()]
        if missing:
            raise WorkError(
                f"The search's candidates are gone from {self.trials}: {', '.join(missing)}.",
                expected="the folders that the search has left there",
                action=f"remove {folder}: the same command then searches again",
            )
        return searched

    @property
    def trials(self) -> Path:
        """Where the search keeps what it made."""
        return self.work.folder / "trials"

    def _search(self, dataset: Dataset, tuned: TunedModel, graph: Graph, kept: Kept) -> Search:
        recipe = self.recipe
        rows = frozen_slice(dataset.validation, recipe.gate.rows, recipe.seed)
        material = self.material(dataset, tuned)
        plan = plan_schemes(recipe.compress, material, recipe.gate, gate_metric(recipe.gate), len(dataset.test))
        packing = self._packing(dataset, tuned)
        bench = Workbench(material, dataset, graph, packing, rows, kept)
        threads = None if recipe.benchmark.threads == "auto" else recipe.benchmark.threads
        terms = Terms(recipe.gate, recipe.budget, model_answers(tuned, rows), threads)
        return Search(bench, plan, terms, tuple(recipe.compress.variants))

    def material(self, dataset: Dataset, tuned: TunedModel) -> Material:
        """What the schemes work with."""
        return Material(
            model=tuned,
            train=dataset.train,
            validation=dataset.validation,
            unlabeled=dataset.unlabeled,
            provider=self.recipe.export.provider,
            device=choose_device(self.recipe.device),
            seed=self.recipe.seed,
            progress=self.lines.progress,
        )

    def _packing(self, dataset: Dataset, tuned: TunedModel) -> Packing:
        name, provider = Path(self.recipe.out).name, self.recipe.export.provider
        return Packing(name, tuned, dataset.digest, provider, golden_texts(dataset.validation.texts))

    def bench(self, dataset: Dataset, tuned: TunedModel, graph: Graph, searched: Searched) -> Benched:
        recipe = self.recipe
        contest = Contest(
            searched=searched,
            trials=self.trials,
            graph=graph,
            packing=self._packing(dataset, tuned),
            dataset=dataset,
            gate=recipe.gate,
            budget=recipe.budget,
            benchmark=recipe.benchmark,
            seed=recipe.seed,
            command=command_line(),
            variants=tuple(recipe.compress.variants),
        )
        return self.finishing.bench(
            [plain(recipe.gate), plain(recipe.budget), plain(recipe.benchmark)],
            lambda folder, kept: bench(contest, folder, kept, self.lines.progress),
            Benched.open,
            lambda found: f"{found.report.chosen} chosen",
        )

    @property
    def finishing(self) -> Finishing[Report]:
        """How the build ends."""
        return Finishing(self.recipe, self.work, self.lines, Report.load, render_html)


def _counts(dataset: Dataset) -> str:
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    return ", ".join(f"{len(part):,} {name}" for name, part in parts.items())
