"""The proof for other processors: rows of the test part are answered as each class does, and judged beside the answers
that the gate judged; a scheme that answers otherwise there is refused for that class, and the next one is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np

from edgetune.benchmarks.prove.gate import judge_answers
from edgetune.benchmarks.prove.ledger import Logits, Slice, bundle_logits
from edgetune.benchmarks.recipe import GateRecipe
from edgetune.benchmarks.target_recipe import TargetRecipe
from edgetune.benchmarks.targets.emulation import SATURATING, Prover, prover_of
from edgetune.benchmarks.targets.replay import MOST_ROWS, MOST_SECONDS, TargetRows, replay_rows
from edgetune.serve.bundle import GRAPH_NAME, LEAST_TOLERANCE, Bundle
from edgetune.serve.errors import GateError
from edgetune.serve.predictor import Predictor
from edgetune.serve.report import Report
from edgetune.serve.report_targets import TargetReport
from edgetune.serve.targets import HERE, TARGETS, TargetEntry, target_here
from edgetune.serve.token_outputs import difference, empty
from edgetune.tune.data.slices import frozen_indices
from edgetune.tune.training.progress import Progress

# Operators with products of bytes whose sums ONNX Runtime makes fit where it is asked to (tests/benchmarks/targets has
# the emulated proof of each); what others compute on another processor only an emulator says.
_FITTING = frozenset(
    {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QAttention", "MatMulInteger", "QLinearMatMul", "QLinearConv"}
)
_OTHER_PRODUCTS = frozenset({"MatMulNBits", "ConvInteger", "QGemm", "DynamicQuantizeLSTM"})
# Golden logits may differ by so many times what was measured, and by this share of what the scheme allows: whether a
# number near the middle of two steps is rounded up or down depends on the last bit of a sum, on each processor anew.
_MARGIN, _LEAST_SHARE = 1.5, 0.25


@dataclass(frozen=True)
class TargetTerms:
    """What is to be proven: the classes, the gate, the seed of the rows that are drawn, the time for each class."""

    targets: tuple[TargetRecipe, ...]
    gate: GateRecipe
    seed: int
    seconds: float = MOST_SECONDS


@dataclass(frozen=True)
class TargetCandidate:
    """A draft that may answer on a class: its logits on all rows here, None where they were not asked for yet."""

    draft: Bundle
    logits: Logits | None = None


def prove_targets(
    candidates: Mapping[str, TargetCandidate], rows: Slice, terms: TargetTerms, progress: Progress
) -> list[TargetReport]:
    """A report for each class.

    Args:
        candidates: by route, the chosen one first and then those that may stand in for it.
        rows: of the test part that judged.
        terms: the classes.
        progress: told each proof.
    """
    # In an order of their own: where time is short the first of them judge.
    drawn = frozen_indices(len(rows.texts), MOST_ROWS, terms.seed)
    picked = np.random.default_rng(terms.seed).permutation(drawn)
    part = replace(rows, texts=tuple(rows.texts[row] for row in picked), expected=rows.expected[picked])
    known: dict[str, Logits] = {}

    def here(route: str) -> Logits:
        if route not in known:
            one = candidates[route]
            known[route] = bundle_logits(Predictor(one.draft), part) if one.logits is None else one.logits[picked]
        return known[route]

    reports = []
    drafts = {route: one.draft for route, one in candidates.items()}
    for name, target in resolved(terms.targets).items():
        report = _prove_one(name, drafts, part, here, replace(terms, targets=(target,)))
        progress.say(report.line)
        reports.append(report)
    return reports


def resolved(targets: Sequence[TargetRecipe]) -> dict[str, TargetRecipe]:
    """The targets by the name of their class, this machine's for "here" where it has one; of one class the first."""
    named: dict[str, TargetRecipe] = {}
    for one in targets:
        named.setdefault(target_here() if one.isa == HERE else one.isa, one)
    return {name: one for name, one in named.items() if name}


def is_for_others(targets: Sequence[TargetRecipe]) -> bool:
    """Whether a class is named that this machine is not of."""
    return bool(resolved(targets).keys() - {target_here()})


def entries(reports: Sequence[TargetReport], drafts: Mapping[str, Bundle]) -> list[TargetEntry]:
    """What the manifest says of the classes, with the tolerances of golden answers that follow from all of them."""
    noise = max((max(one.max_abs_diff or 0.0, one.golden_diff or 0.0) for one in reports), default=0.0)
    found = []
    for one in reports:
        if not one.scheme:
            continue
        draft = drafts[one.scheme]
        allowed = draft.golden().tolerance
        measured = one.proof in ("emulated", "computed")
        tolerance = max(_MARGIN * noise, _LEAST_SHARE * allowed, LEAST_TOLERANCE)
        found.append(
            TargetEntry(
                name=one.name,
                scheme=draft.manifest.scheme,
                proof=one.proof,
                rows=one.rows,
                agreement=one.agreement,
                tolerance=min(tolerance, allowed) if measured else None,
            )
        )
    return found


def check_targets(report: Report, targets: Sequence[TargetRecipe], kept_report: Path) -> None:
    """Refuse a bundle that answers otherwise on a class of processors, or takes more memory than there is there.

    Raises:
        GateError: the report is at `kept_report`.
    """
    names = resolved(targets)
    if lost := [one for one in report.targets if not one.scheme]:
        raise GateError(
            " ".join(one.line for one in lost),
            expected="a graph that answers on each target as it was judged here",
            action=f"see {kept_report}; lower the target's min_agreement, allow more schemes, or leave the target away",
        )
    limits = {name: one.memory_mb for name, one in names.items() if one.memory_mb is not None}
    if not limits:
        return
    peak = report.memory.bundle.rss_peak_bytes if report.memory else None
    if peak is None or peak > 1e6 * min(limits.values()):
        peak_mb = "memory that was not measured" if peak is None else f"{peak / 1e6:.0f} MB of memory here"
        raise GateError(
            f"The {report.chosen} bundle takes {peak_mb}.",
            expected="; ".join(f"at most the {limit:g} MB of {name}" for name, limit in limits.items()),
            action=f"see {kept_report}; tune a smaller base, or raise the target's memory_mb",
        )


def _prove_one(
    name: str, drafts: Mapping[str, Bundle], rows: Slice, here: Callable[[str], Logits], terms: TargetTerms
) -> TargetReport:
    prover, chosen = prover_of(name), next(iter(drafts))
    report = TargetReport(
        name=name, summary=TARGETS[name].summary, scheme=chosen, proof=prover.proof, how=prover.reason
    )
    if prover.proof == "native":
        return report
    if drafts[chosen].manifest.provider != "cpu":
        how = f"the bundle runs on {drafts[chosen].manifest.provider}"
        return msgspec.structs.replace(report, proof="unproven", how=how)
    if prover.proof == "unproven":
        return report
    refused: dict[str, str] = {}
    for route, draft in drafts.items():
        if prover.proof == "computed" and (others := other_products(draft.folder / GRAPH_NAME)):
            how = f"only an emulator tells what {', '.join(others)} computes there"
            return msgspec.structs.replace(report, scheme=route, proof="unproven", how=how, refused=refused)
        proven = _judged(msgspec.structs.replace(report, scheme=route), prover, draft, rows, here(route), terms)
        if not proven.refused:
            return msgspec.structs.replace(proven, refused=refused)
        refused |= proven.refused
    return msgspec.structs.replace(report, scheme="", refused=refused)


def _judged(
    report: TargetReport, prover: Prover, draft: Bundle, rows: Slice, here: Logits, terms: TargetTerms
) -> TargetReport:
    """The report with what was measured; `refused` has the scheme where its answers are others."""
    there = replay_rows(prover, draft.folder, rows.texts, terms.seconds)
    computed = report.name if prover.proof == "emulated" else SATURATING
    fault = there.fault.rstrip(".")
    if not fault and there.result.target != computed:
        fault = f"the process took its processor for {there.result.target or 'one of no class'}"
    if fault:
        return msgspec.structs.replace(report, refused={report.scheme: fault})
    return _compared(report, there, rows, here, terms)


def _compared(report: TargetReport, there: TargetRows, rows: Slice, here: Logits, terms: TargetTerms) -> TargetReport:
    """Agreement, metric and paired loss from the answers here to those there, on the rows that were answered there."""
    count, bound = len(there.outputs), terms.targets[0].min_agreement
    before, after = alike(here[:count], there.outputs)
    answers, others = rows.answers(before), rows.answers(after)
    agreement = rows.objective.agreement(others, answers)
    measured = msgspec.structs.replace(
        report,
        rows=count,
        agreement=agreement,
        max_abs_diff=float(difference(after, before).max()),
        golden_diff=there.result.golden,
    )
    faults = []
    # One row more or less is no proof of anything, however few there are.
    counted = not np.issubdtype(answers.dtype, np.floating)
    if agreement < bound and not (counted and round((1 - agreement) * count) <= 1):
        faults.append(f"it agrees on {100 * agreement:.2f}% of {count:,} rows, at least {100 * bound:g}% is required")
    if rows.task.has_head:  # what is found among vectors depends on all rows, and these are some
        metric, expected = rows.objective.metric, rows.expected[:count]
        gate = terms.gate.model_copy(update={"min_agreement": 0.0, "when_inconclusive": "accept"})
        verdict = judge_answers(metric, expected, answers, others, gate)
        measured = msgspec.structs.replace(
            measured,
            value=metric.of(expected, others),
            here_value=metric.of(expected, answers),
            drop=verdict.loss.loss,
            drop_interval=list(verdict.loss.interval),
            gate=verdict.gate,
        )
        is_lost = verdict.gate == "fail" if counted else not verdict.accepted
        faults += [verdict.reason] if is_lost else []
    return msgspec.structs.replace(measured, refused={report.scheme: "; ".join(faults)} if faults else {})


def alike(outputs: Logits, others: Logits) -> tuple[Logits, Logits]:
    """Both with as many tokens, where they are of tokens: (rows, tokens, 2 + width) float32."""
    if outputs.ndim == 2:
        return outputs, others
    tokens = max(outputs.shape[1], others.shape[1])
    return _widened(outputs, tokens), _widened(others, tokens)


def _widened(outputs: Logits, tokens: int) -> Logits:
    wide = empty(len(outputs), tokens, outputs.shape[2] - 2)
    wide[:, : outputs.shape[1]] = outputs
    return np.asarray(wide)


def other_products(graph: Path) -> list[str]:
    """Operators of a graph with products of bytes whose sums ONNX Runtime is not known to make fit, by name."""
    import onnx

    kinds = {node.op_type for node in onnx.load(str(graph), load_external_data=False).graph.node}
    return sorted(kinds & _OTHER_PRODUCTS - _FITTING)
