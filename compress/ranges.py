"""Ranges for static quantization: from what flowed through a graph to the scale and zero point of each activation.

Three ways to choose a range from one histogram: all of it (min-max), all but the outermost values (percentile), and
the one that loses the least information (entropy, after Migacz, "8-bit inference with TensorRT", 2017).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

METHODS = ("minmax", "percentile", "entropy")
PERCENTILE = 99.99
_BINS = 2048
_LEVELS = 256
# Smaller ranges than a quarter of what was seen cut off more than outliers.
_SHARES = np.linspace(0.25, 1, 31)

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Channels:
    """The smallest and the largest value of each channel of an activation: (channels,) float32 each."""

    low: FloatArray
    high: FloatArray

    def joined(self, values: NDArray[Any]) -> Channels:
        """These, widened by `values` (..., channels)."""
        flat = values.reshape(-1, values.shape[-1])
        return Channels(np.minimum(self.low, flat.min(axis=0)), np.maximum(self.high, flat.max(axis=0)))

    def divided(self, factors: FloatArray) -> Channels:
        """The channels of an activation divided by `factors` (channels,) float32, all above zero."""
        return Channels(self.low / factors, self.high / factors)

    @property
    def largest(self) -> FloatArray:
        """The largest magnitude of each channel."""
        return np.maximum(-self.low, self.high)


@dataclass(frozen=True)
class Range:
    """What uint8 stands for: 256 even steps from `low` to `high`, zero among them."""

    low: float
    high: float

    @property
    def scale(self) -> np.float32:
        """The step."""
        return np.float32(max((self.high - self.low) / (_LEVELS - 1), 1e-9))

    @property
    def zero_point(self) -> np.uint8:
        """The step that stands for zero."""
        return np.uint8(np.clip(np.rint(-self.low / self.scale), 0, _LEVELS - 1))


def channels_of(seen: Iterable[Mapping[str, NDArray[Any]]]) -> dict[str, Channels]:
    """The extremes of every channel of every activation that was seen; zero is always within."""
    channels: dict[str, Channels] = {}
    for values in seen:
        for name, value in values.items():
            none = np.zeros(value.shape[-1], np.float32)
            channels[name] = channels.get(name, Channels(none, none)).joined(value)
    return channels


class Histogram:
    """How often each of 2,048 even bins between the extremes of an activation was hit."""

    def __init__(self, channels: Channels) -> None:
        self.edges = np.linspace(float(channels.low.min()), float(channels.high.max()) + 1e-9, _BINS + 1)
        self.counts = np.zeros(_BINS, np.int64)

    def add(self, values: NDArray[Any]) -> None:
        """Count `values`, of any shape."""
        # Ten times as fast as np.histogram, which searches the edges.
        low, high = self.edges[0], self.edges[-1]
        places = ((values.ravel() - np.float32(low)) * np.float32(_BINS / (high - low))).astype(np.int32)
        self.counts += np.bincount(np.clip(places, 0, _BINS - 1), minlength=_BINS)

    def range(self, method: str) -> Range:
        """The range that one of `METHODS` chooses."""
        low, high = float(self.edges[0]), float(self.edges[-1])
        if method == "percentile":
            return self._percentile((100 - PERCENTILE) / 200)
        if method == "entropy":
            losses = [self._information_lost(share * low, share * high) for share in _SHARES]
            share = float(_SHARES[int(np.argmin(losses))])
            return Range(share * low, share * high)
        return Range(low, high)

    def _percentile(self, tail: float) -> Range:
        """The range without `tail` of all values at each end."""
        reached = np.cumsum(self.counts) / max(1, self.counts.sum())
        first = int(np.searchsorted(reached, tail, side="right"))
        last = min(int(np.searchsorted(reached, 1 - tail, side="left")), _BINS - 1)
        return Range(min(0.0, float(self.edges[first])), max(0.0, float(self.edges[last + 1])))

    def _information_lost(self, low: float, high: float) -> float:
        """Kullback-Leibler divergence, in nats, of the values as they are from those quantized between two bounds."""
        middles = (self.edges[:-1] + self.edges[1:]) / 2
        inside = (middles >= low) & (middles <= high)
        if not inside.any() or not self.counts.any():
            return float("inf")
        kept = self.counts[inside].astype(np.float64)
        step = (high - low) / (_LEVELS - 1)
        levels = np.rint((middles[inside] - low) / step).astype(int)
        hit = kept > 0
        # A level spreads what it holds evenly over those of its bins that were hit.
        mass = np.bincount(levels, weights=kept, minlength=_LEVELS)
        bins = np.bincount(levels, weights=hit, minlength=_LEVELS)
        quantized = np.where(hit, (mass / np.maximum(bins, 1))[levels], 0)
        clipped = kept.copy()
        clipped[0] += self.counts[middles < low].sum()
        clipped[-1] += self.counts[middles > high].sum()
        return _divergence(clipped, quantized)


def _divergence(expected: NDArray[np.float64], actual: NDArray[np.float64]) -> float:
    """Kullback-Leibler divergence of two histograms, each made to sum to one; what `actual` lacks counts as rare."""
    here = expected > 0
    share = expected[here] / expected.sum()
    other = np.maximum(actual[here] / max(actual.sum(), 1.0), 1e-9)
    return float(np.sum(share * np.log(share / other)))
