"""The stages of several tasks on one encoder: what each task does alone, done for all, and one graph for all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import msgspec

from edgetune import __version__
from edgetune.benchmarks.bench import Contest
from edgetune.benchmarks.prove.baseline import constant_baseline, warn_of_constant
from edgetune.benchmarks.prove.held_out import head_shift
from edgetune.benchmarks.prove.ledger import Logits, Slice, frozen_slice, model_answers
from edgetune.benchmarks.prove.planning import plan_schemes
from edgetune.benchmarks.prove.search import Terms
from edgetune.benchmarks.prove.trials import Kept, require_made
from edgetune.benchmarks.several.bench import BenchedTasks, bench_tasks
from edgetune.benchmarks.several.search import SearchedTasks, TasksBench, TasksSearch
from edgetune.benchmarks.several.slices import TaskLogits, TaskSlices
from edgetune.compress.material import Material
from edgetune.export.once.graph import Graph
from edgetune.export.once.pack import GOLDEN_CHARACTERS, Packing, golden_inputs, package_versions
from edgetune.export.once.shared_graph import export_together, output_name
from edgetune.export.workload import text_workload
from edgetune.inputs import plain, source_state
from edgetune.pipeline import Build, Pipeline, Stage
from edgetune.serve.bundle import REPORT_NAME, Bundle, HeadSpec
from edgetune.serve.digest import value_sha256
from edgetune.serve.predictor import Predictor
from edgetune.serve.tasks_report import SEVERAL_TASKS, TasksReport
from edgetune.serve.workload import Workload
from edgetune.several.data import TaskDatasets
from edgetune.several.page import render_page
from edgetune.several.plan import estimate
from edgetune.several.recipe import SeveralRecipe
from edgetune.several.table import print_report
from edgetune.tune.data.coverage import coverage_of_folder
from edgetune.tune.data.source_names import SOURCES
from edgetune.tune.models.model import TunedModel
from edgetune.tune.several.tuned import TunedTasks
from edgetune.tune.several.tuning import Part, tune_together
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.hardware import choose_device

SeveralBuild = Build[SeveralRecipe]


class DataStage(Stage[SeveralRecipe, TaskDatasets]):
    """Reads, cleans and splits the rows of each task."""

    name = "data"
    others = "wait"

    def inputs(self, build: SeveralBuild) -> Any:
        recipe = build.recipe
        return [
            {
                name: [
                    part.kind,
                    plain(part.data),
                    source_state(*(getattr(part.data, source) for source in SOURCES)),
                ]
                for name, part in recipe.tasks.items()
            },
            recipe.seed,
            {"edgetune": __version__, **package_versions()},
        ]

    def make(self, build: SeveralBuild, folder: Path) -> None:
        datasets = TaskDatasets.load(build.recipe)
        for name, dataset in datasets.parts.items():
            task = build.recipe.tasks[name].task
            build.progress.say(f"{name} ({build.recipe.tasks[name].kind}):")
            coverage = coverage_of_folder(build.base.folder, dataset.train.texts, windows=task.per_token)
            for finding in (*dataset.findings, *(coverage.findings if coverage else ())):
                build.progress.say(finding)
        datasets.save(folder)

    def open(self, build: SeveralBuild, folder: Path) -> TaskDatasets:
        return TaskDatasets.open(folder, list(build.recipe.tasks))

    def outcome(self, build: SeveralBuild, result: TaskDatasets) -> Any:
        return [
            {name: [dataset.digest, dataset.findings] for name, dataset in result.parts.items()},
            {name: part.kind for name, part in build.recipe.tasks.items()},
            build.recipe.seed,
            {"edgetune": __version__, **package_versions()},
        ]

    def line(self, result: TaskDatasets) -> str:
        return ", ".join(f"{name} {len(dataset.train):,} training rows" for name, dataset in result.parts.items())


class TuneStage(Stage[SeveralRecipe, TunedTasks]):
    """Solves the probes, trains all tasks together, merges."""

    name = "tune"
    others = "help"

    def inputs(self, build: SeveralBuild) -> Any:
        recipe = build.recipe
        options = {name: [part.metric, part.weight] for name, part in recipe.tasks.items()}
        return [plain(recipe.tune), build.base.digest, options, recipe.device]

    def make(self, build: SeveralBuild, folder: Path) -> None:
        recipe, datasets = build.recipe, build.result(TaskDatasets).parts
        tune_together(
            {
                name: Part(datasets[name], part.task.name, part.metric, part.weight)
                for name, part in recipe.tasks.items()
            },
            build.base,
            recipe.tune,
            sampling=recipe.tune.sampling,
            device=recipe.device,
            seed=recipe.seed,
            folder=folder,
            progress=build.progress,
        )

    def open(self, build: SeveralBuild, folder: Path) -> TunedTasks:
        return TunedTasks.open(folder)

    def line(self, result: TunedTasks) -> str:
        values = ", ".join(f"{name} {model.training.best_value:.4f}" for name, model in result.models.items())
        return f"{result.method}: validation {values}"

    def summary(self, result: TunedTasks) -> dict[str, Any]:
        return {
            "tuned": {
                "method": result.method,
                "tasks": {
                    name: {"folder": str(model.model_folder), "validation": model.training.best_value}
                    for name, model in result.models.items()
                },
            }
        }


class ExportStage(Stage[SeveralRecipe, Graph]):
    """Makes one graph and proves that it answers as each model does."""

    name = "export"

    def inputs(self, build: SeveralBuild) -> Any:
        return plain(build.recipe.export)

    def make(self, build: SeveralBuild, folder: Path) -> None:
        tuned, datasets = build.result(TunedTasks).models, build.result(TaskDatasets).parts
        export_together(tuned, datasets, build.recipe.export.provider, folder, build.progress)

    def open(self, build: SeveralBuild, folder: Path) -> Graph:
        return Graph.open(folder)

    def line(self, result: Graph) -> str:
        return f"{result.nodes} nodes, parity within {result.max_abs_diff:.1e}"

    def summary(self, result: Graph) -> dict[str, Any]:
        return {"graph": {"path": str(result.path), "max_abs_diff": result.max_abs_diff}}


class CompressStage(Stage[SeveralRecipe, SearchedTasks]):
    """Searches the candidates."""

    name = "compress"

    def inputs(self, build: SeveralBuild) -> Any:
        recipe = build.recipe
        decodes = {name: part.answer.decode for name, part in recipe.tasks.items()}
        sections = (recipe.compress, recipe.gate, recipe.budget)
        return [*map(plain, sections), recipe.benchmark.threads, recipe.device, decodes]

    def make(self, build: SeveralBuild, folder: Path) -> None:
        recipe, datasets, tuned = build.recipe, build.result(TaskDatasets).parts, _tuned(build)
        slices = {name: _validation_slice(build, name, model) for name, model in tuned.items()}
        logits = TaskLogits({name: model_answers(model, slices[name]) for name, model in tuned.items()})
        shift = {name: head_shift(model, recipe.gate.rows, recipe.seed, logits[name]) for name, model in tuned.items()}
        for name, rows in slices.items():
            if warning := warn_of_constant(rows, rows.answers(logits[name]), constant_baseline(rows)):
                build.progress.say(f"warning, of the tuned model of {name} on the validation part: {warning}")
        gates = {name: recipe.part_gate(name) for name in slices}
        judged = TaskSlices(slices, logits + shift, gates)
        material, first = _material(build), next(iter(datasets))
        metric = slices[first].metric
        plan = plan_schemes(recipe.compress, material, gates[first], metric, len(datasets[first].test))
        kept = Kept(build.work.trials, build.work.digest("export"))
        threads = None if recipe.benchmark.threads == "auto" else recipe.benchmark.threads
        graph, packing = build.result(Graph), _packing(build)
        # The rows and logits of all tasks stand where those of one do: a search asks them for no more than both have.
        bench = TasksBench(material, datasets[first], graph, packing, cast(Slice, judged), kept, cast(float, shift))
        terms = Terms(recipe.gate, recipe.budget, cast(Logits, judged.reference), threads)
        TasksSearch(bench, plan, terms).run().save(folder)

    def open(self, build: SeveralBuild, folder: Path) -> SearchedTasks:
        """The search.

        Raises:
            WorkError: its candidates have been removed.
        """
        searched = SearchedTasks.open(folder)
        require_made((build.work.trials / name / "draft" for name in searched.order), search=folder)
        return searched

    def line(self, result: SearchedTasks) -> str:
        return f"{len(result.candidates)} candidates, {result.order[0] if result.order else 'none'} preferred"

    def summary(self, result: SearchedTasks) -> dict[str, Any]:
        return {
            "candidates": [msgspec.to_builtins(candidate) for candidate in result.candidates],
            "order": result.order,
            "skipped": result.skipped,
        }


class BenchStage(Stage[SeveralRecipe, BenchedTasks]):
    """Proves the choice on the test part of each task and times it beside the base."""

    name = "bench"

    def inputs(self, build: SeveralBuild) -> Any:
        recipe = build.recipe
        answers = {name: plain(part.answer) for name, part in recipe.tasks.items()}
        return [*map(plain, (recipe.gate, recipe.budget, recipe.benchmark)), answers, Path(recipe.out).name]

    def make(self, build: SeveralBuild, folder: Path) -> None:
        recipe, datasets, searched = build.recipe, build.result(TaskDatasets).parts, build.result(SearchedTasks)
        packing = _packing(build)
        contests = {
            name: Contest(
                searched=replace(searched, candidates=searched.of_tasks[name]),
                trials=build.work.trials,
                graph=build.result(Graph),
                packing=replace(packing, tuned=model),
                dataset=datasets[name],
                gate=recipe.part_gate(name),
                budget=recipe.budget,
                benchmark=recipe.benchmark,
                answer=recipe.tasks[name].answer,
                seed=recipe.seed,
                command=build.command,
                head_name=name,
            )
            for name, model in _tuned(build).items()
        }
        bench_tasks(contests, searched, folder, build.work.folder / REPORT_NAME, build.progress)

    def open(self, build: SeveralBuild, folder: Path) -> BenchedTasks:
        return BenchedTasks.open(folder)

    def line(self, result: BenchedTasks) -> str:
        return f"{result.report.chosen} chosen"


def _tuned(build: SeveralBuild) -> dict[str, TunedModel]:
    """The tuned model of each task, whose head has its name and output and decodes as the recipe says."""
    models = {}
    for name, model in build.result(TunedTasks).models.items():
        decode = build.recipe.tasks[name].answer.decode
        head = msgspec.structs.replace(
            model.head, name=name, output=output_name(name), decode=decode if decode != "simple" else model.head.decode
        )
        models[name] = replace(model, head=head)
    return models


def _validation_slice(build: SeveralBuild, name: str, model: TunedModel) -> Slice:
    recipe, dataset = build.recipe, build.result(TaskDatasets).parts[name]
    metric = recipe.tasks[name].metric
    return frozen_slice(model, metric, dataset.validation, dataset.train, recipe.gate.rows, recipe.seed)


def _material(build: SeveralBuild) -> Material:
    """What the schemes work with: the texts of all tasks."""
    recipe, datasets = build.recipe, build.result(TaskDatasets)
    return Material(
        model=next(iter(_tuned(build).values())),
        train=datasets.joined("train"),
        validation=datasets.joined("validation"),
        unlabeled=(),
        provider=recipe.export.provider,
        device=choose_device(recipe.device),
        seed=recipe.seed,
        progress=build.progress,
        several=True,
    )


def _token_codec(tuned: Mapping[str, TunedModel]) -> str:
    """That of the tasks on tokens, which have one together (tune/several/tuning.py): `tokens` or `words`."""
    (codec,) = {model.codec for model in tuned.values() if TASKS[model.task].per_token}
    return codec


def _packing(build: SeveralBuild) -> Packing:
    recipe, datasets, tuned = build.recipe, build.result(TaskDatasets), _tuned(build)
    on_tokens = any(part.task.per_token for part in recipe.tasks.values())
    texts = golden_inputs("text", datasets.texts("validation"), GOLDEN_CHARACTERS if on_tokens else None)
    columns = {part.task.input_columns(datasets.parts[name].columns) for name, part in recipe.tasks.items()}
    heads: tuple[HeadSpec, ...] = tuple(model.head for model in tuned.values())
    return Packing(
        name=Path(recipe.out).name,
        tuned=next(iter(tuned.values())),
        data_digest="sha256:" + value_sha256({name: part.digest for name, part in datasets.parts.items()}),
        provider=recipe.export.provider,
        golden_texts=texts,
        columns=columns.pop() if len(columns) == 1 else (),
        # Borders of entities are those of the text as it is given.
        strip_inputs=not on_tokens and all(part.data.clean.normalize for part in recipe.tasks.values()),
        heads=heads,
        task=SEVERAL_TASKS,
        codec=f"text-and-{_token_codec(tuned)}" if on_tokens else "text",
    )


def _estimate(build: SeveralBuild) -> dict[str, float]:
    return dict(estimate(build.recipe, build.base, build.result(TaskDatasets)))


def _workload(build: SeveralBuild, draft: Bundle) -> Workload | None:
    """Inputs as long as those of all tasks' test parts, or these themselves where the recipe allows it."""
    recipe, datasets = build.recipe, build.result(TaskDatasets)
    if recipe.benchmark.workload == "none":
        return None
    test = [text for dataset in datasets.parts.values() for text in dataset.test.texts]
    train = [text for dataset in datasets.parts.values() for text in dataset.train.texts]
    with Predictor(draft) as predictor:
        return text_workload(predictor, test, train, recipe.seed, drawn=recipe.benchmark.workload == "drawn")


PIPELINE = Pipeline(
    stages=(DataStage(), TuneStage(), ExportStage(), CompressStage(), BenchStage()),
    estimate=_estimate,
    load_report=TasksReport.load,
    page=render_page,
    workload=_workload,
    show=print_report,
)
