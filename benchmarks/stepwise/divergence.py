"""How far a compressed decoder's next-token distributions lie from the tuned model's, over whole texts.

The very graphs that ship are judged, with the cut to the last position taken out. Sums are kept text by text, so that
intervals can be drawn over texts, in pairs. Must not import torch.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.compress.gptq.head import write_all_positions
from edgetune.compress.gptq.prefill import Past, prefill_feed, starting_past
from edgetune.serve.errors import DataError, EdgetuneError, GateError, ParityError
from edgetune.serve.session import open_session
from edgetune.serve.stepwise.spec import GenerationSpec
from edgetune.tune.metrics import PERPLEXITY, Statistics

if TYPE_CHECKING:
    import onnxruntime

UNSCORED = -100
# Logits are turned into probabilities in doubles, so many at once.
_ENTRIES_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class TextScore:
    """One text under the reference and the candidate: sums over its scored tokens.

    Attributes:
        tokens: how many were scored.
        divergence_nats: of the candidate from the reference, KL(reference || candidate).
        agreeing_tokens: where both find the same token likeliest.
        reference_nats: minus the log-probability that the reference gives the text's own tokens.
        candidate_nats: the same by the candidate.
        reference_hits: tokens of the text that the reference finds likeliest at their place.
        candidate_hits: the same by the candidate.
    """

    tokens: int
    divergence_nats: float
    agreeing_tokens: int
    reference_nats: float
    candidate_nats: float
    reference_hits: int = 0
    candidate_hits: int = 0


@dataclass(frozen=True)
class Divergence:
    """A candidate beside the reference, over texts."""

    texts: tuple[TextScore, ...]

    @property
    def tokens(self) -> int:
        """Scored tokens of all texts."""
        return sum(one.tokens for one in self.texts)

    @property
    def kl_nats(self) -> float:
        """Mean KL divergence of a token, in nats."""
        return sum(one.divergence_nats for one in self.texts) / self.tokens

    @property
    def top1_agreement(self) -> float:
        """Share of tokens for which both find the same one likeliest."""
        return sum(one.agreeing_tokens for one in self.texts) / self.tokens

    @property
    def reference_accuracy(self) -> float:
        """Share of tokens that the reference finds likeliest at their place."""
        return sum(one.reference_hits for one in self.texts) / self.tokens

    @property
    def token_accuracy(self) -> float:
        """Share of tokens that the candidate finds likeliest at their place."""
        return sum(one.candidate_hits for one in self.texts) / self.tokens

    @property
    def reference_perplexity(self) -> float:
        """Of the texts under the reference; inf where that is beyond a double."""
        return float(PERPLEXITY.value(self.statistics[0].sum(axis=0)))

    @property
    def perplexity(self) -> float:
        """Of the texts under the candidate; inf where that is beyond a double."""
        return float(PERPLEXITY.value(self.statistics[1].sum(axis=0)))

    @property
    def relative_rise(self) -> float:
        """Of perplexity: 0.02 where it is 2% higher under the candidate."""
        return self.perplexity / self.reference_perplexity - 1

    @property
    def statistics(self) -> tuple[Statistics, Statistics]:
        """Row statistics of perplexity under the reference and under the candidate: (texts, 2) float64 each."""
        tokens = np.asarray([text.tokens for text in self.texts])
        reference, candidate = (
            PERPLEXITY.rows(tokens, np.asarray(nats))
            for nats in zip(*((text.reference_nats, text.candidate_nats) for text in self.texts), strict=True)
        )
        return reference, candidate

    def save(self, path: Path) -> None:
        """Write the sums of each text as JSON."""
        path.write_bytes(msgspec.json.encode(self.texts))

    @classmethod
    def open(cls, path: Path) -> Divergence:
        """Read what `save` wrote."""
        return cls(msgspec.json.decode(path.read_bytes(), type=tuple[TextScore, ...]))


def divergences(
    reference: Path,
    candidates: Mapping[str, Path],
    sequences: Sequence[Sequence[int]],
    *,
    spec: GenerationSpec,
    labels: Sequence[Sequence[int]] | None = None,
    threads: int | None = None,
) -> dict[str, Divergence]:
    """Every candidate beside the reference, which is run once for all of them.

    Args:
        reference: the tuned model's decoder graph in fp32, its first cache beside it.
        candidates: decoder graphs by name.
        sequences: token ids of texts that neither tuning nor calibration has seen; cut to the context.
        spec: how the graphs are fed; the same for all.
        labels: of each text as many as ids, -100 for a token that is not scored (a prompt's); None scores all but
            the first.
        threads: of a run; None takes the cores that this process may use.

    Raises:
        DataError: no token is scored, or labels do not fit their text.
        ParityError: the reference gives logits that are not finite, or not one for each token.
        GateError: a candidate does.
        CompressError: a graph's head was not found.
    """
    texts = _scored_texts(sequences, labels, spec.context_tokens)
    past = starting_past(reference, spec)
    scores: dict[str, list[TextScore]] = {name: [] for name in candidates}
    with tempfile.TemporaryDirectory(prefix="edgetune-divergence-") as scratch:
        first = _session(reference, Path(scratch, "reference.onnx"), threads)
        others = {
            name: _session(path, Path(scratch, f"{place}.onnx"), threads)
            for place, (name, path) in enumerate(candidates.items())
        }
        for ids, scored in texts:
            expected = _logits(first, ids, spec, past, "the reference", ParityError)
            for name, session in others.items():
                logits = _logits(session, ids, spec, past, f"the candidate {name}", GateError)
                scores[name].append(text_score(expected, logits, np.asarray(ids), scored))
    return {name: Divergence(tuple(logits)) for name, logits in scores.items()}


def text_score(
    reference: NDArray[np.float32],
    candidate: NDArray[np.float32],
    ids: NDArray[np.int64],
    scored: NDArray[np.bool_],
) -> TextScore:
    """The sums of one text.

    Args:
        reference: logits (tokens, vocabulary) float32; those at a place are for the token after it.
        candidate: the same.
        ids: (tokens,) int64.
        scored: (tokens,) bool; the first is never scored, since nothing foretells it.
    """
    places = np.flatnonzero(scored[1:])
    sums = np.zeros(6)
    step = max(1, _ENTRIES_AT_ONCE // reference.shape[1])
    for start in range(0, len(places), step):
        at = places[start : start + step]
        first, second = _log_probabilities(reference[at]), _log_probabilities(candidate[at])
        likeliest, other = reference[at].argmax(axis=1), candidate[at].argmax(axis=1)
        own = (np.arange(len(at)), ids[at + 1])
        sums += (
            float((np.exp(first) * (first - second)).sum()),
            int((likeliest == other).sum()),
            -float(first[own].sum()),
            -float(second[own].sum()),
            int((likeliest == ids[at + 1]).sum()),
            int((other == ids[at + 1]).sum()),
        )
    return TextScore(
        len(places), float(sums[0]), int(sums[1]), float(sums[2]), float(sums[3]), int(sums[4]), int(sums[5])
    )


def _log_probabilities(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _scored_texts(
    sequences: Sequence[Sequence[int]], labels: Sequence[Sequence[int]] | None, most_tokens: int
) -> list[tuple[Sequence[int], NDArray[np.bool_]]]:
    if labels is not None and [len(one) for one in labels] != [len(ids) for ids in sequences]:
        raise DataError("labels and token ids differ in number", expected="one label for each id of each text")
    texts = []
    for place, ids in enumerate(sequences):
        scored = np.ones(len(ids), bool) if labels is None else np.asarray(labels[place]) != UNSCORED
        kept = scored[:most_tokens]
        if kept[1:].any():
            texts.append((ids[:most_tokens], kept))
    if not texts:
        raise DataError(f"none of {len(sequences)} texts has a token to score", expected="texts of two tokens or more")
    return texts


def _session(graph: Path, opened: Path, threads: int | None) -> onnxruntime.InferenceSession:
    write_all_positions(graph, opened)
    return open_session(opened, provider="cpu", threads=threads, spinning=False)


def _logits(
    session: onnxruntime.InferenceSession,
    ids: Sequence[int],
    spec: GenerationSpec,
    past: Past,
    whose: str,
    fault: type[EdgetuneError],
) -> NDArray[np.float32]:
    logits: NDArray[np.float32] = session.run(["logits"], prefill_feed(session, ids, spec, past))[0][0]
    if len(logits) != len(ids):
        raise fault(f"{whose} gives logits for {len(logits)} of {len(ids)} positions", expected="one for each")
    if not np.isfinite(logits).all():
        raise fault(f"{whose} gives logits that are not finite on a text of {len(ids)} tokens")
    return logits
