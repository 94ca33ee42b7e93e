"""The bench stage: quality of every stage, gate, choice, timing, report; one function a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.benchmarks.gate import Verdict, judge
from edgetune.benchmarks.ledger import (
    Logits,
    Slice,
    bundle_logits,
    first_loss,
    frozen_slice,
    stage_qualities,
    torch_stages,
)
from edgetune.benchmarks.recipe import BenchmarkRecipe, BudgetRecipe, GateRecipe
from edgetune.benchmarks.reporting import Findings, assemble_report, summarize_data
from edgetune.benchmarks.timing import Race, Timing, race
from edgetune.compress.candidate import Candidate
from edgetune.compress.compression import Compressed
from edgetune.export.pack import Packing, draft_bundle
from edgetune.serve.bundle import REPORT_NAME, Bundle
from edgetune.serve.cores import usable_cores
from edgetune.serve.errors import GateError
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import CandidateReport, Pair, Report, StageQuality
from edgetune.tune.dataset import Dataset
from edgetune.tune.progress import Progress


@dataclass(frozen=True)
class Contest:
    """Everything that is measured: candidates, how they are packed, the data, and what the user asked of them.

    `fused` is False where the graph could only be made or proven without fusions.
    """

    compressed: Compressed
    packing: Packing
    dataset: Dataset
    gate: GateRecipe
    budget: BudgetRecipe
    benchmark: BenchmarkRecipe
    seed: int
    command: str
    fused: bool = True


@dataclass(frozen=True)
class Benched:
    """The report, and the draft of the candidate that was chosen."""

    report: Report
    draft: Bundle

    @classmethod
    def open(cls, folder: Path) -> Benched:
        """Open what `bench` wrote."""
        report = Report.load(folder / REPORT_NAME)
        return cls(report, Bundle.open(folder / report.chosen))


def bench(contest: Contest, folder: Path, kept_report: Path, progress: Progress) -> None:
    """Measure and judge into `folder`: a draft bundle a candidate and report.json.

    Raises:
        GateError: no candidate may be packed or a budget is not met; the report is at `kept_report`.
    """
    tuned = contest.packing.tuned
    rows = frozen_slice(contest.dataset.test, contest.gate.rows, contest.seed)
    logits = torch_stages(tuned, rows, progress)
    drafts = {}
    for candidate in contest.compressed.candidates:
        drafts[candidate.scheme] = draft_bundle(candidate, contest.packing, folder / candidate.scheme)
        found = bundle_logits(Predictor(drafts[candidate.scheme]), rows)
        if candidate.scheme == "fp32":
            logits["onnx"] = found
        logits[candidate.scheme] = found
        progress.say(f"quality of {candidate.scheme} measured on {len(rows.texts):,} rows")
    logits = {stage: logits[stage] for stage in _in_order(logits)}
    verdicts = {
        candidate.scheme: _judge(candidate, rows, logits, contest) for candidate in contest.compressed.candidates
    }
    chosen = next((scheme for scheme, verdict in verdicts.items() if verdict.accepted), None)
    timing = _time(chosen, drafts, verdicts, contest, progress) if chosen else None
    report = _report(contest, rows, logits, verdicts, chosen, drafts, timing)
    (folder / REPORT_NAME).write_bytes(report.to_json())
    kept_report.write_bytes(report.to_json())
    if chosen is None:
        raise GateError(report.verdict, action=f"see {kept_report}; loosen gate.max_drop, or tune a better model")
    _check_budget(report, contest.budget, kept_report)


def _in_order(logits: Mapping[str, Logits]) -> list[str]:
    first = ["base", "tuned", "merged", "onnx"]
    return [*(name for name in first if name in logits), *(name for name in logits if name not in first)]


def _judge(candidate: Candidate, rows: Slice, logits: Mapping[str, Logits], contest: Contest) -> Verdict:
    verdict = judge(
        rows.expected, logits["tuned"].argmax(axis=1), logits[candidate.scheme].argmax(axis=1), contest.gate
    )
    limit = contest.budget.size_mb
    if limit is not None and candidate.size_bytes > limit * 1e6:
        over = f"{candidate.size_bytes / 1e6:.1f} MB is over the budget of {limit:g} MB"
        return Verdict("fail", False, verdict.drop, f"{over}; {verdict.reason}")
    if verdict.gate != "pass" and candidate.scheme == "fp32" and verdict.drop.deviation == 0 and verdict.drop.drop == 0:
        # The same answers on every row, by a graph whose parity is proven: there is no drop to prove small.
        return Verdict("pass", True, verdict.drop, "the same answers as the tuned model on every row")
    return verdict


def _time(
    chosen: str,
    drafts: Mapping[str, Bundle],
    verdicts: Mapping[str, Verdict],
    contest: Contest,
    progress: Progress,
) -> Timing:
    tuned = contest.packing.tuned
    wanted = contest.benchmark.threads
    runners = Race(
        base=tuned.base_folder,
        bundle=drafts[chosen].folder,
        others={name: drafts[name].folder for name in drafts if name != chosen and verdicts[name].accepted},
        threads=usable_cores() if wanted == "auto" else wanted,
        device="cuda" if contest.packing.provider == "cuda" else "cpu",
        max_tokens=tuned.max_tokens,
    )
    texts = list(contest.dataset.test.texts)
    np.random.default_rng(contest.seed).shuffle(texts)
    return race(runners, texts[: max(contest.benchmark.samples, 512)], contest.benchmark, progress)


def _report(
    contest: Contest,
    rows: Slice,
    logits: Mapping[str, Logits],
    verdicts: Mapping[str, Verdict],
    chosen: str | None,
    drafts: Mapping[str, Bundle],
    timing: Timing | None,
) -> Report:
    from transformers import AutoTokenizer

    tuned = contest.packing.tuned
    metric = contest.gate.metric
    stages = stage_qualities(logits, rows.expected, metric)
    values = {entry.stage: entry.value for entry in stages}
    candidates = [
        _candidate_report(candidate, verdicts[candidate.scheme], values[candidate.scheme], chosen, timing)
        for candidate in contest.compressed.candidates
    ]
    answers = logits[chosen or "merged"].argmax(axis=1)
    findings = Findings(
        rows=rows,
        stages=stages,
        candidates=candidates,
        chosen_answers=answers,
        size_bytes=Pair(base=_model_bytes(tuned.base_folder), bundle=_graph_bytes(drafts, chosen)),
        timing=timing,
        notes=_notes(contest, rows, stages, answers, timing),
    )
    tokenizer = AutoTokenizer.from_pretrained(tuned.model_folder)
    threads = contest.benchmark.threads
    return assemble_report(
        contest.packing.name,
        contest.command,
        tuned,
        summarize_data(contest.dataset, tokenizer, tuned.max_tokens),
        findings,
        msgspec.to_builtins(contest.gate.model_dump()),
        metric,
        usable_cores() if threads == "auto" else threads,
    )


def _notes(
    contest: Contest, rows: Slice, stages: Sequence[StageQuality], answers: NDArray[np.int64], timing: Timing | None
) -> list[str]:
    """What a reader should know of the figures, one sentence each."""
    notes = [f"{name} made no candidate: {reason}" for name, reason in contest.compressed.failures.items()]
    if not contest.fused:
        notes.append("The graph could not be made or proven with fusions; without them it answers slower.")
    loss, metric = first_loss(stages), contest.gate.metric
    notes.append(
        f"The first stage whose {metric} is below the tuned model's is {loss}."
        if loss
        else f"No stage after tuning lost any {metric} on the test slice."
    )
    if timing is None:
        return notes
    judged = dict(zip(rows.texts, (contest.packing.tuned.labels[answer] for answer in answers), strict=True))
    both = [text for text in timing.answers if text in judged]
    same = sum(timing.answers[text] == judged[text] for text in both)
    notes.append(
        f"While it was timed, one text a call, the bundle answered {same:,} of {len(both):,} texts as in the judged "
        "batches; int8 takes its scales over the whole batch, so a close call may turn."
    )
    if len(contest.dataset.test) < contest.benchmark.samples:
        notes.append(
            f"The test part has {len(contest.dataset.test):,} texts; they were timed again in turn to reach "
            f"{contest.benchmark.samples} calls."
        )
    return notes


def _candidate_report(
    candidate: Candidate, verdict: Verdict, value: float, chosen: str | None, timing: Timing | None
) -> CandidateReport:
    is_chosen = candidate.scheme == chosen
    others = timing.others_ms if timing else {}
    return CandidateReport(
        scheme=candidate.scheme,
        size_bytes=candidate.size_bytes,
        dtypes=candidate.dtypes,
        value=value,
        drop=verdict.drop.drop,
        drop_interval=list(verdict.drop.interval),
        p_value=verdict.drop.p_value,
        gate=verdict.gate,
        accepted=verdict.accepted,
        reason=verdict.reason,
        rows_needed=verdict.rows_needed,
        latency_ms=timing.latency_ms.bundle if is_chosen and timing else others.get(candidate.scheme),
        chosen=is_chosen,
    )


def _model_bytes(folder: Path) -> int:
    """Weights, tokenizer and config of the base, as a user would copy them to run it."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _graph_bytes(drafts: Mapping[str, Bundle], chosen: str | None) -> int | None:
    return drafts[chosen].size_bytes if chosen else None


def _check_budget(report: Report, budget: BudgetRecipe, kept_report: Path) -> None:
    measured = {
        "p90_ms": report.latency_ms.bundle.p90 if report.latency_ms else None,
        "rss_mb": (report.memory.bundle.rss_peak_bytes or 0) / 1e6 if report.memory else None,
        "cold_start_ms": report.cold_start_ms.bundle if report.cold_start_ms else None,
    }
    limits = budget.model_dump()
    over = [
        f"{name} is {found:.4g}, the budget {limits[name]:.4g}"
        for name, found in measured.items()
        if limits[name] is not None and (found is None or found > limits[name])
    ]
    if over:
        raise GateError(
            f"The {report.chosen} candidate is over budget: {'; '.join(over)}.",
            action=f"see {kept_report}; raise the budget, or tune a smaller base",
        )
