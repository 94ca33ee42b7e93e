"""Parity of the runtime that ships, across every length at which it or the model computes otherwise. A gate.

The prompts of parity.py are the data's, and mostly short: a sliding window, the length of a prefill's piece or a prompt
that begins like an earlier one are never met there. Here one long text is read in pieces, steps go across each border,
and a prefix goes out of the cache into another prompt; every logit is held against one plain pass of the model.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgetune.export.stepwise.graph import DecoderGraph
from edgetune.export.stepwise.parity import TOLERANCE, refuse_unlike
from edgetune.serve.errors import ParityError
from edgetune.serve.stepwise.cache import Cache, without_room
from edgetune.serve.stepwise.decoder import PREFILL_TOKENS, Decoder
from edgetune.serve.stepwise.group import begin
from edgetune.serve.stepwise.prefixes import LEAST_TOKENS, Prefixes
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.tune.stepwise.context import borders

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Logits = NDArray[np.float32]
Ids = list[int]

AROUND = 4  # steps on each side of a border
# Parameters times tokens of the long text: a minute or two of one pass on two cores. A longer border is named instead.
MOST_WORK = 10**13
_PREFIX_BYTES = 2**40


@dataclass(frozen=True)
class Crossing:
    """What was held against the model: the lengths that were crossed, those that were too far, and the difference."""

    crossed: tuple[int, ...]
    beyond: tuple[int, ...]
    max_abs_diff: float

    def sentence(self) -> str:
        """All of it for a person."""
        across = f"across {_listed(self.crossed)} tokens, " if self.crossed else ""
        far = f"; a text beyond {_listed(self.beyond)} tokens would take too long" if self.beyond else ""
        return (
            f"runtime: logits within {self.max_abs_diff:.1e} of the model's {across}in pieces, together and behind a "
            f"prefix in the cache{far}"
        )


def _listed(lengths: Sequence[int]) -> str:
    return ", ".join(f"{length:,}" for length in lengths)


def check_borders(graph: DecoderGraph, model: PreTrainedModel, rows: Sequence[Sequence[int]]) -> Crossing:
    """Hold the shipped runtime's logits against those of the model, across every border that fits the context.

    Args:
        graph: an exported decoder.
        model: the merged model, in fp32.
        rows: token ids of the data, which are strung together to a text that is long enough.

    Raises:
        ParityError: listing all offenders.
    """
    parameters = sum(weight.numel() for weight in model.parameters())
    most = min(graph.spec.context_tokens, max(2 * PREFILL_TOKENS, MOST_WORK // parameters))
    virtual = sum(one.tokens for one in graph.spec.first_caches)
    named = sorted({PREFILL_TOKENS, *(length - virtual for length in borders(model.config.get_text_config()))})
    inside = [length for length in named if 0 < length < graph.spec.context_tokens]
    crossed = [length for length in inside if length + AROUND <= most]
    ids = _text(rows, max(crossed, default=0) + AROUND if crossed else most)
    comparison = _Comparison(graph, model)
    try:
        comparison.steps_across(ids, crossed)
        comparison.in_pieces(ids)
        comparison.behind_a_prefix(ids[: 2 * PREFILL_TOKENS])
        comparison.together(ids, [length for length in (5, 17, 3) if length < len(ids)])
    finally:
        comparison.decoder.close()
    refuse_unlike(comparison.offenders, f"logits within {TOLERANCE:g} of the largest one")
    return Crossing(tuple(crossed), tuple(length for length in inside if length not in crossed), comparison.largest)


def _text(rows: Sequence[Sequence[int]], tokens: int) -> Ids:
    """The rows one after the other, as often as fills so many tokens."""
    joined = [token for row in rows for token in row]
    if not joined:
        raise ParityError("There is no token to prove the runtime on.", expected="a text with at least one token")
    return (joined * (1 + tokens // len(joined)))[:tokens]


@dataclass
class _Comparison:
    """The runtime beside the model; what differed, and the largest difference."""

    graph: DecoderGraph
    model: PreTrainedModel
    offenders: list[str] = field(default_factory=list)
    largest: float = 0.0

    def __post_init__(self) -> None:
        self.decoder = Decoder(self.graph.path, self.graph.spec)

    def steps_across(self, ids: Ids, lengths: Sequence[int]) -> None:
        """Read up to each border and step across it, token by token."""
        if not lengths:
            return
        places = sorted({p for length in lengths for p in range(length - AROUND, length + AROUND) if 0 < p < len(ids)})
        expected = self._model_logits(ids, places)
        cache: Cache = self.decoder.start(1)
        virtual = cache.columns
        for place, logits in zip(places, expected, strict=True):
            if place > cache.columns - virtual:
                _, cache = self.decoder.prefill([ids[cache.columns - virtual : place]], cache)
            actual, cache = self.decoder.run(np.array([[ids[place]]], dtype=np.int64), cache)
            self._compare(actual[0], logits, f"the step at token {place:,}")

    def in_pieces(self, ids: Ids) -> None:
        """A prompt of all tokens, read in pieces."""
        logits, _ = self.decoder.prefill([ids])
        self._compare(logits[0], self._model_logits(ids, [len(ids) - 1])[0], f"a prompt of {len(ids):,} tokens")

    def behind_a_prefix(self, ids: Ids) -> None:
        """Prompts that begin as one that was answered before, whose own cache has gone on and then been spoilt."""
        if len(ids) < 2 * LEAST_TOKENS:
            return
        prefixes = Prefixes(_PREFIX_BYTES)
        first, half = ids[:-LEAST_TOKENS], len(ids) // 2
        logits, cache = self.decoder.prefill([first])
        key = (*self.decoder.first.virtual_ids(self.decoder.first.name(None)), *first)
        prefixes.keep(key, without_room(self.decoder.store, cache))
        for token in ids[:AROUND]:
            logits, cache = self.decoder.run(np.array([[token]], dtype=np.int64), cache)
        if cache.tail is not None:  # one that steps write into: what is stored of it must not be its memory
            for value in cache.values:
                value.numpy()[...] = np.nan
        for prompt, way in ((ids, "all of it"), ([*ids[:half], *reversed(ids[half:])], "half of it")):
            answer = self.decoder.answer(prompt, Sampling(max_tokens=1)) if len(prompt) < self._room else None
            if answer is not None:
                logits, _ = begin(self.decoder, [answer], prefixes)
                expected = self._model_logits(prompt, [len(prompt) - 1])[0]
                self._compare(logits[0], expected, f"a prompt that begins as an earlier one, {way},")

    def together(self, ids: Ids, lengths: Sequence[int]) -> None:
        """Rows of unlike length that take their steps together."""
        if self.graph.spec.batch_one or not lengths:
            return
        rows = [ids[:length] for length in lengths]
        logits, cache = self.decoder.prefill(rows)
        for _ in range(AROUND):
            for row, actual in zip(rows, logits, strict=True):
                self._compare(actual, self._model_logits(row, [len(row) - 1])[0], f"a row of {len(row)} among others")
            rows = [[*row, ids[len(row) % len(ids)]] for row in rows]
            logits, cache = self.decoder.run(np.array([[row[-1]] for row in rows], dtype=np.int64), cache)

    @property
    def _room(self) -> int:
        return self.graph.spec.context_tokens

    def _model_logits(self, ids: Ids, places: Sequence[int]) -> Logits:
        """Logits (places, vocabulary) float32 behind the tokens at these places, in one pass without a cache."""
        import torch

        kept = torch.tensor(list(places))
        few = {"logits_to_keep": kept} if "logits_to_keep" in inspect.signature(self.model.forward).parameters else {}
        with torch.inference_mode():
            logits = self.model(input_ids=torch.tensor([ids]), use_cache=False, **few).logits[0]
        values: Logits = (logits if few else logits[kept]).float().numpy()
        return values

    def _compare(self, actual: Logits, expected: Logits, way: str) -> None:
        difference = float(np.abs(actual - expected).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            self.offenders.append(f"{way} in the shipped runtime: logits differ by {difference:.4g}")
        self.largest = max(self.largest, difference)
