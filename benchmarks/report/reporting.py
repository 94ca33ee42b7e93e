"""Assembling the report of a build from what each stage measured, and putting the verdict into one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune import __version__
from edgetune.benchmarks.prove.baseline import constant_baseline, warn_of_constant
from edgetune.benchmarks.prove.calibration import Scored
from edgetune.benchmarks.prove.confidence import SettledHead
from edgetune.benchmarks.prove.floor import Floor
from edgetune.benchmarks.prove.ledger import Logits, Slice, first_loss
from edgetune.benchmarks.timing.machine import describe_machine
from edgetune.benchmarks.timing.race import Timing
from edgetune.serve.report import (
    Baseline,
    BatchedAnswers,
    CandidateReport,
    CascadeReport,
    DataSummary,
    Gain,
    Pair,
    Proof,
    Quality,
    Report,
    StageQuality,
)
from edgetune.serve.report_targets import TargetReport
from edgetune.serve.verdict import Comparison
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.metrics import Metric
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.model import TunedModel


@dataclass(frozen=True)
class Findings:
    """What the bench stage measured, before it is told; `chosen` and `timing` are None when no candidate passed."""

    rows: Slice
    stages: list[StageQuality]
    candidates: list[CandidateReport]
    chosen_answers: NDArray[Any]
    size_bytes: Pair
    timing: Timing | None
    notes: list[str]
    batched: BatchedAnswers | None
    floor: Floor
    comparisons: list[Comparison]
    proof: Proof | None
    why: str
    gains: list[Gain]
    skipped: dict[str, str]
    runtime: dict[str, str | int | bool | float]
    head: SettledHead | None
    chosen_logits: Logits
    cascade: CascadeReport | None = None
    targets: Sequence[TargetReport] = ()


def summarize_data(dataset: Dataset, encoder: Encoder) -> DataSummary:
    """Rows, labels, token lengths of the training part, truncation over all parts, and the share of unknown tokens."""
    texts = [text for part in (dataset.train, dataset.validation, dataset.test) for text in part.texts]
    max_tokens = encoder.max_tokens
    lengths, unknowns = encoder.lengths(texts)
    longer = int(np.sum(lengths > max_tokens)) if encoder.reads_text else 0
    truncated = 0 if encoder.task.per_token else longer
    findings = list(dataset.findings)
    if longer and not truncated:
        findings.append(f"{longer:,} texts are longer than {max_tokens} tokens and are read in overlapping windows.")
    if truncated:
        findings.append(f"{truncated:,} texts are longer than {max_tokens} tokens and are cut there.")
    return DataSummary(
        source=dataset.source,
        digest=dataset.digest,
        rows={"train": len(dataset.train), "validation": len(dataset.validation), "test": len(dataset.test)},
        labels=list(dataset.labels),
        tokens_mean=round(float(lengths.mean()), 2),
        tokens_max=int(lengths.max()),
        truncated=truncated,
        unknown_share=round(unknowns / max(1, int(lengths.sum())), 5),
        findings=findings,
    )


def assemble_report(
    name: str,
    command: str,
    tuned: TunedModel,
    data: DataSummary,
    findings: Findings,
    gate: dict[str, str | float],
    metric: Metric,
    threads: int,
) -> Report:
    """The report without the build's seconds and peaks, which are known only after this stage."""
    chosen = next((candidate for candidate in findings.candidates if candidate.chosen), None)
    timing, rows = findings.timing, findings.rows
    baseline = constant_baseline(rows)
    warning = warn_of_constant(rows, findings.chosen_answers, baseline)
    scored = Scored(findings.chosen_logits, rows.expected)
    return Report(
        name=name,
        task=tuned.task,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        edgetune=__version__,
        verdict=_verdict(chosen, findings, metric, baseline) + (f" Warning: {warning}" if warning else ""),
        base=tuned.base_id,
        chosen=chosen.scheme if chosen else "",
        command=command,
        machine=describe_machine(threads),
        data=data,
        training=tuned.training,
        quality=Quality(
            metric=metric.name,
            n=len(findings.rows.texts),
            stages=findings.stages,
            first_loss=first_loss(findings.stages, metric),
            baseline=baseline,
            warning=warning,
            classes=rows.objective.classes(rows.expected, findings.chosen_answers),
            confusions=rows.objective.confusions(rows.expected, findings.chosen_answers, rows.texts),
            batched=findings.batched,
            floor=findings.floor.entries,
            floor_remark=findings.floor.remark,
            comparisons=findings.comparisons,
        ),
        candidates=findings.candidates,
        proof=findings.proof,
        why=findings.why,
        gains=findings.gains,
        skipped=findings.skipped,
        runtime=findings.runtime,
        calibration=findings.head.calibration(scored) if findings.head else None,
        abstention=findings.head.abstention(scored) if findings.head else None,
        latency_ms=timing.latency_ms if timing else None,
        grid_ms=timing.grid_ms if timing else [],
        throughput_per_second=timing.throughput_per_second if timing else None,
        memory=timing.memory if timing else None,
        cold_start_ms=timing.cold_start_ms if timing else None,
        timing_valid=timing.verdict.valid if timing else True,
        timing_remark=timing.verdict.remark if timing else "",
        size_bytes=findings.size_bytes,
        placement=timing.placement if timing else {},
        cascade=findings.cascade,
        targets=list(findings.targets),
        gate=gate,
        notes=[*findings.notes, *_data_notes(data)],
    )


def _verdict(chosen: CandidateReport | None, findings: Findings, metric: Metric, baseline: Baseline) -> str:
    proof = findings.proof
    if chosen is None or findings.timing is None or proof is None:
        reasons = "; ".join(f"{candidate.scheme}: {candidate.reason}" for candidate in findings.candidates)
        return f"No candidate may be packed, so nothing was written. {reasons}."
    values = {entry.stage: entry.value for entry in findings.stages}
    size = findings.size_bytes
    word = {"pass": "proven within", "inconclusive": "within, though not proven to be within,"}
    return (
        f"The {chosen.scheme} bundle {_speed(findings.timing)}, takes {(size.bundle or 0) / 1e6:.1f} MB instead of "
        f"{(size.base or 0) / 1e6:.1f}, and reaches {metric.shown(proof.value)} where the tuned model "
        f"reaches {metric.shown(values['tuned'])}, the base {metric.shown(values['base'])} and one constant answer, "
        f"{baseline.answer}, {metric.shown(baseline.metrics[metric.name])}: "
        f"{word[proof.gate]} the loss that was allowed."
    )


def _speed(timing: Timing) -> str:
    latency = timing.latency_ms
    if not timing.verdict.valid:
        return "was timed on a machine too busy to judge its speed"
    if latency.speedup.p50 is None:
        return "was timed on too few samples for a median"
    return (
        f"answers {latency.speedup.p50:.1f} times faster than the base in PyTorch "
        f"(p50 {latency.bundle.p50:.2f} against {latency.base.p50:.2f} ms)"
    )


def _data_notes(data: DataSummary) -> list[str]:
    if data.unknown_share < 0.05:
        return []
    return [
        f"{100 * data.unknown_share:.0f}% of all tokens are unknown to this base's vocabulary: it was not made for "
        "this language or domain, and another base will do better."
    ]
