"""The bench stage of a language model: the choice is proven on the test part, timed beside the base, and told."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from edgetune.benchmarks.prove.choice import check_budget, megabytes
from edgetune.benchmarks.prove.gate import Verdict
from edgetune.benchmarks.prove.proof import prove
from edgetune.benchmarks.stepwise.bundle_answers import BundleAnswers, Interview, answer_held_out
from edgetune.benchmarks.stepwise.choice import Schemes
from edgetune.benchmarks.stepwise.divergence import Divergence
from edgetune.benchmarks.stepwise.fidelity import graph_fidelity
from edgetune.benchmarks.stepwise.figures import GenerationTiming, compared
from edgetune.benchmarks.stepwise.judged_rows import JudgedPairs, JudgedRows, Margins
from edgetune.benchmarks.stepwise.ladder import Climbed, diverges, judge_divergence
from edgetune.benchmarks.stepwise.llama_cpp import NAME as LLAMA_CPP
from edgetune.benchmarks.stepwise.llama_cpp import llama_cpp_side
from edgetune.benchmarks.stepwise.race import Workload, race, weight_bytes
from edgetune.benchmarks.stepwise.recipe import (
    GenerationBenchmarkRecipe,
    GenerationBudgetRecipe,
    GenerationGateRecipe,
)
from edgetune.benchmarks.stepwise.reporting import Judged, Measured, assemble_language_report
from edgetune.benchmarks.stepwise.side import GenerationSide
from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.export.stepwise.pack import LanguagePacking, draft_language_bundle
from edgetune.serve.bundle import REPORT_NAME, Bundle
from edgetune.serve.errors import GateError
from edgetune.serve.stepwise.report import LanguageReport
from edgetune.tune.data.slices import frozen_indices
from edgetune.tune.models.base import Base
from edgetune.tune.stepwise.encoded import EncodedConversations
from edgetune.tune.stepwise.model import TunedLanguageModel, open_language_model, open_pretrained
from edgetune.tune.stepwise.perplexity import Perplexity
from edgetune.tune.training.progress import Progress

DRAFT_NAME = "draft"


@dataclass(frozen=True)
class LanguageContest:
    """Everything that is measured: what the search found, the models, the rows, and what the user asked.

    `schemes` are those that the search was told to try; `trust_remote_code` lets the base's own code run.
    """

    climbed: Climbed
    graph: DecoderGraph
    tuned: TunedLanguageModel
    base: Base
    encoded: EncodedConversations
    packing: LanguagePacking
    gate: GenerationGateRecipe
    budget: GenerationBudgetRecipe
    benchmark: GenerationBenchmarkRecipe
    seed: int
    command: str
    schemes: Schemes = "auto"
    trust_remote_code: bool = False

    @property
    def threads(self) -> int | None:
        """Of each side; None for the usable cores."""
        return None if self.benchmark.threads == "auto" else self.benchmark.threads

    @property
    def rows(self) -> JudgedRows:
        """The rows of the test part that judge; of the validation part where there is no test part."""
        return JudgedRows.of(self.encoded.judging, self.gate.rows, self.seed)

    @property
    def pairs(self) -> JudgedPairs | None:
        """The rejected answers to these rows, where an objective of judged answers was learnt."""
        base = self.tuned.base_pairs(self.tuned.measured_on)
        return JudgedPairs.of(self.encoded.judging, base, self.gate.rows, self.seed)

    def judged_sums(self, sums: Perplexity) -> Perplexity:
        """Of the rows that were measured in tuning those that judge: without a test part they are fewer."""
        rows = len(self.encoded.judging)
        if len(sums.tokens) != rows:  # tuning measured the very rows that judge
            return sums
        judging = frozen_indices(rows, self.gate.rows, self.seed)
        return Perplexity(sums.losses[judging], sums.tokens[judging], sums.hits[judging])


@dataclass(frozen=True)
class LanguageBenched:
    """The report, and the draft of the candidate that was chosen."""

    report: LanguageReport
    draft: Bundle

    @classmethod
    def open(cls, folder: Path) -> LanguageBenched:
        """Open what `bench_language_model` wrote."""
        return cls(LanguageReport.load(folder / REPORT_NAME), Bundle.open(folder / DRAFT_NAME))


def bench_language_model(contest: LanguageContest, folder: Path, kept_report: Path, progress: Progress) -> None:
    """Measure and judge into `folder`: the chosen draft and report.json.

    Raises:
        GateError: no candidate may be packed or a budget is not met; the report is at `kept_report`.
    """
    judged = _prove(contest, progress)
    draft = _draft(contest, judged, folder) if judged.chosen else None
    report = assemble_language_report(contest, judged, _measure(contest, draft, progress) if draft else None)
    (folder / REPORT_NAME).write_bytes(report.to_json())
    kept_report.write_bytes(report.to_json())
    if draft is None:
        raise GateError(report.verdict, action=f"see {kept_report}; loosen gate.max_rise, or name --scheme fp32")
    measured = _measured(report)
    check_budget(report.chosen, contest.budget, measured, kept_report, timing_valid=report.timing_valid)


def _prove(contest: LanguageContest, progress: Progress) -> Judged:
    """The candidate that is proven on the test part, and how far it lies from the tuned model there."""
    rows, pairs = contest.rows, contest.pairs
    scores, margins = dict[str, Divergence](), dict[str, Margins]()

    def judge_candidate(name: str, looks: int) -> Verdict:
        graph = contest.climbed.graph(name)
        scores[name] = diverges(contest.graph, graph, rows, contest.threads)
        if pairs is not None:
            rejected = diverges(contest.graph, graph, pairs.rejected, contest.threads)
            margins[name] = pairs.margins(scores[name], rejected)
        return judge_divergence(scores[name], contest.gate, looks=looks, margins=margins.get(name))

    final = prove(contest.climbed.order, judge_candidate, len(rows), progress)
    found = scores.get(final.chosen), final.verdict, final.looks, final.fallen, margins.get(final.chosen)
    return Judged(final.chosen, *found)


def _draft(contest: LanguageContest, judged: Judged, folder: Path) -> Bundle:
    candidate = next(one for one in contest.climbed.candidates if one.scheme == judged.chosen)
    graph = contest.climbed.graph(judged.chosen)
    return draft_language_bundle(graph, judged.chosen, candidate.dtypes, contest.packing, folder / DRAFT_NAME)


def _measure(contest: LanguageContest, draft: Bundle, progress: Progress) -> Measured:
    """All that is found of a draft, its speed last: what is wrong with a metric shows before the long race."""
    fidelity = _hold_against_tuned(contest, progress)
    answered = _answer(contest, draft, progress)
    return Measured(draft, fidelity, answered, _time(contest, draft, progress))


def _hold_against_tuned(contest: LanguageContest, progress: Progress) -> Divergence:
    """The fp32 graph against the model that it was exported from."""
    fidelity = graph_fidelity(
        lambda: open_language_model(contest.tuned.model_folder),
        contest.graph.path,
        contest.rows,
        spec=contest.graph.spec,
        threads=contest.threads,
        seed=contest.seed,
        progress=progress,
    )
    progress.say(
        f"graph against tuned model on {len(fidelity.texts):,} rows: KL {fidelity.kl_nats:.1e} nats a token, "
        f"{100 * fidelity.top1_agreement:.4g}% of tokens agree"
    )
    return fidelity


def _answer(contest: LanguageContest, draft: Bundle, progress: Progress) -> BundleAnswers:
    """What the bundle answers where base and tuned model were asked."""
    scored, base = contest.tuned.answers, contest.base
    interview = Interview(
        rows=contest.encoded.language_rows(contest.gate.rows, contest.seed).measured,
        metrics=tuple(one.metric for one in scored),
        scored_rows=scored[0].rows if scored else 0,
        seed=contest.seed,
        tokenizer=contest.encoded.tokenizer,
        models={
            "base": lambda: open_pretrained(base, trust_remote_code=contest.trust_remote_code),
            "tuned": lambda: open_language_model(contest.tuned.model_folder),
        },
    )
    return answer_held_out(interview, draft.folder, contest.threads, progress)


def _time(contest: LanguageContest, draft: Bundle, progress: Progress) -> GenerationTiming:
    """The bundle as it is served against the base in PyTorch fp32, both with their tokenizers open."""
    spec, base = contest.packing.spec, contest.base.folder
    workload = Workload(spec.vocabulary, spec.context_tokens, contest.benchmark, contest.seed)
    sides = {
        "base": GenerationSide(
            "base", base, workload.threads, runtime="torch", size_bytes=weight_bytes(base), tokenizes=True
        ),
        "bundle": GenerationSide(
            "bundle",
            draft.folder,
            workload.threads,
            runtime="bundle",
            size_bytes=weight_bytes(draft.folder),
            most_batch=1 if spec.batch_one else None,
            tokenizes=True,
        ),
    }
    with tempfile.TemporaryDirectory(dir=draft.folder.parent, prefix=".gguf-") as scratch:
        other = llama_cpp_side(draft, contest.tuned.model_folder, Path(scratch), workload.threads, progress)
        if other is not None:
            sides[LLAMA_CPP] = other
        return compared(race(sides, workload, progress), "base", "bundle")


def _measured(report: LanguageReport) -> dict[str, float | None]:
    """The bundle's figures by the names of a budget."""
    single = next((row for row in report.decoding if row.batch == 1), None)
    first = min(report.first_token_ms, key=lambda row: row.prompt_tokens, default=None)
    return {
        "size_mb": megabytes(report.size_bytes.bundle),
        "rss_mb": megabytes(report.memory.bundle.rss_peak_bytes) if report.memory else None,
        "first_token_ms": first.bundle_ms if first else None,
        "tokens_per_second": single.bundle_per_second if single else None,
    }
