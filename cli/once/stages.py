"""The stages of the family `once`: what goes into each, how it is made, opened and described."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from edgetune import __version__
from edgetune.benchmarks.bench import Benched, Contest, bench
from edgetune.benchmarks.prove.baseline import constant_baseline, warn_of_constant
from edgetune.benchmarks.prove.held_out import head_shift
from edgetune.benchmarks.prove.ledger import frozen_slice, model_answers
from edgetune.benchmarks.prove.planning import plan_schemes
from edgetune.benchmarks.prove.search import Search, Searched, Terms
from edgetune.benchmarks.prove.trials import Kept, Workbench, require_made
from edgetune.benchmarks.report.html import render_html
from edgetune.benchmarks.targets.emulation import prover_of
from edgetune.benchmarks.targets.proof import is_for_others, resolved
from edgetune.compress.material import Material
from edgetune.export.once.export import export
from edgetune.export.once.graph import Graph
from edgetune.export.once.pack import GOLDEN_CHARACTERS, Packing, golden_inputs, package_versions
from edgetune.export.workload import picture_workload, text_workload
from edgetune.inputs import plain, source_state
from edgetune.once.plan import estimate, load_data, prompted_data
from edgetune.once.recipe import OnceRecipe
from edgetune.once.table import print_report
from edgetune.pipeline import Build, Pipeline, Stage
from edgetune.serve.bundle import REPORT_NAME, Bundle
from edgetune.serve.codecs import takes_files
from edgetune.serve.digest import value_sha256
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import Report
from edgetune.serve.workload import Workload
from edgetune.tune.data.coverage import coverage_of_folder
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.data.source_names import SOURCES
from edgetune.tune.models.base import known_labels
from edgetune.tune.models.model import TunedModel
from edgetune.tune.models.sentences import unsaid_prompts
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.hardware import choose_device
from edgetune.tune.tuning import tune

OnceBuild = Build[OnceRecipe]


class DataStage(Stage[OnceRecipe, Dataset]):
    """Reads, cleans and splits the rows."""

    name = "data"
    others = "wait"

    def inputs(self, build: OnceBuild) -> Any:
        data = build.recipe.data
        return [
            plain(prompted_data(build.recipe, build.base)),
            source_state(*(getattr(data, name) for name in SOURCES), data.augment.lexicon),
            build.recipe.seed,
            build.recipe.task,
            known_labels(build.base),
            {"edgetune": __version__, **package_versions()},
        ]

    def make(self, build: OnceBuild, folder: Path) -> None:
        dataset, task = load_data(build.recipe, build.base), TASKS[build.recipe.task]
        train = dataset.train.texts
        coverage = coverage_of_folder(build.base.folder, train, windows=task.per_token) if task.reads_text else None
        outside = dataset.out_of_scope.findings if dataset.out_of_scope else ()
        unsaid = "" if TASKS[build.recipe.task].has_head else unsaid_prompts(build.base.id, dataset.prompts)
        for finding in (*dataset.findings, *(coverage.findings if coverage else ()), *outside, *filter(None, [unsaid])):
            build.progress.say(finding)
        dataset.save(folder)

    def open(self, build: OnceBuild, folder: Path) -> Dataset:
        return Dataset.open(folder)

    def outcome(self, build: OnceBuild, result: Dataset) -> Any:
        return [
            result.digest,
            result.findings,
            *([result.copies.must_gain] if result.copies else []),
            build.recipe.seed,
            build.recipe.task,
            {"edgetune": __version__, **package_versions()},
        ]

    def line(self, result: Dataset) -> str:
        parts = {"train": result.train, "validation": result.validation, "test": result.test}
        counts = [f"{len(part):,} {name}" for name, part in parts.items()]
        if result.copies:
            counts[0] += f" ({result.copies.rows:,} of them changed copies)"
        return ", ".join(counts + ([f"{len(result.labels)} labels"] if result.labels else []))


class TuneStage(Stage[OnceRecipe, TunedModel]):
    """Solves the probe, trains, merges."""

    name = "tune"
    others = "help"

    def inputs(self, build: OnceBuild) -> Any:
        recipe = build.recipe
        return [plain(recipe.tune), build.base.digest, recipe.task, recipe.gate.metric, recipe.device]

    def make(self, build: OnceBuild, folder: Path) -> None:
        recipe = build.recipe
        tune(
            build.result(Dataset),
            build.base,
            recipe.tune,
            task=recipe.task,
            metric=recipe.gate.metric,
            device=recipe.device,
            seed=recipe.seed,
            folder=folder,
            progress=build.progress,
        )

    def open(self, build: OnceBuild, folder: Path) -> TunedModel:
        return TunedModel.open(folder)

    def line(self, result: TunedModel) -> str:
        return f"{result.training.handed_on}: validation {result.training.best_value:.4f}"

    def summary(self, result: TunedModel) -> dict[str, Any]:
        training = result.training
        return {
            "tuned": {
                "folder": str(result.model_folder),
                "method": training.handed_on,
                "validation": training.best_value,
            }
        }


class ExportStage(Stage[OnceRecipe, Graph]):
    """Makes the graph and proves that it answers as the model does."""

    name = "export"

    def inputs(self, build: OnceBuild) -> Any:
        return plain(build.recipe.export)

    def make(self, build: OnceBuild, folder: Path) -> None:
        export(build.result(TunedModel), build.result(Dataset), build.recipe.export.provider, folder, build.progress)

    def open(self, build: OnceBuild, folder: Path) -> Graph:
        return Graph.open(folder)

    def line(self, result: Graph) -> str:
        return f"{result.nodes} nodes, parity within {result.max_abs_diff:.1e}"

    def summary(self, result: Graph) -> dict[str, Any]:
        return {"graph": {"path": str(result.path), "max_abs_diff": result.max_abs_diff}}


class CompressStage(Stage[OnceRecipe, Searched]):
    """Searches the candidates; what it makes outlives another gate, budget or list of schemes."""

    name = "compress"

    def inputs(self, build: OnceBuild) -> Any:
        recipe = build.recipe
        sections = (recipe.compress, recipe.gate, recipe.budget)
        decode = [recipe.answer.decode] if recipe.answer.decode != "simple" else []
        elsewhere = ["float for other processors"] if is_for_others(recipe.target) else []
        return [*map(plain, sections), recipe.benchmark.threads, recipe.device, *decode, *elsewhere]

    def make(self, build: OnceBuild, folder: Path) -> None:
        recipe, dataset, tuned = build.recipe, _learnt(build), _tuned(build)
        rows = frozen_slice(tuned, recipe.gate.metric, dataset.validation, dataset.train, recipe.gate.rows, recipe.seed)
        metric = rows.objective.metric
        material = _material(build)
        plan = plan_schemes(recipe.compress, material, recipe.gate, metric, len(dataset.test))
        kept = Kept(build.work.trials, build.work.digest("export"))
        threads = None if recipe.benchmark.threads == "auto" else recipe.benchmark.threads
        logits, baseline = model_answers(tuned, rows), constant_baseline(rows)
        shift = head_shift(tuned, recipe.gate.rows, recipe.seed, logits)
        bench = Workbench(material, dataset, build.result(Graph), _packing(build), rows, kept, shift)
        if warning := warn_of_constant(rows, rows.answers(logits), baseline):
            build.progress.say(f"warning, of the tuned model on the validation part: {warning}")
        terms = Terms(recipe.gate, recipe.budget, logits + shift, threads)
        Search(bench, plan, terms, _variants(recipe)).run().save(folder)

    def open(self, build: OnceBuild, folder: Path) -> Searched:
        """The search.

        Raises:
            WorkError: its candidates have been removed.
        """
        searched = Searched.open(folder)
        require_made((build.work.trials / name / "draft" for name in searched.order), search=folder)
        return searched

    def line(self, result: Searched) -> str:
        return f"{len(result.candidates)} candidates, {result.order[0] if result.order else 'none'} preferred"

    def summary(self, result: Searched) -> dict[str, Any]:
        return {
            "candidates": [msgspec.to_builtins(candidate) for candidate in result.candidates],
            "order": result.order,
            "skipped": result.skipped,
        }


class BenchStage(Stage[OnceRecipe, Benched]):
    """Proves the choice on the test part and times it beside the base."""

    name = "bench"

    def inputs(self, build: OnceBuild) -> Any:
        recipe = build.recipe
        sections = (recipe.gate, recipe.budget, recipe.benchmark, recipe.answer)
        outside = build.result(Dataset).out_of_scope
        targets = [[name, prover_of(name).proof, plain(one)] for name, one in resolved(recipe.target).items()]
        return [*map(plain, sections), Path(recipe.out).name, outside and value_sha256(list(outside.texts)), targets]

    def make(self, build: OnceBuild, folder: Path) -> None:
        recipe = build.recipe
        contest = Contest(
            searched=build.result(Searched),
            trials=build.work.trials,
            graph=build.result(Graph),
            packing=_packing(build),
            dataset=_learnt(build),
            gate=recipe.gate,
            budget=recipe.budget,
            benchmark=recipe.benchmark,
            answer=recipe.answer,
            seed=recipe.seed,
            command=build.command,
            variants=tuple(recipe.compress.variants),
            targets=recipe.target,
        )
        bench(contest, folder, build.work.folder / REPORT_NAME, build.progress)

    def open(self, build: OnceBuild, folder: Path) -> Benched:
        return Benched.open(folder)

    def line(self, result: Benched) -> str:
        return f"{result.report.chosen} chosen"


def _variants(recipe: OnceRecipe) -> tuple[str, ...]:
    """The graphs that are made beside the chosen one: for other processors the float graph too, as the last resort."""
    last = ["fused"] if is_for_others(recipe.target) else []
    return tuple(dict.fromkeys([*recipe.compress.variants, *last]))


def _learnt(build: OnceBuild) -> Dataset:
    """The rows as tuning has learnt them: without changed copies of texts where it left them out."""
    dataset = build.result(Dataset)
    return dataset if build.result(TunedModel).learns_copies else dataset.without_copies()


def _tuned(build: OnceBuild) -> TunedModel:
    """The tuned model, whose head decodes as the recipe says."""
    tuned, decode = build.result(TunedModel), build.recipe.answer.decode
    if decode == "simple":
        return tuned
    return replace(tuned, head=msgspec.structs.replace(tuned.head, decode=decode))


def _material(build: OnceBuild) -> Material:
    """What the schemes work with."""
    recipe, dataset = build.recipe, _learnt(build)
    return Material(
        model=_tuned(build),
        train=dataset.train,
        validation=dataset.validation,
        unlabeled=dataset.unlabeled,
        provider=recipe.export.provider,
        device=choose_device(recipe.device),
        seed=recipe.seed,
        progress=build.progress,
    )


def _packing(build: OnceBuild) -> Packing:
    recipe, dataset = build.recipe, _learnt(build)
    tuned, task = _tuned(build), TASKS[recipe.task]
    texts = golden_inputs(tuned.codec, dataset.validation.texts, GOLDEN_CHARACTERS if task.per_token else None)
    # Borders of entities are those of the text as it is given.
    strip = recipe.data.clean.normalize and task.reads_text and not task.per_token
    return Packing(
        name=Path(recipe.out).name,
        tuned=tuned,
        data_digest=dataset.digest,
        provider=recipe.export.provider,
        golden_texts=texts,
        columns=task.input_columns(dataset.columns),
        strip_inputs=strip,
    )


def _estimate(build: OnceBuild) -> dict[str, float]:
    costs, _ = estimate(build.recipe, build.base, build.result(Dataset))
    return costs.seconds


def _workload(build: OnceBuild, draft: Bundle) -> Workload | None:
    """Inputs as long as the test part's, or these themselves where the recipe allows it."""
    recipe, dataset = build.recipe, _learnt(build)
    if recipe.benchmark.workload == "none":
        return None
    if takes_files(draft.manifest.codec):
        return picture_workload(dataset.test.texts, recipe.seed)
    with Predictor(draft) as predictor:
        drawn = recipe.benchmark.workload == "drawn"
        return text_workload(predictor, dataset.test.texts, dataset.train.texts, recipe.seed, drawn=drawn)


PIPELINE = Pipeline(
    stages=(DataStage(), TuneStage(), ExportStage(), CompressStage(), BenchStage()),
    estimate=_estimate,
    load_report=Report.load,
    page=render_html,
    workload=_workload,
    show=print_report,
)
