"""The report of all tasks together, from those of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from edgetune.benchmarks.prove.proof import FinalVerdict
from edgetune.benchmarks.prove.search import Searched
from edgetune.serve.digest import value_sha256
from edgetune.serve.report import CandidateReport, DataSummary, Proof, Quality, Report, StageQuality
from edgetune.serve.tasks_report import QUALITY_KEPT, SEVERAL_TASKS, TasksReport
from edgetune.serve.verdict import Decision, Reason
from edgetune.tune.metrics import is_error, is_percent, title_of

_SHIPS = ("no", "with care", "yes")  # from worst to best


def joint_report(reports: Mapping[str, Report], searched: Searched, final: FinalVerdict) -> TasksReport:
    """The report of all tasks, whose own are in it.

    Args:
        reports: of each task, by its name.
        searched: the candidates of all tasks together.
        final: what may be packed.
    """
    first = next(iter(reports.values()))
    candidates = [msgspec.structs.replace(one, chosen=one.scheme == final.chosen) for one in searched.candidates]
    shared = {name: getattr(first, name) for name in first.__struct_fields__}
    rows = sum(report.quality.n for report in reports.values())
    shared |= {
        "task": SEVERAL_TASKS,
        "decision": _decision(reports),
        "verdict": _verdict(reports, candidates, final),
        "data": _data(reports),
        "quality": Quality(metric=QUALITY_KEPT, n=rows, stages=_stages(reports)),
        "candidates": candidates,
        "proof": _proof(reports, final, rows),
        "gains": [],
        "cascade": None,
        "calibration": None,
        "abstention": None,
        "gate": {**first.gate, "metric": QUALITY_KEPT, "correction": f"Bonferroni over {len(reports)} tasks"},
        "notes": _notes(reports),
        "tasks": dict(reports),
    }
    return TasksReport(**shared)


def _notes(reports: Mapping[str, Report]) -> list[str]:
    first = next(iter(reports))
    return [
        f"The base that was timed is a model of one task, {first}, in PyTorch; a user without this bundle runs "
        f"{len(reports)} such models.",
        "Figures of all tasks together are the mean of what each keeps of the tuned model's quality.",
    ]


def _decision(reports: Mapping[str, Report]) -> Decision | None:
    """As careful as of the task that asks for most care; reasons name their task."""
    given = {task: report.decision for task, report in reports.items() if report.decision is not None}
    if not given:
        return None
    told: dict[tuple[str, str], list[str]] = {}  # what holds for the one bundle is told once
    for task, decision in sorted(given.items(), key=lambda item: _SHIPS.index(item[1].ship)):
        for reason in decision.reasons:
            told.setdefault((reason.rule, reason.sentence), []).append(task)
    reasons = [
        Reason(rule=rule, sentence=sentence if len(tasks) == len(given) > 1 else f"{', '.join(tasks)}: {sentence}")
        for (rule, sentence), tasks in told.items()
    ]
    return Decision(ship=min((one.ship for one in given.values()), key=_SHIPS.index), reasons=reasons)


def _verdict(reports: Mapping[str, Report], candidates: Sequence[CandidateReport], final: FinalVerdict) -> str:
    if not final.chosen:
        reasons = "; ".join(f"{one.scheme}: {one.reason}" for one in candidates)
        return f"No candidate may be packed, so nothing was written. {reasons}."
    values = []
    for task, report in reports.items():
        tuned, packed = report.stage("tuned"), report.packed
        if tuned is not None and packed is not None:
            metric = report.quality.metric
            values.append(f"{task} {_shown(packed.value, metric)} (tuned {_shown(tuned.value, metric)})")
    size = next(iter(reports.values())).size_bytes
    return (
        f"The {final.chosen} bundle answers {len(reports)} tasks in one pass and takes {(size.bundle or 0) / 1e6:.1f} "
        f"MB: {', '.join(values)}."
    )


def _shown(value: float, metric: str) -> str:
    return f"{100 * value:.2f}% {title_of(metric)}" if is_percent(metric) else f"{value:.4g} {title_of(metric)}"


def _stages(reports: Mapping[str, Report]) -> list[StageQuality]:
    """The stages of all tasks together: the mean of what is kept of the tuned model's quality, and of agreement."""
    stages = []
    for name in dict.fromkeys(stage.stage for report in reports.values() for stage in report.quality.stages):
        each = [(report, report.stage(name)) for report in reports.values()]
        there = [(report, stage) for report, stage in each if stage is not None]
        kept = [_kept(report, stage.value) for report, stage in there]
        agreements = [stage.agreement for _, stage in there if stage.agreement is not None]
        value = float(np.mean(kept))
        stages.append(
            StageQuality(
                stage=name,
                value=value,
                ci95=[],
                agreement=float(np.mean(agreements)) if agreements else None,
                drop=None if name == "base" else 1 - value,
            )
        )
    return stages


def _kept(report: Report, value: float) -> float:
    """What a stage keeps of the tuned model's quality by the task's metric."""
    tuned = report.stage("tuned")
    assert tuned is not None
    if not is_error(report.quality.metric):
        return 1 + value - tuned.value
    return 2 - value / tuned.value if tuned.value else 1.0


def _proof(reports: Mapping[str, Report], final: FinalVerdict, rows: int) -> Proof | None:
    proofs = [report.proof for report in reports.values() if report.proof is not None]
    if final.verdict is None or not proofs:
        return None
    return Proof(
        gate=final.verdict.gate,
        value=float(np.mean([_kept(report, report.proof.value) for report in reports.values() if report.proof])),
        drop=final.verdict.loss.loss,
        drop_interval=list(final.verdict.loss.interval),
        p_value=final.verdict.loss.p_value,
        reason=final.verdict.reason,
        rows=rows,
        rows_needed=final.verdict.rows_needed,
        looks=final.looks,
    )


def _data(reports: Mapping[str, Report]) -> DataSummary:
    data = {task: report.data for task, report in reports.items()}
    weights = [sum(one.rows.values()) for one in data.values()]
    parts = next(iter(data.values())).rows
    return DataSummary(
        source=", ".join(f"{task}: {one.source}" for task, one in data.items()),
        digest="sha256:" + value_sha256({task: one.digest for task, one in data.items()}),
        rows={part: sum(one.rows[part] for one in data.values()) for part in parts},
        labels=[],
        tokens_mean=round(float(np.average([one.tokens_mean for one in data.values()], weights=weights)), 2),
        tokens_max=max(one.tokens_max for one in data.values()),
        truncated=sum(one.truncated for one in data.values()),
        unknown_share=round(float(np.average([one.unknown_share for one in data.values()], weights=weights)), 5),
        findings=[f"{task}: {finding}" for task, one in data.items() for finding in one.findings],
    )
