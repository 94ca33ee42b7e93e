"""The search for a static int8 plan: ranges by three methods, balancing, and layers that do not stand it, all measured.

Every choice is made by the distance of the logits from the float graph's on training texts that no range was measured
on. Balancing is that of SmoothQuant (Xiao et al. 2022, arXiv 2211.10438) with a migration strength of a half.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.calibration import Calibration, answers, calibration, distance, observe
from edgetune.compress.layers import Layer
from edgetune.compress.ranges import METHODS, Channels, Histogram, channels_of
from edgetune.compress.static_graph import Mode, Plan, norm_parameters, write_planned, write_prepared
from edgetune.serve.errors import CompressError

if TYPE_CHECKING:
    from edgetune.compress.material import Material

# The largest channel over the middle one, from which on an activation is worth a balance.
OUTLIERS = 6.0
# Balancing costs a multiplication a norm, so it has to bring the logits clearly nearer.
WORTH_BALANCING = 0.8
# Fixed ranges may cost this much more than those taken at run time before layers are looked at one by one.
NEAR_DYNAMIC = 1.25
NEGLIGIBLE = 1e-3
# With more layers than a third taken out, the dynamic scheme is the better name for it.
MOST_FREED = 3

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class SearchResult:
    """The plan, and what was measured on the way.

    Attributes:
        graph: the float graph that the plan speaks of, in the scratch folder.
        plan: of the graph.
        method: that chose the ranges, one of `METHODS`.
        distances: mean squared logit difference over the logits' variance, on held-back texts, by what was tried.
        freed: layers that are not static, by key.
    """

    graph: Path
    plan: Plan
    method: str
    distances: Mapping[str, float]
    freed: Mapping[str, Mode]


def search(graph: Path, material: Material, scratch: Path) -> SearchResult:
    """The static plan of `graph` that stays nearest to its logits.

    Args:
        graph: a float graph.
        material: calibrated on its training part.
        scratch: a folder for the graphs that are tried.

    Raises:
        CompressError: the graph has no linear layer, or no plan gives finite logits.
    """
    prepared = scratch / "prepared.onnx"
    layers = write_prepared(graph, prepared)
    if not layers:
        raise CompressError(
            "no linear layer with a constant weight was found in this graph", expected="MatMul, Gemm or Attention"
        )
    texts = calibration(material, graph)
    trial = _Trial(prepared, texts, answers(graph, texts.held_back), scratch / "trial.onnx")
    keys = [layer.key for layer in layers]
    static = Plan(dict.fromkeys(keys, "static"))
    measured = _measure_ranges(trial, layers)
    distances: dict[str, float] = {}
    for method in METHODS:
        plan = Plan(static.modes, {name: histogram.range(method) for name, histogram in measured.plain.items()})
        distances[method] = trial.distance(plan)
    method = min(METHODS, key=lambda name: distances[name])
    plan = Plan(static.modes, {name: histogram.range(method) for name, histogram in measured.plain.items()})
    if measured.balance:
        ranges = {**plan.ranges, **{name: one.range(method) for name, one in measured.balanced.items()}}
        balanced = Plan(static.modes, ranges, measured.balance)
        distances["balanced"] = trial.distance(balanced)
        if distances["balanced"] < WORTH_BALANCING * distances[method]:
            plan = balanced
    distances["dynamic"] = trial.distance(Plan(dict.fromkeys(keys, "dynamic")))
    freed = _freed(trial, plan, distances["dynamic"])
    plan = plan.with_modes(freed)
    distances["chosen"] = trial.distance(plan)
    if not np.isfinite(distances["chosen"]):
        raise CompressError("static int8 gives logits that are not finite on training texts")
    return SearchResult(prepared, plan, method, distances, freed)


@dataclass(frozen=True)
class _Trial:
    """A float graph with its logits on held-back texts, and where plans are tried out."""

    graph: Path
    texts: Calibration
    expected: Sequence[FloatArray]
    scratch: Path

    def distance(self, plan: Plan) -> float:
        """How far the logits under a plan are from the float graph's."""
        write_planned(self.graph, plan, self.scratch)
        return distance(self.expected, answers(self.scratch, self.texts.held_back))


@dataclass(frozen=True)
class _Measured:
    """Histograms of the activations as they are, and of those with outliers after balancing."""

    plain: dict[str, Histogram]
    balance: dict[str, FloatArray]
    balanced: dict[str, Histogram]


def _measure_ranges(trial: _Trial, layers: Sequence[Layer]) -> _Measured:
    names = list(dict.fromkeys(layer.source.name for layer in layers))
    channels = channels_of(observe(trial.graph, names, trial.texts.texts, trial.scratch))
    balance = _balance(layers, channels)
    plain = {name: Histogram(channels[name]) for name in names}
    balanced = {name: Histogram(channels[name].divided(factors)) for name, factors in balance.items()}
    for values in observe(trial.graph, names, trial.texts.texts, trial.scratch):
        for name, value in values.items():
            plain[name].add(value)
            if name in balance:
                balanced[name].add(value / balance[name])
    return _Measured(plain, balance, balanced)


def _balance(linears: Sequence[Layer], channels: Mapping[str, Channels]) -> dict[str, FloatArray]:
    """By activation, the factors that move its outliers into the weights: sqrt(largest input / largest weight)."""
    readers: dict[str, list[Layer]] = {}
    for layer in linears:
        readers.setdefault(layer.source.name, []).append(layer)
    factors: dict[str, FloatArray] = {}
    for name, layers in readers.items():
        largest = channels[name].largest
        shared = any(len(layer.node.inputs[1].uses()) > 1 for layer in layers)
        if shared or not norm_parameters(layers[0].source.producer()) or not _has_outliers(largest):
            continue
        rows = np.max([np.abs(layer.weight).max(axis=1) for layer in layers], axis=0)
        usable = (largest > 0) & (rows > 0)
        factors[name] = np.where(usable, np.sqrt(largest / np.where(usable, rows, 1)), 1).astype(np.float32)
    return factors


def _has_outliers(largest: FloatArray) -> bool:
    return float(largest.max()) > OUTLIERS * max(float(np.median(largest)), 1e-6)


def _freed(trial: _Trial, plan: Plan, dynamic: float) -> dict[str, Mode]:
    """The layers whose fixed ranges hurt most, in the mode that hurts least; none where the plan is near enough."""
    bound = max(NEGLIGIBLE, NEAR_DYNAMIC * dynamic)
    best = trial.distance(plan)
    if best <= bound:
        return {}
    hurt = {key: trial.distance(_alone(plan, key, "static")) for key in plan.modes}
    worst = sorted(hurt, key=lambda key: -hurt[key])[: max(1, len(hurt) // MOST_FREED)]
    freed: dict[str, Mode] = {}
    count = 1
    while best > bound and len(freed) < len(worst):
        tried: dict[str, Mode] = dict(freed)
        for key in worst[len(freed) : count]:
            helped = trial.distance(_alone(plan, key, "dynamic")) < hurt[key] / 2
            tried[key] = "dynamic" if helped else "float"
        left = trial.distance(plan.with_modes(tried))
        freed, best, count = tried, min(best, left), min(2 * count, len(worst))
    return freed


def _alone(plan: Plan, key: str, mode: Mode) -> Plan:
    """A plan with one layer quantized and all others in float."""
    others: dict[str, Mode] = dict.fromkeys(plan.modes, "float")
    return plan.with_modes({**others, key: mode})


def described(result: SearchResult) -> str:
    """One line: how the graph was made, with the measured distances."""
    modes: list[Any] = list(result.plan.modes.values())
    parts = [
        f"{modes.count('static')} of {len(modes)} linear layers with fixed ranges by {result.method}",
        f"{len(result.plan.balance)} balanced inputs",
        *(f"{key} {mode}" for key, mode in sorted(result.freed.items())),
    ]
    measured = ", ".join(f"{name} {value:.2g}" for name, value in result.distances.items())
    return f"static int8: {', '.join(parts)}; logit distances on held-back training texts: {measured}"
