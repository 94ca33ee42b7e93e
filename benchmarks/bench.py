"""The bench stage: the choice is proven on the test part, timed beside the base, and told; one function a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.benchmarks.answer_recipe import AnswerRecipe
from edgetune.benchmarks.prove.calibration import Scored
from edgetune.benchmarks.prove.cascade import report_cascade
from edgetune.benchmarks.prove.choice import check_budget, gains, megabytes, over_budget, why_chosen
from edgetune.benchmarks.prove.confidence import OutsideAnswers, SettledHead, settle_head
from edgetune.benchmarks.prove.floor import Floor, compare, measure_floor
from edgetune.benchmarks.prove.gate import Verdict
from edgetune.benchmarks.prove.held_out import head_shift, held_out_logits
from edgetune.benchmarks.prove.ledger import (
    Logits,
    Slice,
    batched_answers,
    bundle_logits,
    encoded,
    first_loss,
    frozen_slice,
    model_answers,
    stage_qualities,
    torch_stages,
)
from edgetune.benchmarks.prove.proof import FinalVerdict, prove
from edgetune.benchmarks.prove.search import Searched
from edgetune.benchmarks.prove.variants import measured_variants, passed_variants
from edgetune.benchmarks.recipe import BenchmarkRecipe, BudgetRecipe, GateRecipe
from edgetune.benchmarks.report.decision import decide
from edgetune.benchmarks.report.reporting import Findings, assemble_report, summarize_data
from edgetune.benchmarks.target_recipe import TargetRecipe
from edgetune.benchmarks.targets.proof import TargetCandidate, TargetTerms, check_targets, entries, prove_targets
from edgetune.benchmarks.timing.race import Race, Timing, race
from edgetune.benchmarks.timing.runtime import measure_settings
from edgetune.benchmarks.timing.side import Side
from edgetune.compress.candidate import Candidate
from edgetune.compress.route import CASCADE_MARK
from edgetune.compress.schemes import SCHEMES
from edgetune.export.once.graph import Graph
from edgetune.export.once.pack import Packing, draft_bundle, settled_draft
from edgetune.serve.bundle import REPORT_NAME, Bundle, RuntimeSettings
from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import GateError
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import (
    BatchedAnswers,
    CandidateReport,
    CascadeReport,
    Pair,
    Proof,
    Report,
    StageQuality,
)
from edgetune.serve.report_targets import TargetReport
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.data.rows import Input
from edgetune.tune.metrics import Metric
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.progress import Progress

DRAFT_NAME = "draft"


@dataclass(frozen=True)
class Contest:
    """Everything that is measured: what the search found, the drafts' folder, the data, and what the user asked.

    `variants` are the schemes of the graphs that the bundle should hold beside the chosen one, `targets` the classes of
    processors that it is to be proven for; `head_name` is, of several tasks on one encoder, the one that is judged.
    """

    searched: Searched
    trials: Path
    graph: Graph
    packing: Packing
    dataset: Dataset
    gate: GateRecipe
    budget: BudgetRecipe
    benchmark: BenchmarkRecipe
    answer: AnswerRecipe
    seed: int
    command: str
    variants: tuple[str, ...] = ()
    targets: tuple[TargetRecipe, ...] = ()
    head_name: str = ""

    def predictor(self, draft: Bundle) -> Predictor:
        """A draft that answers, of several tasks this one alone."""
        return Predictor(draft, task=self.head_name)

    def draft(self, name: str) -> Bundle:
        """The draft of a candidate."""
        return Bundle.open(self.trials / name / "draft")

    @property
    def metric(self) -> Metric:
        """What the gate compares."""
        dataset, task = self.dataset, TASKS[self.packing.tuned.task]
        return task.objective(dataset.labels, self.gate.metric, dataset.train.targets).metric

    @property
    def threads(self) -> int:
        """Of the base, and at most of the bundle."""
        threads = self.benchmark.threads
        here = usable_cores() if threads == "auto" else threads
        return min([here, *(target.cores for target in self.targets if target.cores)])


@dataclass(frozen=True)
class Benched:
    """The report, and the draft of the candidate that was chosen."""

    report: Report
    draft: Bundle

    @classmethod
    def open(cls, folder: Path) -> Benched:
        """Open what `bench` wrote."""
        return cls(Report.load(folder / REPORT_NAME), Bundle.open(folder / DRAFT_NAME))


@dataclass(frozen=True)
class Choice:
    """The candidate that is packed: its name, its proof, its settled draft, and what its variants leave to be said.

    `head` is its head with temperature and threshold, None where answers have no probabilities.
    """

    name: str
    proof: Proof
    draft: Bundle
    head: SettledHead | None
    settings_ms: Mapping[str, float]
    notes: Sequence[str] = ()
    batched: BatchedAnswers | None = None
    targets: Sequence[TargetReport] = ()


def bench(contest: Contest, folder: Path, kept_report: Path, progress: Progress) -> None:
    """Measure and judge into `folder`: the chosen draft and report.json.

    Raises:
        GateError: no candidate may be packed or a budget is not met; the report is at `kept_report`.
    """
    dataset, gate = contest.dataset, contest.gate
    rows = frozen_slice(
        contest.packing.tuned, contest.metric.name, dataset.test, dataset.train, gate.rows, contest.seed
    )
    logits = torch_stages(contest.packing.tuned, rows, progress)
    logits["onnx"] = bundle_logits(contest.predictor(plain_draft(contest, folder)), rows)
    progress.say(f"quality of the graph measured on {len(rows.texts):,} rows")
    floor = measure_floor(rows, dataset, contest.seed)
    for entry in floor.entries:
        progress.say(f"{entry.stage} reaches {contest.metric.shown(entry.value)}: {entry.described}")
    final = _prove(contest, rows, logits, progress)
    choice = None
    if final.verdict is not None:
        value = contest.metric.of(rows.expected, rows.answers(logits[final.chosen]))
        proof = proof_of(final.verdict, value, len(rows.texts), final.looks)
        batched = batched_answers(contest.predictor(contest.draft(final.chosen)), rows, logits[final.chosen])
        targets = _prove_targets(contest, rows, logits, final.chosen, progress)
        choice = replace(_settle(contest, final.chosen, proof, folder, progress, targets), batched=batched)
    timing = time_bundle(contest, choice.draft, dataset.test.texts, progress) if choice else None
    report = decided(contest, build_report(contest, rows, logits, choice, final.fallen, timing, floor))
    (folder / REPORT_NAME).write_bytes(report.to_json())
    kept_report.write_bytes(report.to_json())
    if choice is None:
        by_budget = any(candidate.stopped_at == "budget" for candidate in report.candidates)
        limit = "raise the budget" if by_budget else f"loosen gate.{contest.gate.limit_name(contest.metric)}"
        raise GateError(report.verdict, action=f"see {kept_report}; {limit}, or tune a better model")
    check_abstention(report, kept_report)
    check_targets(report, contest.targets, kept_report)
    check_budget(report.chosen, contest.budget, measured(report), kept_report, timing_valid=report.timing_valid)


def check_abstention(report: Report, kept_report: Path) -> None:
    """Refuse a bundle whose answers would not keep to `answer.max_error`.

    Raises:
        GateError: they would not; the report is at `kept_report`.
    """
    if report.abstention is not None and not report.abstention.met:
        raise GateError(
            f"answer.max_error is not met. {report.abstention.remark}",
            action=f"see {kept_report}; raise answer.max_error, name more validation rows, or set answer.abstain_below",
        )


def plain_draft(contest: Contest, folder: Path) -> Bundle:
    """A bundle of the plainly exported graph, in the stage's folder."""
    graph = contest.graph.path
    candidate = Candidate("fp32", graph, graph.stat().st_size, {}, "copied from the export")
    return draft_bundle(candidate, contest.packing, folder / "plain", SCHEMES["fp32"].tolerance)


def _prove(contest: Contest, rows: Slice, logits: dict[str, Logits], progress: Progress) -> FinalVerdict:
    """The candidate that is proven on the test part; its logits are put beside those of the stages."""
    answers: dict[str, Logits] = {}

    def judge_candidate(name: str, looks: int) -> Verdict:
        answers[name] = bundle_logits(contest.predictor(contest.draft(name)), rows)
        return judge_draft(contest, name, rows, logits["tuned"], answers[name], looks)

    final = prove(contest.searched.order, judge_candidate, len(rows.texts), progress)
    if final.chosen:
        logits[final.chosen] = answers[final.chosen]
    return final


def _prove_targets(
    contest: Contest, rows: Slice, logits: Mapping[str, Logits], chosen: str, progress: Progress
) -> list[TargetReport]:
    """The proof for each class of processors, by the chosen candidate or by another graph of its model."""
    graphs = [scheme.name for scheme in SCHEMES.values() if scheme.level == "graph"]
    routes = passed_variants(chosen, graphs, contest.searched)[0]
    routes.sort(key=lambda route: next(one.size_bytes for one in contest.searched.candidates if one.scheme == route))
    candidates = {chosen: TargetCandidate(contest.draft(chosen), logits[chosen])}
    candidates |= {route: TargetCandidate(contest.draft(route)) for route in routes}
    return prove_targets(candidates, rows, TargetTerms(contest.targets, contest.gate, contest.seed), progress)


def judge_draft(contest: Contest, name: str, rows: Slice, reference: Logits, candidate: Logits, looks: int) -> Verdict:
    structural = next(one for one in contest.searched.candidates if one.scheme == name).structural
    is_float = name in ("fused", "fp32")
    return rows.judge(reference, candidate, contest.gate, structural=structural, is_float=is_float, looks=looks)


def proof_of(verdict: Verdict, value: float, rows: int, looks: int) -> Proof:
    return Proof(
        gate=verdict.gate,
        value=value,
        drop=verdict.loss.loss,
        drop_interval=list(verdict.loss.interval),
        p_value=verdict.loss.p_value,
        reason=verdict.reason,
        rows=rows,
        rows_needed=verdict.rows_needed,
        second=verdict.second,
        looks=looks,
    )


def _settle(
    contest: Contest, name: str, proof: Proof, folder: Path, progress: Progress, targets: Sequence[TargetReport]
) -> Choice:
    """Find the settings that the chosen draft is best run with, and copy it with them."""
    draft, texts = contest.draft(name), contest.dataset.validation.texts
    threads = None if contest.benchmark.threads == "auto" else contest.benchmark.threads
    settings, p50 = best_settings(contest, name, texts, progress)
    beside, notes = passed_variants(name, contest.variants, contest.searched)
    beside = list(dict.fromkeys([*beside, *(one.scheme for one in targets if one.scheme not in ("", name))]))
    drafts = {name: draft, **{one: contest.draft(one) for one in beside}}
    variants = measured_variants(drafts, settings, texts, threads, progress) if beside else []
    head = settle_head_of(contest, name, draft, progress)
    classes = entries(targets, drafts)
    settled = settled_draft(draft, folder / DRAFT_NAME, settings, variants, [head.spec] if head else None, classes)
    return Choice(name, proof, settled, head, p50, notes, targets=targets)


def best_settings(
    contest: Contest, name: str, texts: Sequence[Input], progress: Progress
) -> tuple[RuntimeSettings, dict[str, float]]:
    """The settings that a candidate's draft answers texts fastest with, and the p50 in ms of each that was tried."""
    threads = None if contest.benchmark.threads == "auto" else contest.benchmark.threads
    if contest.draft(name).manifest.engine is not None:
        return _unmeasured(1), {}
    if contest.packing.provider != "cpu":
        return _unmeasured(contest.threads), {}
    timed = contest.draft(name.rpartition(CASCADE_MARK)[2])  # of a cascade, what is run by ONNX Runtime
    return measure_settings(timed.folder, texts, progress, threads=threads)


def settle_head_of(contest: Contest, name: str, draft: Bundle, progress: Progress) -> SettledHead | None:
    """Temperature and threshold of the chosen draft's head, from its own answers to the validation part."""
    tuned, dataset = contest.packing.tuned, contest.dataset
    if not TASKS[tuned.task].has_labels:
        return None
    predictor = contest.predictor(draft)
    part, outside = dataset.validation, None
    rows = frozen_slice(tuned, contest.metric.name, part, dataset.train, contest.gate.rows, contest.seed)
    if dataset.out_of_scope is not None:
        halves = dataset.out_of_scope.halves(contest.seed)
        choosing, reporting = (predictor.logits(predictor.encode(texts), batch_size=1) for texts in halves)
        outside = OutsideAnswers(dataset.out_of_scope.source, choosing, reporting)
    candidate = next(one for one in contest.searched.candidates if one.scheme == name)
    shift: Logits | float = 0.0
    if draft.manifest.engine is None and not candidate.structural:  # the tuned model's own head answers
        shift = head_shift(tuned, contest.gate.rows, contest.seed, model_answers(tuned, rows))
    scored = Scored(held_out_logits(predictor, rows, shift), rows.expected)
    settled = settle_head(tuned.head, scored, outside, contest.answer, contest.gate.confidence, contest.seed)
    if settled is not None:
        progress.say(f"temperature {settled.temperature.temperature:g}: {settled.temperature.remark}")
        if settled.threshold.abstain_below is not None:
            progress.say(f"unsure below {settled.threshold.abstain_below:g}: {settled.threshold.remark}")
    return settled


def _unmeasured(threads: int) -> RuntimeSettings:
    from edgetune.serve.processor import cpu_name

    return RuntimeSettings(threads=threads, spinning=True, cpu=cpu_name(), cores=usable_cores())


def time_bundle(contest: Contest, draft: Bundle, texts: Sequence[Input], progress: Progress) -> Timing:
    """The base and the settled draft on texts of the test part, in an order by the seed."""
    tuned = contest.packing.tuned
    device = "cuda" if contest.packing.provider == "cuda" else "cpu"
    base = Side("base", tuned.base_folder, contest.threads, device=device, tuned=tuned.folder)
    texts = list(texts)
    np.random.default_rng(contest.seed).shuffle(texts)
    runners = Race(base, Side("bundle", draft.folder), tuned.max_tokens)
    return race(runners, texts[: max(contest.benchmark.samples, 512)], contest.benchmark, progress)


def build_report(
    contest: Contest,
    rows: Slice,
    logits: Mapping[str, Logits],
    choice: Choice | None,
    fallen: Mapping[str, str],
    timing: Timing | None,
    floor: Floor,
) -> Report:
    tuned, metric = contest.packing.tuned, contest.metric
    stages = stage_qualities(logits, rows)
    chosen = choice.name if choice else ""
    answers = rows.answers(logits[chosen or "merged"])
    candidates = [
        msgspec.structs.replace(one, chosen=choice is not None and one.scheme == chosen)
        for one in contest.searched.candidates
    ]
    steps = next((one.steps for one in candidates if one.chosen), [])
    findings = Findings(
        rows=rows,
        stages=stages,
        candidates=candidates,
        chosen_answers=answers,
        size_bytes=Pair(base=_model_bytes(tuned.base_folder), bundle=choice.draft.size_bytes if choice else None),
        timing=timing,
        notes=[
            *_notes(contest, stages, choice, fallen, timing),
            *(_as_timed(timing, rows, answers) if timing else ()),
            *(choice.notes if choice else ()),
            *(one.line for one in (choice.targets if choice else ()) if one.proof != "native"),
        ],
        batched=choice.batched if choice else None,
        floor=floor,
        comparisons=compare(
            rows, floor.answers, {stage: rows.answers(outputs) for stage, outputs in logits.items()}, chosen
        ),
        proof=choice.proof if choice else None,
        why=why_chosen(candidates, chosen, contest.budget) if choice else "",
        gains=gains(candidates, chosen, steps) if choice else [],
        skipped=contest.searched.skipped,
        runtime=_told_settings(choice),
        cascade=_cascade(contest, rows, next(one for one in candidates if one.chosen)) if choice else None,
        targets=list(choice.targets) if choice else [],
        head=choice.head if choice else None,
        chosen_logits=logits[choice.name if choice else "merged"],
    )
    return assemble_report(
        contest.packing.name,
        contest.command,
        tuned,
        summarize_data(contest.dataset, Encoder.of(tuned)),
        findings,
        contest.gate.as_used(metric, rows.second_metric),
        metric,
        contest.threads,
    )


def decided(contest: Contest, report: Report) -> Report:
    """The report with whether to ship what was built."""
    over = over_budget(contest.budget, measured(report), timing_valid=report.timing_valid) if report.chosen else ""
    return msgspec.structs.replace(report, decision=decide(report, over))


def _cascade(contest: Contest, rows: Slice, chosen: CandidateReport) -> CascadeReport | None:
    """What the small model of the packed candidate gives, None where there is none."""
    if not chosen.small:
        return None
    small, strong = chosen.small, chosen.scheme.rpartition(CASCADE_MARK)[2]
    known = {one.scheme: one for one in contest.searched.candidates}
    logits = {name: bundle_logits(Predictor(contest.draft(name)), rows) for name in (small, strong)}
    whole = Predictor(contest.draft(chosen.scheme))
    outputs = whole.outputs(encoded(whole, rows), batch_size=1)
    share = float(np.mean([by != whole.variant for by in outputs.answered_by or ()]))
    logits[chosen.scheme] = outputs.logits
    return report_cascade(rows, logits, chosen, (known[small], known[strong]), share)


def _told_settings(choice: Choice | None) -> dict[str, str | int | bool | float]:
    """The settings stored with the bundle, and the p50 in ms of each that was tried."""
    if choice is None or choice.draft.manifest.runtime is None:
        return {}
    tried = {f"p50 in ms with {name}": round(p50, 3) for name, p50 in choice.settings_ms.items()}
    return {**msgspec.to_builtins(choice.draft.manifest.runtime), **tried}


def _notes(
    contest: Contest,
    stages: Sequence[StageQuality],
    choice: Choice | None,
    fallen: Mapping[str, str],
    timing: Timing | None,
) -> list[str]:
    """What a reader should know of the figures, one sentence each."""
    notes = [f"{name} was preferred and then failed on the test part: {reason}." for name, reason in fallen.items()]
    if not contest.graph.fused:
        notes.append("The graph could not be made or proven with fusions; without them it answers slower.")
    loss, metric = first_loss(stages, contest.metric), contest.metric.title
    notes.append(
        f"The first stage whose {metric} is worse than the tuned model's is {loss}."
        if loss
        else f"No stage after tuning has a worse {metric} than the tuned model on the test slice."
    )
    if choice is not None and choice.batched is not None:
        notes.append(_in_batches(choice.batched))
    if timing is None:
        return notes
    if len(contest.dataset.test) < contest.benchmark.samples:
        notes.append(
            f"The test part has {len(contest.dataset.test):,} texts; they were timed again in turn to reach "
            f"{contest.benchmark.samples} calls."
        )
    return notes


def _as_timed(timing: Timing, rows: Slice, answers: NDArray[Any]) -> list[str]:
    """Whether the bundle answered while it was timed what it was judged by, a sentence where it did not."""
    judged = dict(zip(rows.texts, map(rows.head.plain, answers), strict=True))
    pairs = [(answer, judged[text]) for text, answer in timing.answers.items() if text in judged]
    same = sum(_are_same(*pair) for pair in pairs)
    if same == len(pairs):
        return []
    return [f"While it was timed, the bundle answered {same:,} of {len(pairs):,} inputs as it was judged."]


def _are_same(answer: Any, other: Any) -> bool:
    """Whether two answers as JSON are the same, of numbers and vectors but for rounding."""
    if isinstance(other, float):
        return math.isclose(answer, other, rel_tol=1e-4)
    if isinstance(other, list) and other and isinstance(other[0], float):
        return bool(np.allclose(answer, other, atol=1e-4))
    return bool(answer == other)


def _in_batches(batched: BatchedAnswers) -> str:
    """How answers in batches differ from those that were judged."""
    start = f"Judged one input a run; in batches of {batched.batch_size} the bundle answers"
    if batched.changed == 0:
        return f"{start} all {batched.n:,} test inputs the same (outputs within {batched.max_abs_diff:.2g})."
    return (
        f"{start} {batched.changed:.2%} of {batched.n:,} test inputs otherwise: int8_dynamic takes its scales over the "
        "whole batch."
    )


def _model_bytes(folder: Path) -> int:
    """Weights, tokenizer and config of the base, as a user would copy them to run it."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def measured(report: Report) -> dict[str, float | None]:
    """The bundle's figures by the names of a budget."""
    return {
        "size_mb": megabytes(report.size_bytes.bundle),
        "p90_ms": report.latency_ms.bundle.p90 if report.latency_ms else None,
        "rss_mb": megabytes(report.memory.bundle.rss_peak_bytes) if report.memory else None,
        "cold_start_ms": report.cold_start_ms.bundle if report.cold_start_ms else None,
    }
