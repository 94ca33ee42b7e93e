"""The search over a language model's schemes: from the smallest up, until one passes the gate on validation rows.

Fewer bits decode faster, since decoding is bound by memory: the first that passes is the one to pack. What was made is
kept in a folder a scheme.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from edgetune.benchmarks.stepwise.divergence import Divergence, divergences
from edgetune.benchmarks.stepwise.gate import RiseVerdict, RowSums, judge_rise
from edgetune.benchmarks.stepwise.recipe import GenerationGateRecipe
from edgetune.compress.gptq.coverage import Coverage
from edgetune.compress.gptq.schemes import LanguageScheme, write_scheme
from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.serve.bundle import GRAPH_NAME
from edgetune.serve.stepwise.report import LanguageCandidate
from edgetune.tune.models.facts import read_facts, write_facts
from edgetune.tune.training.progress import Progress

FACTS_NAME = "ladder.json"


@dataclass(frozen=True)
class JudgedRows:
    """Encoded rows that judge: token ids, and labels of -100 where a token is no answer's."""

    ids: tuple[tuple[int, ...], ...]
    labels: tuple[tuple[int, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Climbed:
    """What was tried, in order; `order` are the schemes that may be packed, the preferred one first."""

    folder: Path
    candidates: tuple[LanguageCandidate, ...]
    order: tuple[str, ...]

    def graph(self, scheme: str) -> Path:
        """The graph of a scheme that was tried."""
        return self.folder / scheme / GRAPH_NAME

    def save(self) -> None:
        """Write the facts, last: a folder that has them is whole."""
        facts = {"candidates": [msgspec.to_builtins(one) for one in self.candidates], "order": list(self.order)}
        write_facts(self.folder / FACTS_NAME, facts)

    @classmethod
    def open(cls, folder: Path) -> Climbed:
        """Open what `save` wrote.

        Raises:
            WorkError: the folder holds no search.
        """
        facts = read_facts(folder / FACTS_NAME, what="search", command="compress")
        candidates = tuple(msgspec.convert(one, LanguageCandidate) for one in facts["candidates"])
        return cls(folder, candidates, tuple(facts["order"]))


@dataclass(frozen=True)
class Ladder:
    """One search: the fp32 graph, the rows that judge, and texts for GPTQ."""

    graph: DecoderGraph
    rows: JudgedRows
    calibration: Sequence[Sequence[int]]
    gate: GenerationGateRecipe
    block: int
    threads: int | None
    progress: Progress

    def climb(self, schemes: Sequence[LanguageScheme], folder: Path) -> Climbed:
        """Make and judge each scheme in turn, until two are accepted: the second is there if the first fails the proof.

        Raises:
            CompressError: a scheme cannot be made.
        """
        tried: list[LanguageCandidate] = []
        for place, scheme in enumerate(schemes):
            self.progress.advance(place, len(schemes), f"making {scheme.name}")
            candidate = self._candidate(scheme, folder)
            tried.append(candidate)
            self.progress.say(f"{scheme.name}: {candidate.gate}; {candidate.reason}")
            if sum(one.accepted for one in tried) == 2:
                break
        return Climbed(folder, tuple(tried), tuple(one.scheme for one in tried if one.accepted))

    def _candidate(self, scheme: LanguageScheme, folder: Path) -> LanguageCandidate:
        target = folder / scheme.name / GRAPH_NAME
        spec = self.graph.spec
        coverage = write_scheme(
            scheme, self.graph.path, target, calibration=self.calibration, spec=spec, block=self.block
        )
        found = self.diverges(target)
        verdict = judge_divergence(found, self.gate)
        return _told(scheme, coverage, found, verdict)

    def diverges(self, graph: Path) -> Divergence:
        """How far a graph lies from the fp32 one on the rows that judge."""
        return divergences(
            self.graph.path,
            {"candidate": graph},
            self.rows.ids,
            spec=self.graph.spec,
            labels=self.rows.labels,
            threads=self.threads,
        )["candidate"]


def judge_divergence(found: Divergence, gate: GenerationGateRecipe, *, looks: int = 1) -> RiseVerdict:
    """The gate's verdict on a candidate, row by row beside the tuned model."""
    tokens = np.asarray([one.tokens for one in found.texts], dtype=np.int64)
    reference, candidate = (
        RowSums(np.asarray(sums, dtype=np.float64), tokens)
        for sums in zip(*((one.reference_nats, one.candidate_nats) for one in found.texts), strict=True)
    )
    return judge_rise(reference, candidate, gate, agreement=found.top1_agreement, looks=looks)


def _told(scheme: LanguageScheme, coverage: Coverage, found: Divergence, verdict: RiseVerdict) -> LanguageCandidate:
    return LanguageCandidate(
        scheme=scheme.name,
        size_bytes=coverage.size_bytes,
        dtypes=coverage.dtypes,
        quantized=coverage.share_of_bytes,
        value=found.perplexity,
        rise=verdict.rise,
        rise_interval=list(verdict.interval),
        kl=found.kl_nats,
        agreement=found.top1_agreement,
        gate=verdict.gate,
        accepted=verdict.accepted,
        reason=verdict.reason,
        made_by=coverage.sentence(),
        left=[f"{one.name}: {one.why}" for one in coverage.left],
    )
