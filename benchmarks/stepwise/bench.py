"""The bench stage of a language model: the choice is proven on the test part, timed beside the base, and told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgetune.benchmarks.stepwise.bundle_answers import BundleAnswers, Interview, answer_held_out
from edgetune.benchmarks.stepwise.choice import Schemes
from edgetune.benchmarks.stepwise.divergence import Divergence
from edgetune.benchmarks.stepwise.fidelity import graph_fidelity
from edgetune.benchmarks.stepwise.figures import GenerationTiming, compared
from edgetune.benchmarks.stepwise.ladder import Climbed, JudgedRows, Ladder, judge_divergence
from edgetune.benchmarks.stepwise.race import Course, GenerationSide, race, weight_bytes
from edgetune.benchmarks.stepwise.recipe import (
    GenerationBenchmarkRecipe,
    GenerationBudgetRecipe,
    GenerationGateRecipe,
)
from edgetune.benchmarks.stepwise.reporting import Judged, Measured, assemble_language_report
from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.export.stepwise.pack import LanguagePacking, draft_language_bundle
from edgetune.serve.bundle import REPORT_NAME, Bundle
from edgetune.serve.errors import GateError
from edgetune.serve.stepwise.report import LanguageReport
from edgetune.tune.models.base import Base
from edgetune.tune.stepwise.encoded import EncodedConversations
from edgetune.tune.stepwise.model import TunedLanguageModel, open_language_model, open_pretrained
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
        rows = self.encoded.judging[: self.gate.rows]
        return JudgedRows(tuple(tuple(row["input_ids"]) for row in rows), tuple(tuple(row["labels"]) for row in rows))


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
    _check_budget(report, contest.budget, kept_report)


def _prove(contest: LanguageContest, progress: Progress) -> Judged:
    """Judge the search's choice on the test part; if it fails there, the next one, with a wider interval each time."""
    ladder = Ladder(contest.graph, contest.rows, (), contest.gate, 32, contest.threads, progress)
    fallen: dict[str, str] = {}
    for looks, name in enumerate(contest.climbed.order, start=1):
        found = ladder.diverges(contest.climbed.graph(name))
        verdict = judge_divergence(found, contest.gate, looks=looks)
        progress.say(f"{name} on {len(found.texts):,} test rows: {verdict.gate}; {verdict.reason}")
        if verdict.accepted:
            return Judged(name, found, verdict, looks, fallen)
        fallen[name] = verdict.reason
    return Judged("", None, None, 0, fallen)


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
    found = graph_fidelity(
        lambda: open_language_model(contest.tuned.model_folder),
        contest.graph.path,
        contest.rows,
        spec=contest.graph.spec,
        threads=contest.threads,
        progress=progress,
    )
    progress.say(
        f"graph against tuned model on {len(found.texts):,} rows: KL {found.kl_nats:.1e} nats a token, "
        f"{100 * found.top1_agreement:.4g}% of tokens agree"
    )
    return found


def _answer(contest: LanguageContest, draft: Bundle, progress: Progress) -> BundleAnswers:
    """What the bundle answers where base and tuned model were asked."""
    scored, base = contest.tuned.answers, contest.base
    interview = Interview(
        rows=contest.encoded.language_rows(contest.gate.rows).measured,
        metrics=tuple(one.metric for one in scored),
        scored_rows=scored[0].rows if scored else 0,
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
    course = Course(spec.vocabulary, spec.context_tokens, contest.benchmark, contest.seed)
    sides = {
        "base": GenerationSide(
            "base", base, course.threads, runtime="torch", size_bytes=weight_bytes(base), tokenizes=True
        ),
        "bundle": GenerationSide(
            "bundle",
            draft.folder,
            course.threads,
            runtime="bundle",
            size_bytes=weight_bytes(draft.folder),
            most_batch=1 if spec.batch_one else None,
            tokenizes=True,
        ),
    }
    return compared(race(sides, course, progress), "base", "bundle")


def _check_budget(report: LanguageReport, budget: GenerationBudgetRecipe, kept_report: Path) -> None:
    # Times of a busy machine are none: what could not be judged is not met.
    unmeasured = "not measured" if report.timing_valid else "not measured on a quiet machine"
    decoding, first_tokens = (report.decoding, report.first_token_ms) if report.timing_valid else ([], [])
    single = next((row for row in decoding if row.batch == 1), None)
    first = min(first_tokens, key=lambda row: row.prompt_tokens, default=None)
    memory = report.memory.bundle.rss_peak_bytes if report.memory else None
    over = [
        *_above("size_mb", (report.size_bytes.bundle or 0) / 1e6, budget.size_mb, "not measured"),
        *_above("rss_mb", None if memory is None else memory / 1e6, budget.rss_mb, "not measured"),
        *_above("first_token_ms", first.bundle_ms if first else None, budget.first_token_ms, unmeasured),
    ]
    speed, least = single.bundle_per_second if single else None, budget.tokens_per_second
    if least is not None and (speed is None or speed < least):
        over.append(f"tokens_per_second is {unmeasured if speed is None else f'{speed:.4g}'}, wanted {least:.4g}")
    if over:
        raise GateError(
            f"The {report.chosen} candidate is over budget: {'; '.join(over)}.",
            action=f"see {kept_report}; raise the budget, or tune a smaller base",
        )


def _above(name: str, value: float | None, limit: float | None, unmeasured: str) -> list[str]:
    if limit is None or (value is not None and value <= limit):
        return []
    return [f"{name} is {unmeasured if value is None else f'{value:.4g}'}, the budget {limit:.4g}"]
