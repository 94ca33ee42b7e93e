"""A language model's report put together: the ledger of stages, candidates, timing, data and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgetune import __version__
from edgetune.benchmarks.prove.gate import Verdict
from edgetune.benchmarks.prove.statistics import metric_interval
from edgetune.benchmarks.stepwise.bundle_answers import BundleAnswers
from edgetune.benchmarks.stepwise.choice import skipped_schemes, why_chosen
from edgetune.benchmarks.stepwise.divergence import Divergence
from edgetune.benchmarks.stepwise.figures import GenerationTiming
from edgetune.benchmarks.stepwise.judged_rows import Margins
from edgetune.benchmarks.stepwise.llama_cpp import engine_notes
from edgetune.benchmarks.timing.machine import describe_machine
from edgetune.compress.gptq.coverage import MOSTLY
from edgetune.serve.bundle import Bundle
from edgetune.serve.cores import usable_cores
from edgetune.serve.report import Pair
from edgetune.serve.stepwise.report import (
    AnswerQuality,
    AnswersQuality,
    ConversationSummary,
    LanguageProof,
    LanguageReport,
    ObjectiveQuality,
    ObjectiveStage,
)
from edgetune.tune.metrics import PERPLEXITY, PREFERENCE_ACCURACY, Statistics

if TYPE_CHECKING:
    from edgetune.benchmarks.stepwise.bench import LanguageContest


@dataclass(frozen=True)
class Judged:
    """What the test part said: the scheme that may be packed ("" for none), how far it lies, and what fell before.

    `margins` are of judged pairs of answers, where there are any.
    """

    chosen: str
    divergence: Divergence | None
    verdict: Verdict | None
    looks: int
    fallen: Mapping[str, str]
    margins: Margins | None = None


@dataclass(frozen=True)
class Measured:
    """What was found of the draft: how far its fp32 graph lies from the tuned model, what it answers, how fast."""

    draft: Bundle
    fidelity: Divergence
    answered: BundleAnswers
    timing: GenerationTiming


def assemble_language_report(contest: LanguageContest, judged: Judged, measured: Measured | None) -> LanguageReport:
    """All that was measured, as the bundle keeps it; `measured` is None where no candidate may be packed."""
    timing = measured.timing if measured else None
    candidates = [
        msgspec.structs.replace(one, chosen=one.scheme == judged.chosen) for one in contest.climbed.candidates
    ]
    base, quality = contest.base.folder, _quality(contest, judged, measured)
    return LanguageReport(
        name=contest.packing.name,
        task=contest.packing.task,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        edgetune=__version__,
        verdict=_verdict(quality, judged, timing, _chosen_name(contest, judged)),
        base=contest.base.id,
        chosen=judged.chosen,
        command=contest.command,
        machine=describe_machine(contest.threads or usable_cores()),
        data=_data(contest),
        training=contest.tuned.training,
        quality=quality,
        candidates=candidates,
        proof=_proof(judged),
        why=why_chosen(contest.climbed, judged.chosen, judged.fallen, contest.schemes),
        skipped=skipped_schemes(contest.climbed, contest.schemes),
        first_token_ms=timing.first_token_ms if timing else [],
        decoding=timing.decoding if timing else [],
        memory=timing.memory if timing else None,
        cold_start_ms=timing.cold_start_ms if timing else None,
        timing_valid=timing.verdict.valid if timing else True,
        timing_remark=timing.verdict.remark if timing else "",
        size_bytes=Pair(
            base=sum(path.stat().st_size for path in base.iterdir() if path.is_file()),
            bundle=measured.draft.size_bytes if measured else None,
        ),
        gate=contest.gate.as_used(PERPLEXITY, PREFERENCE_ACCURACY if judged.margins else None),
        samples=list(measured.answered.samples) if measured else [],
        engines=timing.engines if timing else [],
        notes=_notes(contest, judged, measured),
        objective=_objective(contest, judged),
    )


def _objective(contest: LanguageContest, judged: Judged) -> ObjectiveQuality | None:
    """What the objective came to, with the packed candidate's preferences beside those of base and tuned model."""
    quality, margins = contest.tuned.objective, judged.margins
    if quality is None or margins is None:
        return quality
    packed = ObjectiveStage(
        stage=judged.chosen,
        preference_accuracy=margins.accuracy,
        ci95=list(metric_interval(PREFERENCE_ACCURACY, PREFERENCE_ACCURACY.rows(None, margins.candidate))),
        margin=float(margins.candidate.mean()),
    )
    return msgspec.structs.replace(quality, stages=[*quality.stages, packed])


def _quality(contest: LanguageContest, judged: Judged, measured: Measured | None) -> AnswersQuality:
    """The ledger; all stages on the rows that judged the candidate."""
    tuned = contest.tuned
    first, second = (contest.judged_sums(sums) for sums in (tuned.base_perplexity, tuned.tuned_perplexity))
    stages = [
        AnswerQuality(
            stage=name,
            value=sums.value,
            ci95=_interval(PERPLEXITY.rows(sums.tokens, sums.losses)),
            token_accuracy=sums.token_accuracy,
            rise=0.0 if name == "tuned" else None,
            metrics={one.metric: getattr(one, name) for one in tuned.answers},
        )
        for name, sums in (("base", first), ("tuned", second))
    ]
    if judged.divergence is not None and judged.verdict is not None:
        stages += _graph_stages(judged.chosen, judged.divergence, judged.verdict, second.value, measured)
    return AnswersQuality(
        metric="perplexity",
        n=len(second.tokens),
        tokens=int(second.tokens.sum()),
        stages=stages,
        answers=tuned.answers[0].rows if tuned.answers else 0,
        answer_tokens=measured.answered.answer_tokens if measured else 0,
    )


def _interval(statistics: Statistics) -> list[float]:
    """95% interval of a perplexity over rows drawn whole."""
    return list(metric_interval(PERPLEXITY, statistics))


def _graph_stages(
    chosen: str, divergence: Divergence, verdict: Verdict, tuned: float, measured: Measured | None
) -> list[AnswerQuality]:
    """The graph in fp32 beside the tuned model, and the packed one beside the graph."""
    reference, candidate = divergence.statistics
    fidelity = measured.fidelity if measured else None
    graph = AnswerQuality(
        stage="onnx",
        value=divergence.reference_perplexity,
        ci95=_interval(reference),
        token_accuracy=divergence.reference_accuracy,
        kl=fidelity.kl_nats if fidelity else None,
        agreement=fidelity.top1_agreement if fidelity else None,
        rise=divergence.reference_perplexity / tuned - 1,
    )
    packed = AnswerQuality(
        stage=chosen,
        value=divergence.perplexity,
        ci95=_interval(candidate),
        token_accuracy=divergence.token_accuracy,
        kl=divergence.kl_nats,
        agreement=divergence.top1_agreement,
        rise=verdict.loss.loss,
        metrics=measured.answered.metrics if measured else {},
    )
    return [graph, packed]


def _proof(judged: Judged) -> LanguageProof | None:
    divergence, verdict = judged.divergence, judged.verdict
    if divergence is None or verdict is None:
        return None
    return LanguageProof(
        gate=verdict.gate,
        value=divergence.perplexity,
        rise=verdict.loss.loss,
        rise_interval=list(verdict.loss.interval),
        kl=divergence.kl_nats,
        agreement=divergence.top1_agreement,
        reason=verdict.reason,
        rows=len(divergence.texts),
        looks=judged.looks,
        second=verdict.second,
    )


def _data(contest: LanguageContest) -> ConversationSummary:
    encoded, conversations = contest.encoded, contest.encoded.conversations
    parts = {"train": encoded.parts.train, "validation": encoded.parts.validation, "test": encoded.parts.test}
    lengths = [len(row["input_ids"]) for part in parts.values() for row in part]
    return ConversationSummary(
        source=conversations.source,
        digest=conversations.digest,
        rows={name: len(part) for name, part in parts.items()},
        kind=conversations.kind,
        tokens_mean=float(np.mean(lengths)),
        tokens_max=max(lengths),
        findings=list(encoded.findings),
    )


def _chosen_name(contest: LanguageContest, judged: Judged) -> str:
    """The packed scheme, with the share of its bytes that is in few bits where that is the smaller part."""
    packed = next((one for one in contest.climbed.candidates if one.scheme == judged.chosen), None)
    if packed is None or not 0 < packed.quantized < MOSTLY:
        return judged.chosen
    return f"{judged.chosen} ({packed.quantized:.0%} of its bytes are quantized)"


def _verdict(quality: AnswersQuality, judged: Judged, timing: GenerationTiming | None, name: str) -> str:
    base, tuned = quality.stages[:2]
    gained = f"Tuning took the perplexity from {base.value:.4g} to {tuned.value:.4g}"
    if judged.margins is not None:
        right = float((judged.margins.reference > 0).mean())
        gained = (
            f"Tuned, it prefers the chosen answer in {100 * right:.1f}% of the pairs, packed in "
            f"{100 * judged.margins.accuracy:.1f}%. {gained}"
        )
    if judged.verdict is None or judged.divergence is None:
        return f"{gained}; no scheme passed the gate, so nothing was packed."
    rise, agreement = judged.verdict.loss.loss, judged.divergence.top1_agreement
    moved = "raised" if rise > 0 else "lowered"
    sentence = f"{gained}; {name} {moved} it by {abs(100 * rise):.2f}% and agrees in {100 * agreement:.1f}% of tokens"
    if timing is not None and not timing.verdict.valid:
        return f"{sentence}; the machine was too busy to judge its speed."
    one = next((row for row in timing.decoding if row.batch == 1 and row.speedup), None) if timing else None
    if one is None or one.speedup is None or one.bundle_per_second is None:
        return f"{sentence}; its speed was not measured."
    return f"{sentence}; it decodes {one.bundle_per_second:,.0f} tokens a second, {one.speedup:.1f} times PyTorch's."


def _notes(contest: LanguageContest, judged: Judged, measured: Measured | None) -> list[str]:
    notes = [
        f"{name} was preferred and then failed on the test part: {reason}." for name, reason in judged.fallen.items()
    ]
    if not contest.encoded.parts.test:
        notes.append("There is no test part: all stages were judged on the validation part, which chose them.")
    if not contest.graph.fused:
        notes.append("The graph could not be made or proven with fusions; without them it answers slower.")
    if measured and len(measured.fidelity.texts) < len(contest.rows):
        notes.append(
            f"KL divergence and agreement of the graph in fp32 are of {len(measured.fidelity.texts):,} of the rows."
        )
    packed = next((one for one in contest.climbed.candidates if one.scheme == judged.chosen), None)
    if packed is not None and packed.own_rise is not None and packed.own_kl is not None:
        notes.append(
            f"On texts that the tuned model drew itself, outside of the tuning data, {packed.scheme} raises the "
            f"perplexity by {100 * packed.own_rise:.2f}% and diverges by {packed.own_kl:.4f} nats a token; on the "
            f"validation part by {100 * packed.rise:.2f}% and {packed.kl:.4f} nats."
        )
    if packed is not None:
        notes += [f"Of {packed.scheme}, {remark}." for remark in packed.remarks]
    if measured:
        notes += engine_notes(measured.timing.engines)
    if measured and measured.answered.remark:
        notes.append(measured.answered.remark)
    notes.append(
        "Perplexity is of the answers' tokens alone, by the model's own tokens: compare it for one tokenizer only."
    )
    return notes
