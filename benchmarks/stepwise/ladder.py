"""The search over a language model's schemes: from the smallest up, until two pass the gate on validation rows.

Fewer bits decode faster, since decoding is bound by memory: the first that passes is the one to pack. What was made is
kept in a folder a scheme, and so are its scores: a search with another gate judges them again and makes nothing. A
scheme that cannot be made or judged is a rung that failed, with its reason.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Self

import msgspec

from edgetune.benchmarks.prove.gate import Verdict, both, judge
from edgetune.benchmarks.prove.trials import Kept, require_made
from edgetune.benchmarks.stepwise.divergence import Divergence, divergences
from edgetune.benchmarks.stepwise.judged_rows import JudgedPairs, JudgedRows, Margins
from edgetune.benchmarks.stepwise.mixed import smallest_within
from edgetune.benchmarks.stepwise.recipe import GenerationGateRecipe
from edgetune.compress.gptq.coverage import Coverage, read_coverage
from edgetune.compress.gptq.own_texts import OwnTexts, draw_texts
from edgetune.compress.gptq.quantization import Choice
from edgetune.compress.gptq.schemes import SCHEMES, LanguageScheme, write_scheme
from edgetune.compress.gptq.sensitivity import Sensitivities, measure_sensitivities
from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.export.stepwise.joining import copy_graph
from edgetune.serve.bundle import GRAPH_NAME
from edgetune.serve.digest import value_sha256
from edgetune.serve.errors import CompressError, GateError
from edgetune.serve.stepwise.report import LanguageCandidate
from edgetune.tune.metrics import PERPLEXITY, PREFERENCE_ACCURACY
from edgetune.tune.models.stored import Stored
from edgetune.tune.seal import content_sha256
from edgetune.tune.training.progress import Progress

_SCORES_NAME = "scores.json"
_OWN_NAME = "texts.json"
_SENSITIVITIES_NAME = "sensitivities.json"


@dataclass(frozen=True)
class Climbed(Stored):
    """What was tried, in order.

    Attributes:
        folder: holds a folder for each scheme that was made.
        candidates: the schemes that were judged.
        order: those that may be packed, the preferred one first.
        failed: those that could not be made or judged, with the reason.
    """

    file_name: ClassVar[str] = "ladder.json"
    noun: ClassVar[str] = "search"
    command: ClassVar[str] = "compress"

    folder: Path
    candidates: tuple[LanguageCandidate, ...]
    order: tuple[str, ...]
    failed: dict[str, str]

    def graph(self, scheme: str) -> Path:
        """The graph of a scheme that was judged."""
        return self.folder / scheme / GRAPH_NAME

    @classmethod
    def open(cls, folder: Path) -> Self:
        """What `save` wrote.

        Raises:
            WorkError: there is no search, or what it made has been removed.
        """
        climbed = super().open(folder)
        require_made((climbed.graph(scheme) for scheme in climbed.order), search=folder)
        return climbed


@dataclass(frozen=True)
class Ladder:
    """One search: the fp32 graph, the rows that judge, texts for GPTQ, and where what is made is kept.

    The digest of `kept` stands for the graph. `own_texts` is how many the graph draws itself by `seed`: GPTQ sees them
    beside the rows, and each candidate is also held against the graph on others of them, outside of what was tuned on.
    `shared` is a folder whose graph is judged instead of making one.
    `pairs` are the rejected answers to the rows, where an objective of judged answers was learnt.
    """

    graph: DecoderGraph
    rows: JudgedRows
    calibration: Sequence[Sequence[int]]
    gate: GenerationGateRecipe
    block: int
    threads: int | None
    kept: Kept
    progress: Progress
    own_texts: int = 0
    seed: int = 0
    shared: Path | None = None
    pairs: JudgedPairs | None = None

    def climb(self, schemes: Sequence[LanguageScheme]) -> Climbed:
        """Make and judge each scheme in turn, until two are accepted: the second is there if the first fails the proof.

        Raises:
            ParityError: the fp32 graph itself gives logits that are not finite.
        """
        tried: list[LanguageCandidate] = []
        failed: dict[str, str] = {}
        for number, scheme in enumerate(schemes):
            if scheme.is_mixed and any(candidate.accepted for candidate in tried):
                continue  # minutes of measuring, for what would only be there if the first failed: int8 is as good
            self.progress.advance(number, len(schemes), f"making {scheme.name}")
            try:
                candidate = self._candidate(scheme)
            except (CompressError, GateError) as error:
                failed[scheme.name] = error.found
                self.progress.say(f"{scheme.name}: failed; {error.found}")
                continue
            tried.append(candidate)
            self.progress.say(f"{scheme.name}: {candidate.gate}; {candidate.reason}")
            if sum(candidate.accepted for candidate in tried) == 2:
                break
        order = tuple(candidate.scheme for candidate in tried if candidate.accepted)
        return Climbed(self.kept.folder, tuple(tried), order, failed)

    def _candidate(self, scheme: LanguageScheme) -> LanguageCandidate:
        """Make and judge a scheme; of a mixture of bits the smallest within the gate.

        Raises:
            CompressError: it cannot be made.
            GateError: it cannot be judged.
        """
        if not scheme.is_mixed or self.shared is not None:
            return self._judged(scheme, scheme.name)
        sensitivities = self._sensitivities()

        def judged(number: int, choices: Mapping[str, Choice]) -> LanguageCandidate:
            candidate = self._judged(scheme, _trial(scheme, number), choices)
            self.progress.say(f"{scheme.name}, try {number}: {candidate.size_bytes / 1e6:.1f} MB; {candidate.reason}")
            return candidate

        number, candidate = smallest_within(sensitivities, self.gate.limit(PERPLEXITY), judged)
        best = self.kept.folder / _trial(scheme, number)
        replace(self.kept, digest=content_sha256(best)).place(
            scheme.name, lambda folder: shutil.copytree(best, folder, dirs_exist_ok=True)
        )
        return candidate

    def _texts(self, scheme: LanguageScheme) -> list[list[int]]:
        """What a scheme is calibrated on."""
        if not scheme.is_calibrated or self.shared is not None:
            return []
        own = self._own_texts().calibration if self.own_texts else []
        return [*(list(ids) for ids in self.calibration), *own]

    def _sensitivities(self) -> Sensitivities:
        """What each matrix loses in few bits, or what an earlier search has measured of it."""
        texts = self._texts(SCHEMES["mixed"])

        def write(folder: Path) -> None:
            self.progress.say("measuring what each matrix loses in few bits")
            graph, threads = self.graph, self.threads
            measured = measure_sensitivities(graph.path, texts, graph.spec, block=self.block, threads=threads)
            measured.save(folder / _SENSITIVITIES_NAME)

        made = replace(self.kept, digest=value_sha256([self.kept.digest, self.block, texts]))
        return Sensitivities.open(made.place("sensitivities", write) / _SENSITIVITIES_NAME)

    def _judged(
        self, scheme: LanguageScheme, name: str, choices: Mapping[str, Choice] | None = None
    ) -> LanguageCandidate:
        """Make and score a scheme in the folder `name`, or open what an earlier search left of it; judge its scores."""
        block = scheme.block or self.block
        own = self._own_texts() if self.own_texts and scheme.bits is not None else None
        texts = self._texts(scheme)
        chosen = None if choices is None else {matrix: asdict(choice) for matrix, choice in choices.items()}
        shared = None if self.shared is None else content_sha256(self.shared)
        made = replace(self.kept, digest=value_sha256([self.kept.digest, block, texts, chosen, shared]))

        def write(folder: Path) -> None:
            if self.shared is not None:
                copy_graph(self.shared, folder)
                return
            spec, target = self.graph.spec, folder / GRAPH_NAME
            write_scheme(scheme, self.graph.path, target, calibration=texts, spec=spec, block=block, choices=choices)

        graph = made.place(name, write) / GRAPH_NAME
        scores = self._scored(name, graph, made, self.rows)
        pairs = (
            None if self.pairs is None else self.pairs.margins(scores, self._rejected(name, graph, made, self.pairs))
        )
        outside = self._outside(name, graph, made, own) if own is not None else None
        coverage = read_coverage(graph)
        remarks = coverage.remarks(block)
        for remark in remarks:
            self.progress.say(f"{scheme.name}: {remark}")
        candidate = _report(scheme, coverage, scores, judge_divergence(scores, self.gate, margins=pairs), outside)
        return msgspec.structs.replace(candidate, remarks=list(remarks))

    def _scored(self, name: str, graph: Path, made: Kept, rows: JudgedRows) -> Divergence:
        """How far a candidate lies from the graph on rows, or what an earlier search found."""

        def score(folder: Path) -> None:
            diverges(self.graph, graph, rows, self.threads).save(folder / _SCORES_NAME)

        scored = replace(made, digest=value_sha256([made.digest, rows.ids, rows.labels]))
        return Divergence.open(scored.place(f"{name}.scores", score) / _SCORES_NAME)

    def _rejected(self, name: str, graph: Path, made: Kept, pairs: JudgedPairs) -> Divergence:
        return self._scored(f"{name}.rejected", graph, made, pairs.rejected)

    def _own_texts(self) -> OwnTexts:
        """What the graph draws, or what an earlier search left of it."""

        def write(folder: Path) -> None:
            self.progress.say(f"the model draws {self.own_texts} texts of its own for calibration, and others to judge")
            graph, threads = self.graph, self.threads
            draw_texts(graph.path, graph.spec, self.own_texts, threads=threads, seed=self.seed).save(folder / _OWN_NAME)

        drawn = replace(self.kept, digest=value_sha256([self.kept.digest, self.own_texts, self.seed]))
        return OwnTexts.open(drawn.place("own-texts", write) / _OWN_NAME)

    def _outside(self, name: str, graph: Path, made: Kept, own: OwnTexts) -> Divergence:
        """The candidate on texts of the model's own that calibration has not seen."""
        ids = tuple(tuple(text) for text in own.held_out)

        def score(folder: Path) -> None:
            diverges(self.graph, graph, JudgedRows(ids, ids), self.threads).save(folder / _SCORES_NAME)

        scored = replace(made, digest=value_sha256([made.digest, ids]))
        return Divergence.open(scored.place(f"{name}.outside", score) / _SCORES_NAME)


def _trial(scheme: LanguageScheme, number: int) -> str:
    """The folder of a mixture that is tried."""
    return f"{scheme.name}.{number}"


def diverges(reference: DecoderGraph, candidate: Path, rows: JudgedRows, threads: int | None) -> Divergence:
    """How far the graph of a scheme's folder lies from the fp32 one on the rows that judge; raises as `divergences`."""
    name, spec = candidate.parent.name, reference.spec
    graphs = {name: candidate}
    return divergences(reference.path, graphs, rows.ids, spec=spec, labels=rows.labels, threads=threads)[name]


def judge_divergence(
    scores: Divergence, gate: GenerationGateRecipe, *, looks: int = 1, margins: Margins | None = None
) -> Verdict:
    """The gate's verdict on a candidate, row by row beside the tuned model.

    Where there are pairs both must pass, perplexity and preference accuracy, so that neither interval is widened for
    the other.
    """
    verdict = judge(PERPLEXITY, *scores.statistics, gate, agreement=scores.top1_agreement, looks=looks)
    if margins is None:
        return verdict
    before, after = (PREFERENCE_ACCURACY.rows(None, one) for one in (margins.reference, margins.candidate))
    second = judge(PREFERENCE_ACCURACY, before, after, gate.of_preferences, looks=looks)
    return both(verdict, second, PREFERENCE_ACCURACY.name, margins.accuracy)


def _report(
    scheme: LanguageScheme, coverage: Coverage, scores: Divergence, verdict: Verdict, outside: Divergence | None
) -> LanguageCandidate:
    return LanguageCandidate(
        scheme=scheme.name,
        size_bytes=coverage.size_bytes,
        dtypes=coverage.dtypes,
        quantized=coverage.share_of_bytes,
        value=scores.perplexity,
        rise=verdict.loss.loss,
        rise_interval=list(verdict.loss.interval),
        kl=scores.kl_nats,
        agreement=scores.top1_agreement,
        gate=verdict.gate,
        accepted=verdict.accepted,
        reason=verdict.reason,
        made_by=coverage.sentence(),
        left=[f"{matrix.name}: {matrix.why}" for matrix in coverage.left],
        own_kl=None if outside is None else outside.kl_nats,
        own_rise=None if outside is None else outside.relative_rise,
        second=verdict.second,
    )
