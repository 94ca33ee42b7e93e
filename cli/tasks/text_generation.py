"""Text generation from recipe to bundle: six stages, each opened if it is finished, else run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from edgetune import __version__
from edgetune.benchmarks.prove.trials import Kept
from edgetune.benchmarks.stepwise.bench import LanguageBenched, LanguageContest, bench_language_model
from edgetune.benchmarks.stepwise.html import render_language_html
from edgetune.benchmarks.stepwise.ladder import Climbed, JudgedRows, Ladder
from edgetune.compress.gptq.schemes import LADDER, SCHEMES
from edgetune.export.once.pack import package_versions
from edgetune.export.stepwise.export import export_generation
from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.export.stepwise.pack import LanguagePacking
from edgetune.progress import StageLines
from edgetune.serve.bundle import BaseIdentity, Bundle
from edgetune.serve.stepwise.report import LanguageReport
from edgetune.tasks.finishing import Finishing, show_outcome
from edgetune.tasks.generation_recipe import GenerationRecipe
from edgetune.tasks.sources import command_line, plain, source_state
from edgetune.tune.data.slices import frozen_rows
from edgetune.tune.models.base import Base
from edgetune.tune.stepwise.conversations import Conversations
from edgetune.tune.stepwise.encoded import EncodedConversations
from edgetune.tune.stepwise.model import TunedLanguageModel
from edgetune.tune.stepwise.tuning import tune_language_model
from edgetune.tune.training.processes import is_main
from edgetune.work import Work

if TYPE_CHECKING:
    from rich.console import Console

GOLDEN_PROMPTS = 4


@dataclass(frozen=True)
class BuiltLanguageModel:
    """How far a build went: the last stage run, the work folder, and what there is by then."""

    last: str
    work: Path
    tuned: TunedLanguageModel | None = None
    graph: DecoderGraph | None = None
    climbed: Climbed | None = None
    report: LanguageReport | None = None
    bundle: Bundle | None = None

    def summary(self) -> dict[str, Any]:
        """What a script wants to know, as JSON types."""
        found: dict[str, Any] = {"stage": self.last, "work": str(self.work)}
        if self.tuned:
            found["tuned"] = {
                "folder": str(self.tuned.model_folder),
                "method": self.tuned.training.method,
                "perplexity": {"base": self.tuned.base.perplexity, "tuned": self.tuned.tuned.perplexity},
            }
        if self.graph:
            found["graph"] = {"path": str(self.graph.path), "max_abs_diff": self.graph.max_abs_diff}
        if self.climbed:
            found["candidates"] = [msgspec.to_builtins(one) for one in self.climbed.candidates]
            found["order"], found["skipped"] = list(self.climbed.order), self.climbed.failed
        if self.report:
            found["report"] = msgspec.to_builtins(self.report)
        if self.bundle:
            found["bundle"] = str(self.bundle.folder)
        return found

    def show(self, console: Console) -> None:
        """Print the table of figures of a benched build, the paths otherwise."""
        from edgetune.tasks.language_table import print_language_report

        where = self.bundle.folder if self.bundle else self.work
        show_outcome(self.report, where, self.last, self.work, print_language_report, console)


@dataclass(frozen=True)
class Stages:
    """One build's stages: each names what goes in, how it is made, how it is opened, and what its line tells."""

    recipe: GenerationRecipe
    base: Base
    work: Work
    lines: StageLines

    def run(self, until: str) -> BuiltLanguageModel:
        """Run or open the stages up to `until`."""
        encoded = self.encode(self.data())
        tuned = self.tune(encoded)
        if until == "tune" or not is_main():
            return BuiltLanguageModel("tune", self.work.folder, tuned)
        graph = self.export(encoded, tuned)
        if until == "export":
            return BuiltLanguageModel("export", self.work.folder, tuned, graph)
        climbed = self.compress(encoded, graph)
        if until == "compress":
            return BuiltLanguageModel("compress", self.work.folder, tuned, graph, climbed)
        benched = self.bench(encoded, tuned, graph, climbed)
        report = self.finishing.report(benched.report)
        if until == "bench":
            return BuiltLanguageModel("bench", self.work.folder, tuned, graph, climbed, report)
        bundle = self.finishing.pack(benched.draft, report)
        return BuiltLanguageModel("pack", self.work.folder, tuned, graph, climbed, report, bundle)

    def data(self) -> Conversations:
        recipe, data = self.recipe, self.recipe.data
        versions = {"edgetune": __version__, **package_versions()}
        return self.work.stage(
            "data",
            [plain(data), source_state(data.path, data.train, data.validation, data.test), recipe.seed, versions],
            lambda folder: Conversations.load(data, seed=recipe.seed).save(folder),
            Conversations.open,
            lambda found: (
                f"{len(found.train):,} train, {len(found.validation):,} validation, {len(found.test):,} test; "
                f"{found.format}"
            ),
            others="wait",
        )

    def encode(self, conversations: Conversations) -> EncodedConversations:
        """The rows as token ids; told, not kept."""
        recipe = self.recipe
        return EncodedConversations.of(
            conversations, self.base, recipe.data, trust_remote_code=recipe.tune.trust_remote_code
        )

    def tune(self, encoded: EncodedConversations) -> TunedLanguageModel:
        recipe = self.recipe
        return self.work.stage(
            "tune",
            [
                plain(recipe.tune),
                self.base.digest,
                recipe.task,
                recipe.gate.rows,
                recipe.device,
                encoded.parts.template,
            ],
            lambda folder: tune_language_model(
                encoded.language_rows(recipe.gate.rows, recipe.seed),
                self.base,
                recipe.tune,
                tokenizer=encoded.tokenizer,
                device=recipe.device,
                seed=recipe.seed,
                folder=folder,
                progress=self.lines.progress,
            ),
            TunedLanguageModel.open,
            lambda found: f"perplexity {found.base.perplexity:.4g} to {found.tuned.perplexity:.4g}",
            others="help",
        )

    def export(self, encoded: EncodedConversations, tuned: TunedLanguageModel) -> DecoderGraph:
        chats = encoded.conversations.test or encoded.conversations.validation
        texts = encoded.prompt_texts(frozen_rows(chats, self.recipe.gate.rows, self.recipe.seed))
        return self.work.stage(
            "export",
            plain(self.recipe.export),
            lambda folder: export_generation(
                tuned.model_folder,
                texts,
                folder,
                self.lines.progress,
                batch_one=self.recipe.export.batch == "one",
            ),
            DecoderGraph.open,
            lambda found: f"{found.nodes} nodes, first logits within {found.max_abs_diff or 0:.1e}",
        )

    def compress(self, encoded: EncodedConversations, graph: DecoderGraph) -> Climbed:
        recipe, names = self.recipe, self.recipe.compress.schemes
        schemes = list(LADDER) if names == "auto" else [SCHEMES[name] for name in names]
        kept = Kept(self.trials, self.work.chain)  # before the stage: what is made outlives another gate
        return self.work.stage(
            "compress",
            [plain(recipe.compress), plain(recipe.gate)],
            lambda folder: self._ladder(encoded, graph, kept).climb(schemes).save(folder),
            lambda folder: Climbed.open(folder, self.trials),
            lambda found: f"{len(found.candidates)} tried, {found.order[0] if found.order else 'none'} preferred",
        )

    def _ladder(self, encoded: EncodedConversations, graph: DecoderGraph, kept: Kept) -> Ladder:
        recipe = self.recipe
        calibration = frozen_rows(encoded.parts.train, recipe.compress.calibration_rows, recipe.seed)
        return Ladder(
            graph=graph,
            rows=JudgedRows.of(encoded.parts.validation, recipe.gate.rows, recipe.seed),
            calibration=[row["input_ids"] for row in calibration],
            gate=recipe.gate,
            block=recipe.compress.block,
            threads=None if recipe.benchmark.threads == "auto" else recipe.benchmark.threads,
            kept=kept,
            progress=self.lines.progress,
        )

    @property
    def trials(self) -> Path:
        """Where the search keeps what it made."""
        return self.work.folder / "trials"

    def bench(
        self, encoded: EncodedConversations, tuned: TunedLanguageModel, graph: DecoderGraph, climbed: Climbed
    ) -> LanguageBenched:
        recipe = self.recipe
        contest = LanguageContest(
            climbed=climbed,
            graph=graph,
            tuned=tuned,
            base=self.base,
            encoded=encoded,
            packing=self._packing(encoded, tuned, graph),
            gate=recipe.gate,
            budget=recipe.budget,
            benchmark=recipe.benchmark,
            seed=recipe.seed,
            command=command_line(),
            schemes=recipe.compress.schemes,
            trust_remote_code=recipe.tune.trust_remote_code,
        )
        return self.finishing.bench(
            [plain(recipe.gate), plain(recipe.budget), plain(recipe.benchmark)],
            lambda folder, kept: bench_language_model(contest, folder, kept, self.lines.progress),
            LanguageBenched.open,
            lambda found: f"{found.report.chosen} chosen",
        )

    @property
    def finishing(self) -> Finishing[LanguageReport]:
        """How the build ends."""
        return Finishing(self.recipe, self.work, self.lines, LanguageReport.load, render_language_html)

    def _packing(
        self, encoded: EncodedConversations, tuned: TunedLanguageModel, graph: DecoderGraph
    ) -> LanguagePacking:
        stops = [*graph.spec.eos_ids, *(one for one in encoded.parts.stop_ids[:1] if one not in graph.spec.eos_ids)]
        chats = frozen_rows(encoded.conversations.validation, GOLDEN_PROMPTS, self.recipe.seed)
        return LanguagePacking(
            name=Path(self.recipe.out).name,
            model_folder=tuned.model_folder,
            base=BaseIdentity(self.base.id, self.base.digest),
            data_digest=encoded.conversations.digest,
            spec=msgspec.structs.replace(graph.spec, eos_ids=stops),
            golden_prompts=tuple(encoded.prompt_texts(chats)),
            template=encoded.parts.template,
        )
