"""The stages of a language model: what goes into each, how it is made, opened and described."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from edgetune import __version__
from edgetune.benchmarks.prove.trials import Kept
from edgetune.benchmarks.stepwise.bench import LanguageBenched, LanguageContest, bench_language_model
from edgetune.benchmarks.stepwise.html import render_language_html
from edgetune.benchmarks.stepwise.judged_rows import JudgedPairs, JudgedRows
from edgetune.benchmarks.stepwise.ladder import Climbed, Ladder
from edgetune.compress.gptq.schemes import LADDER, SCHEMES
from edgetune.export.once.pack import package_versions
from edgetune.export.stepwise.export import export_generation
from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.export.stepwise.joining import bundle_of_weights, graph_sha256
from edgetune.export.stepwise.pack import LanguagePacking
from edgetune.export.workload import prompt_workload
from edgetune.inputs import plain, source_state
from edgetune.pipeline import Build, Pipeline, Stage
from edgetune.serve.bundle import REPORT_NAME, BaseIdentity, Bundle
from edgetune.serve.json_types import JsonObject
from edgetune.serve.stepwise.report import LanguageReport
from edgetune.serve.workload import Workload
from edgetune.stepwise.plan import check_base, check_objective, estimate
from edgetune.stepwise.recipe import StepwiseRecipe
from edgetune.stepwise.table import print_language_report
from edgetune.tune.data.slices import frozen_rows
from edgetune.tune.stepwise.conversations import Conversations
from edgetune.tune.stepwise.encoded import EncodedConversations
from edgetune.tune.stepwise.model import TunedLanguageModel
from edgetune.tune.stepwise.objectives.rewards import rewards_state
from edgetune.tune.stepwise.traces import prompt_tokens
from edgetune.tune.stepwise.tuning import tune_language_model

StepwiseBuild = Build[StepwiseRecipe]

GOLDEN_PROMPTS = 4


class DataStage(Stage[StepwiseRecipe, EncodedConversations]):
    """Reads, cleans and splits the rows; their token ids are made again whenever the folder is opened."""

    name = "data"
    others = "wait"

    def inputs(self, build: StepwiseBuild) -> Any:
        data = build.recipe.data
        return [
            plain(data),
            source_state(data.path, data.train, data.validation, data.test),
            build.recipe.seed,
            {"edgetune": __version__, **package_versions()},
        ]

    def make(self, build: StepwiseBuild, folder: Path) -> None:
        Conversations.load(build.recipe.data, seed=build.recipe.seed).save(folder)

    def open(self, build: StepwiseBuild, folder: Path) -> EncodedConversations:
        recipe, conversations = build.recipe, Conversations.open(folder)
        check_objective(recipe, conversations)
        return EncodedConversations.of(
            conversations, build.base, recipe.data, trust_remote_code=recipe.tune.trust_remote_code
        )

    def outcome(self, build: StepwiseBuild, result: EncodedConversations) -> Any:
        # The template is a text or a file: as it was read it is among what goes into tuning.
        settings = build.recipe.data.model_dump(
            mode="json", exclude={"path", "train", "validation", "test", "template"}
        )
        return [
            result.conversations.digest,
            settings,
            build.recipe.seed,
            {"edgetune": __version__, **package_versions()},
        ]

    def line(self, result: EncodedConversations) -> str:
        rows = result.conversations
        return f"{len(rows.train):,} train, {len(rows.validation):,} validation, {len(rows.test):,} test; {rows.format}"


class TuneStage(Stage[StepwiseRecipe, TunedLanguageModel]):
    """Trains, merges, and measures base and tuned model."""

    name = "tune"
    others = "help"

    def inputs(self, build: StepwiseBuild) -> Any:
        recipe, template = build.recipe, build.result(EncodedConversations).parts.template
        rewards = rewards_state(recipe.tune.reward)
        said = [plain(recipe.tune), build.base.digest, recipe.task, recipe.gate.rows, recipe.device, template]
        return [*said, rewards] if rewards else said

    def make(self, build: StepwiseBuild, folder: Path) -> None:
        recipe, encoded = build.recipe, build.result(EncodedConversations)
        check_base(recipe, build.base)
        tune_language_model(
            encoded.language_rows(recipe.gate.rows, recipe.seed),
            build.base,
            recipe.tune,
            tokenizer=encoded.tokenizer,
            device=recipe.device,
            seed=recipe.seed,
            folder=folder,
            progress=build.progress,
        )

    def open(self, build: StepwiseBuild, folder: Path) -> TunedLanguageModel:
        return TunedLanguageModel.open(folder)

    def line(self, result: TunedLanguageModel) -> str:
        line = f"perplexity {result.base.perplexity:.4g} to {result.tuned.perplexity:.4g}"
        tuned = result.objective.stage("tuned") if result.objective else None
        if tuned is not None and tuned.preference_accuracy is not None:
            line = f"preference accuracy {tuned.preference_accuracy:.3f}, {line}"
        if tuned is not None and tuned.reward is not None:
            line = f"mean reward {tuned.reward:.4g}, {line}"
        return line

    def summary(self, result: TunedLanguageModel) -> JsonObject:
        return {
            "tuned": {
                "folder": str(result.model_folder),
                "method": result.training.method,
                "perplexity": {"base": result.base.perplexity, "tuned": result.tuned.perplexity},
                **({"objective": msgspec.to_builtins(result.objective)} if result.objective else {}),
            }
        }


class ExportStage(Stage[StepwiseRecipe, DecoderGraph]):
    """Makes the graph with its cache and proves that it answers as the model does."""

    name = "export"

    def inputs(self, build: StepwiseBuild) -> Any:
        return plain(build.recipe.export)

    def make(self, build: StepwiseBuild, folder: Path) -> None:
        recipe, encoded = build.recipe, build.result(EncodedConversations)
        chats = encoded.conversations.test or encoded.conversations.validation
        judging = frozen_rows(chats, recipe.gate.rows, recipe.seed)
        export_generation(
            build.result(TunedLanguageModel).model_folder,
            encoded.prompt_texts(judging),
            folder,
            build.progress,
            requests=[encoded.parts.encoder.request(chat) for chat in judging],
            template=encoded.parts.template,
            batch_one=recipe.export.batch == "one",
        )

    def open(self, build: StepwiseBuild, folder: Path) -> DecoderGraph:
        return DecoderGraph.open(folder)

    def line(self, result: DecoderGraph) -> str:
        return f"{result.nodes} nodes, first logits within {result.max_abs_diff or 0:.1e}"

    def summary(self, result: DecoderGraph) -> JsonObject:
        return {"graph": {"path": str(result.path), "max_abs_diff": result.max_abs_diff}}


class CompressStage(Stage[StepwiseRecipe, Climbed]):
    """Quantizes from the fewest bits up, until two pass the gate; what it makes outlives another gate."""

    name = "compress"

    def inputs(self, build: StepwiseBuild) -> Any:
        shared = build.recipe.compress.graph_of
        graph = None if shared is None else graph_sha256(Bundle.open(shared, verify=False))
        return [plain(build.recipe.compress), plain(build.recipe.gate), *([graph] if graph else [])]

    def make(self, build: StepwiseBuild, folder: Path) -> None:
        names = build.recipe.compress.schemes
        schemes = list(LADDER) if names == "auto" else [SCHEMES[name] for name in names]
        ladder, shared = _ladder(build), build.recipe.compress.graph_of
        if shared is not None:
            model = build.result(TunedLanguageModel).model_folder
            bundle = bundle_of_weights(Path(shared), model, build.result(DecoderGraph).spec)
            ladder, schemes = replace(ladder, shared=bundle.folder), [SCHEMES[bundle.manifest.scheme]]
        ladder.climb(schemes).save(folder)

    def open(self, build: StepwiseBuild, folder: Path) -> Climbed:
        return Climbed.open(folder)

    def line(self, result: Climbed) -> str:
        return f"{len(result.candidates)} tried, {result.order[0] if result.order else 'none'} preferred"

    def summary(self, result: Climbed) -> JsonObject:
        candidates = [msgspec.to_builtins(candidate) for candidate in result.candidates]
        return {"candidates": candidates, "order": list(result.order), "skipped": result.failed}


class BenchStage(Stage[StepwiseRecipe, LanguageBenched]):
    """Proves the choice on the test part and times it beside the base."""

    name = "bench"

    def inputs(self, build: StepwiseBuild) -> Any:
        recipe = build.recipe
        return [*map(plain, (recipe.gate, recipe.budget, recipe.benchmark)), Path(recipe.out).name]

    def make(self, build: StepwiseBuild, folder: Path) -> None:
        recipe = build.recipe
        contest = LanguageContest(
            climbed=build.result(Climbed),
            graph=build.result(DecoderGraph),
            tuned=build.result(TunedLanguageModel),
            base=build.base,
            encoded=build.result(EncodedConversations),
            packing=_packing(build),
            gate=recipe.gate,
            budget=recipe.budget,
            benchmark=recipe.benchmark,
            seed=recipe.seed,
            command=build.command,
            schemes=recipe.compress.schemes,
            trust_remote_code=recipe.tune.trust_remote_code,
        )
        bench_language_model(contest, folder, build.work.folder / REPORT_NAME, build.progress)

    def open(self, build: StepwiseBuild, folder: Path) -> LanguageBenched:
        return LanguageBenched.open(folder)

    def line(self, result: LanguageBenched) -> str:
        return f"{result.report.chosen} chosen"


def _ladder(build: StepwiseBuild) -> Ladder:
    """The search over schemes, with the rows that judge and those that calibrate drawn by the seed."""
    recipe, parts = build.recipe, build.result(EncodedConversations).parts
    calibration = frozen_rows(parts.train, recipe.compress.calibration_rows, recipe.seed)
    return Ladder(
        graph=build.result(DecoderGraph),
        rows=JudgedRows.of(parts.validation, recipe.gate.rows, recipe.seed),
        calibration=[row["input_ids"] for row in calibration],
        gate=recipe.gate,
        block=recipe.compress.block,
        threads=None if recipe.benchmark.threads == "auto" else recipe.benchmark.threads,
        kept=Kept(build.work.trials, build.work.digest("export")),
        progress=build.progress,
        own_texts=recipe.compress.own_texts,
        seed=recipe.seed,
        pairs=JudgedPairs.of(
            parts.validation,
            build.result(TunedLanguageModel).base_pairs("validation"),
            recipe.gate.rows,
            recipe.seed,
        ),
    )


def _packing(build: StepwiseBuild) -> LanguagePacking:
    encoded, spec = build.result(EncodedConversations), build.result(DecoderGraph).spec
    stops = [*spec.eos_ids, *(token for token in encoded.parts.stop_ids[:1] if token not in spec.eos_ids)]
    chats = frozen_rows(encoded.conversations.validation, GOLDEN_PROMPTS, build.recipe.seed)
    return LanguagePacking(
        name=Path(build.recipe.out).name,
        task=build.recipe.task,
        model_folder=build.result(TunedLanguageModel).model_folder,
        base=BaseIdentity(build.base.id, build.base.digest),
        data_digest=encoded.conversations.digest,
        spec=msgspec.structs.replace(spec, eos_ids=stops),
        golden_prompts=tuple(encoded.prompt_texts(chats)),
        template=encoded.parts.template,
        columns=encoded.conversations.prompt_columns,
        strip_inputs=build.recipe.data.clean.normalize,
    )


def _estimate(build: StepwiseBuild) -> dict[str, float]:
    return estimate(build.recipe, build.base, build.result(EncodedConversations)).seconds


def _workload(build: StepwiseBuild, draft: Bundle) -> Workload | None:
    """Token counts of the judged prompts; of plain texts, of the texts."""
    recipe, encoded = build.recipe, build.result(EncodedConversations)
    if recipe.benchmark.workload == "none":
        return None
    return prompt_workload([prompt_tokens(row) for row in encoded.judging], recipe.seed)


PIPELINE = Pipeline(
    stages=(DataStage(), TuneStage(), ExportStage(), CompressStage(), BenchStage()),
    estimate=_estimate,
    load_report=LanguageReport.load,
    page=render_language_html,
    workload=_workload,
    show=print_language_report,
)
