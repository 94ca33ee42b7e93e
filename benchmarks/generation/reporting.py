"""A language model's report put together: the ledger of stages, candidates, timing, data and the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from edgetune import __version__
from edgetune.benchmarks.generation.divergence import Divergence
from edgetune.benchmarks.generation.figures import GenerationTiming
from edgetune.benchmarks.generation.gate import RiseVerdict
from edgetune.benchmarks.machine import describe_machine
from edgetune.serve.bundle import Bundle
from edgetune.serve.cores import usable_cores
from edgetune.serve.generation.report import (
    AnswerQuality,
    AnswersQuality,
    ConversationSummary,
    LanguageProof,
    LanguageReport,
)
from edgetune.serve.report import Pair
from edgetune.tune.generation.perplexity import Perplexity

if TYPE_CHECKING:
    from edgetune.benchmarks.generation.bench import LanguageContest

BOOTSTRAPS = 2_000


@dataclass(frozen=True)
class Judged:
    """What the test part said: the scheme that may be packed ("" for none), how far it lies, and what fell before."""

    chosen: str
    divergence: Divergence | None
    verdict: RiseVerdict | None
    looks: int
    fallen: Mapping[str, str]


def assemble_language_report(
    contest: LanguageContest, judged: Judged, draft: Bundle | None, timing: GenerationTiming | None
) -> LanguageReport:
    """All that was measured, as the bundle keeps it."""
    candidates = [
        msgspec.structs.replace(one, chosen=one.scheme == judged.chosen) for one in contest.climbed.candidates
    ]
    base = contest.base.folder
    return LanguageReport(
        name=contest.packing.name,
        task="text-generation",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        edgetune=__version__,
        verdict=_verdict(contest, judged, timing),
        base=contest.base.id,
        chosen=judged.chosen,
        command=contest.command,
        machine=describe_machine(contest.threads or usable_cores()),
        data=_data(contest),
        training=contest.tuned.training,
        quality=_quality(contest, judged),
        candidates=candidates,
        proof=_proof(judged),
        first_token_ms=timing.first_token_ms if timing else [],
        decoding=timing.decoding if timing else [],
        memory=timing.memory if timing else None,
        cold_start_ms=timing.cold_start_ms if timing else None,
        size_bytes=Pair(
            base=sum(path.stat().st_size for path in base.iterdir() if path.is_file()),
            bundle=draft.size_bytes if draft else None,
        ),
        gate=msgspec.to_builtins(contest.gate.model_dump()),
        notes=_notes(contest, judged),
    )


def perplexity_interval(found: Perplexity, seed: int = 0) -> list[float]:
    """95% interval of a perplexity: a percentile bootstrap over rows drawn whole."""
    rows = len(found.losses)
    draws = np.random.default_rng(seed).integers(0, rows, (BOOTSTRAPS, rows))
    drawn = np.exp(found.losses[draws].sum(axis=1) / found.tokens[draws].sum(axis=1))
    low, high = np.percentile(drawn, [2.5, 97.5])
    return [float(low), float(high)]


def _quality(contest: LanguageContest, judged: Judged) -> AnswersQuality:
    tuned, found = contest.tuned, judged.divergence
    stages = [
        AnswerQuality(
            stage=name,
            value=told.perplexity,
            ci95=perplexity_interval(sums),
            token_accuracy=told.token_accuracy,
            rise=0.0 if name == "tuned" else None,
            metrics={one.metric: getattr(one, name) for one in tuned.answers},
        )
        for name, told, sums in (
            ("base", tuned.base, tuned.base_perplexity),
            ("tuned", tuned.tuned, tuned.tuned_perplexity),
        )
    ]
    if found is not None and judged.verdict is not None:
        graph = found.reference_perplexity
        stages.append(AnswerQuality(stage="onnx", value=graph, rise=graph / tuned.tuned.perplexity - 1))
        stages.append(
            AnswerQuality(
                stage=judged.chosen,
                value=found.perplexity,
                kl=found.kl_nats,
                agreement=found.top1_agreement,
                rise=judged.verdict.rise,
            )
        )
    return AnswersQuality(metric="perplexity", n=tuned.tuned.rows, tokens=tuned.tuned.tokens, stages=stages)


def _proof(judged: Judged) -> LanguageProof | None:
    found, verdict = judged.divergence, judged.verdict
    if found is None or verdict is None:
        return None
    return LanguageProof(
        gate=verdict.gate,
        value=found.perplexity,
        rise=verdict.rise,
        rise_interval=list(verdict.interval),
        kl=found.kl_nats,
        agreement=found.top1_agreement,
        reason=verdict.reason,
        rows=len(found.texts),
        looks=judged.looks,
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


def _verdict(contest: LanguageContest, judged: Judged, timing: GenerationTiming | None) -> str:
    tuned = contest.tuned
    gained = f"Tuning took the perplexity from {tuned.base.perplexity:.4g} to {tuned.tuned.perplexity:.4g}"
    if judged.verdict is None or judged.divergence is None:
        return f"{gained}; no scheme passed the gate, so nothing was packed."
    rise, agreement = judged.verdict.rise, judged.divergence.top1_agreement
    moved = "raised" if rise > 0 else "lowered"
    said = (
        f"{gained}; {judged.chosen} {moved} it by {abs(100 * rise):.2f}% and agrees in {100 * agreement:.1f}% of tokens"
    )
    one = next((row for row in timing.decoding if row.batch == 1 and row.speedup), None) if timing else None
    if one is None or one.speedup is None or one.bundle_per_second is None:
        return f"{said}; its speed was not measured."
    return f"{said}; it decodes {one.bundle_per_second:,.0f} tokens a second, {one.speedup:.1f} times PyTorch's."


def _notes(contest: LanguageContest, judged: Judged) -> list[str]:
    notes = [
        f"{name} was preferred and then failed on the test part: {reason}." for name, reason in judged.fallen.items()
    ]
    if not contest.encoded.parts.test:
        notes.append("There is no test part: all stages were judged on the validation part, which chose them.")
    if not contest.graph.fused:
        notes.append("The graph could not be made or proven with fusions; without them it answers slower.")
    notes.append(
        "Perplexity is of the answers' tokens alone, by the model's own tokens: compare it for one tokenizer only."
    )
    return notes
