"""How the next token is chosen from the logits: greedy, or drawn after penalty, temperature, top-k, top-p and min-p.

The same tokens are kept as in transformers' `generate`, in its order of the steps; candidates are carried as a short
list instead of a vector of infinities, since sorting a whole vocabulary takes longer than a step of a small model.
Must import numpy and the errors only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.errors import EdgetuneError, InputError

MOST_LOGPROBS = 100
# Top-p first looks at so many of the likeliest tokens and sorts the whole vocabulary only where they do not suffice.
LIKELY_TOKENS = 1024
_LEAST, _LARGEST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How one answer is drawn and where it ends.

    Attributes:
        temperature: 0 is greedy; else logits are divided by it.
        top_k: the k likeliest tokens stay (and what ties with the last of them); 0 keeps all.
        top_p: the fewest likeliest tokens stay whose probabilities reach it (Holtzman et al. 2020); 1 keeps all.
        min_p: tokens stay that have at least this share of the likeliest one's probability; 0 keeps all.
        repetition_penalty: logits of tokens of the prompt and the answer are divided by it where positive, else
            multiplied (Keskar et al. 2019); 1 is none. It holds for greedy answers too.
        presence_penalty: taken off the logits of tokens of the answer, -2 to 2; 0 is none.
        frequency_penalty: taken off them as often as they came, -2 to 2; 0 is none.
        logit_bias: ids of tokens with what is added to their logits, -100 to 100.
        max_tokens: of the answer, its end token included; the context may end it earlier.
        stop: strings that end the answer; they are not part of its text.
        seed: of the draws; None draws differently each time. An answer depends on nothing but its seed, its prompt and
            rounding in the graph, whoever is in the batch beside it.
        logprobs: give the log-probability of each token, and of so many of the likeliest beside it; None gives none.
            They are the graph's own, before penalty and temperature.
        json_schema: a JSON Schema as text, which the answer follows; None leaves it free.
        echo_logprobs: with `logprobs`, those of the prompt's tokens too, which then run one by one.

    Raises:
        InputError: a value out of its range, naming all of them.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    echo_logprobs: bool = False
    json_schema: str | None = None

    def __post_init__(self) -> None:
        faults = [
            (name, f"{getattr(self, name)!r:.60}", expected)
            for name, expected, right in (
                ("temperature", "a finite number, 0 or more", _number(self.temperature) and self.temperature >= 0),
                ("top_k", "a whole number, 0 or more", _whole(self.top_k) and self.top_k >= 0),
                ("top_p", "above 0, at most 1", _number(self.top_p) and 0 < self.top_p <= 1),
                ("min_p", "between 0 and 1", _number(self.min_p) and 0 <= self.min_p <= 1),
                ("repetition_penalty", "above 0", _number(self.repetition_penalty) and self.repetition_penalty > 0),
                ("presence_penalty", "between -2 and 2", _within(self.presence_penalty, 2)),
                ("frequency_penalty", "between -2 and 2", _within(self.frequency_penalty, 2)),
                ("logit_bias", "pairs of an id and a number between -100 and 100", _biases(self.logit_bias)),
                ("max_tokens", "a whole number, 1 or more", _whole(self.max_tokens) and self.max_tokens >= 1),
                ("stop", "a tuple of strings, none of them empty", _strings(self.stop)),
                ("seed", "a whole number, or None", self.seed is None or _whole(self.seed)),
                ("logprobs", f"0 to {MOST_LOGPROBS}, or None", self.logprobs is None or _few(self.logprobs)),
            )
            if not right
        ]
        if faults:
            raise InputError(
                "The sampling cannot be used: " + "; ".join(f"{name} is {value}" for name, value, _ in faults) + ".",
                expected="; ".join(f"{name}: {expected}" for name, _, expected in faults),
            )

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token is always taken."""
        return self.temperature == 0


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _within(value: object, most: float) -> bool:
    return isinstance(value, int | float) and _number(value) and abs(value) <= most


def _biases(value: object) -> bool:
    return isinstance(value, tuple) and all(
        isinstance(pair, tuple) and len(pair) == 2 and _whole(pair[0]) and pair[0] >= 0 and _within(pair[1], 100)
        for pair in value
    )


def _few(value: int) -> bool:
    return _whole(value) and 0 <= value <= MOST_LOGPROBS


def _strings(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) and one for one in value)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The log-probability (natural logarithm) of a token, and the likeliest tokens with theirs, best first."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...]


class Sampler:
    """Chooses the tokens of one answer; it knows the tokens so far where a penalty needs them."""

    def __init__(self, sampling: Sampling, prompt: Iterable[int], vocabulary: int) -> None:
        self._sampling = sampling
        self._random = None if sampling.greedy else np.random.default_rng(_seed(sampling.seed))
        self._seen: NDArray[np.bool_] | None = None
        if sampling.repetition_penalty != 1:
            self._seen = np.zeros(vocabulary, dtype=np.bool_)
            self._seen[list(prompt)] = True
        self._bias: NDArray[np.float32] | None = None
        self._counts = bool(sampling.presence_penalty or sampling.frequency_penalty)
        if sampling.logit_bias or self._counts:
            self._bias = np.zeros(vocabulary, dtype=np.float32)
            for token, bias in sampling.logit_bias:
                self._bias[token] += bias
        self._answered: set[int] = set()

    def choose(
        self, logits: NDArray[np.float32], allowed: NDArray[np.bool_] | None = None
    ) -> tuple[int, TokenLogprob | None]:
        """The next token's id, and its log-probability where that was asked for.

        Args:
            logits: (vocabulary,) float32, as the graph gave them; they are not changed.
            allowed: (vocabulary,) bool, the tokens that may come; None allows all.

        Raises:
            EdgetuneError: a logit is no number, or nothing can be chosen.
        """
        top = int(logits.argmax())
        # argmax gives the place of a NaN where there is one, so the largest tells of all.
        if not math.isfinite(logits[top]):
            raise EdgetuneError(
                f"The graph gave logits that are no numbers (the largest is {logits[top]}).",
                expected="finite logits",
                action="check the bundle with `edgetune verify`; half precision may overflow: take another scheme",
            )
        scores = logits if self._seen is None else penalized(logits, self._seen, self._sampling.repetition_penalty)
        if self._bias is not None:
            scores = scores + self._bias
        if allowed is not None:
            if not allowed.any():
                raise EdgetuneError("No token may follow here.", action="loosen the schema of the answer")
            scores = np.where(allowed, scores, -np.inf).astype(np.float32)
        if self._random is None:
            token = top if scores is logits else int(scores.argmax())
        else:
            token = self._draw(scores, self._random)
        self._note(token)
        return token, token_logprob(logits, token, self._sampling.logprobs)

    def _note(self, token: int) -> None:
        """Remember a token where a penalty needs it (OpenAI's API reference: by count, and once for having come)."""
        if self._seen is not None:
            self._seen[token] = True
        if self._counts and self._bias is not None:
            once = 0.0 if token in self._answered else self._sampling.presence_penalty
            self._bias[token] -= self._sampling.frequency_penalty + once
            self._answered.add(token)

    def _draw(self, scores: NDArray[np.float32], random: np.random.Generator) -> int:
        ids, kept = candidates(scores, self._sampling)
        weights = np.exp(kept - kept.max()).cumsum()
        place = int(weights.searchsorted(random.random() * weights[-1], side="right"))
        return int(ids[min(place, len(ids) - 1)])


def penalized(logits: NDArray[np.float32], seen: NDArray[np.bool_], penalty: float) -> NDArray[np.float32]:
    """Logits (vocabulary,) float32 with those of seen tokens made smaller; `seen` is (vocabulary,) bool.

    What the penalty would make infinite becomes the largest float32, so that a draw finds shares; a token that the
    graph forbids by minus infinity stays forbidden.
    """
    scores = logits.copy()
    repeated = scores[seen]
    with np.errstate(over="ignore"):
        by = np.float32(min(max(penalty, _LEAST), _LARGEST))  # a smaller one would be 0 as float32
        smaller = np.clip(np.where(repeated < 0, repeated * by, repeated / by), -_LARGEST, _LARGEST)
    scores[seen] = np.where(np.isfinite(repeated), smaller, repeated)
    return scores


def candidates(scores: NDArray[np.float32], sampling: Sampling) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The tokens that may be drawn: ids (kept,) int64 and scores (kept,) float64, divided by the temperature.

    Args:
        scores: (vocabulary,) float32, the penalty applied.
        sampling: with a temperature above 0.
    """
    ids = np.arange(len(scores))
    if 0 < sampling.top_k < len(scores):
        least = np.partition(scores, len(scores) - sampling.top_k)[len(scores) - sampling.top_k]
        ids = np.flatnonzero(scores >= least)
    # The largest is taken off first: a tiny temperature makes the others impossible by it, and leaves the largest 0.
    with np.errstate(over="ignore"):
        kept = (scores[ids].astype(np.float64) - float(scores.max())) / sampling.temperature
    if sampling.top_p < 1:
        inside = _nucleus(kept, sampling.top_p)
        ids, kept = ids[inside], kept[inside]
    if sampling.min_p > 0:
        inside = np.flatnonzero(kept >= kept.max() + math.log(sampling.min_p))
        ids, kept = ids[inside], kept[inside]
    return ids, kept


def _nucleus(scores: NDArray[np.float64], top_p: float) -> NDArray[np.int64]:
    """Places of the likeliest scores, best first: each token before which less than `top_p` has been gathered."""
    shares = np.exp(scores - scores.max())
    total = float(shares.sum())
    if len(scores) > LIKELY_TOKENS:
        likely = np.argpartition(shares, len(shares) - LIKELY_TOKENS)[-LIKELY_TOKENS:]
        if float(shares[likely].sum()) >= top_p * total:
            return likely[_gathered(shares[likely], top_p * total)]
    return _gathered(shares, top_p * total)


def _gathered(shares: NDArray[np.float64], share: float) -> NDArray[np.int64]:
    order = np.argsort(-shares, kind="stable")
    before = np.concatenate(([0.0], shares[order].cumsum()[:-1]))
    before[0] = -1.0  # the likeliest always stays
    return order[before < share]


def token_logprob(logits: NDArray[np.float32], token: int, count: int | None) -> TokenLogprob | None:
    """The log-probability of a token by logits (vocabulary,) float32, and `count` of the likeliest; None for None."""
    if count is None:
        return None
    wide = logits.astype(np.float64)
    largest = wide.max()
    total = largest + math.log(np.exp(wide - largest).sum())
    best: tuple[tuple[int, float], ...] = ()
    if count:
        count = min(count, len(wide))
        places = np.argpartition(wide, len(wide) - count)[len(wide) - count :]
        places = places[np.lexsort((places, -wide[places]))]
        best = tuple((int(place), float(wide[place] - total)) for place in places)
    return TokenLogprob(token, float(wide[token] - total), best)


def _seed(seed: int | None) -> int | None:
    return None if seed is None else seed % 2**64
