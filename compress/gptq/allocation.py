"""Bits and blocks for each matrix of a decoder: the fewest bytes whose losses add up to no more than allowed.

Greedy by loss saved a byte along the lower hull of each matrix's settings, which is the optimum up to one matrix
(Shoham and Gersho 1988, bit allocation by Lagrange multipliers). Must not import onnx_ir.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from edgetune.compress.gptq.quantization import Choice
from edgetune.compress.gptq.sensitivity import Sensitivities, Setting


def allocate(sensitivities: Sensitivities, most_nats: float) -> dict[str, Choice]:
    """The setting of each matrix, by name: the smallest whose losses add up to at most `most_nats`.

    Where even the best settings lose more, each matrix has its best one.
    """
    hulls = {name: lower_hull(settings) for name, settings in sensitivities.matrices.items()}
    taken = dict.fromkeys(hulls, 0)
    nats = sum(hull[0].nats for hull in hulls.values())
    gains = [(-_gain(hull, 0), name) for name, hull in hulls.items() if len(hull) > 1]
    heapq.heapify(gains)
    while gains and nats > most_nats:
        _, name = heapq.heappop(gains)
        hull, step = hulls[name], taken[name]
        nats += hull[step + 1].nats - hull[step].nats
        taken[name] = step + 1
        if step + 2 < len(hull):
            heapq.heappush(gains, (-_gain(hull, step + 1), name))
    return {name: _choice(hull[taken[name]]) for name, hull in hulls.items()}


def _choice(setting: Setting) -> Choice:
    """In 8 bits beside 4 what GPTQ gains is nothing beside the loss of the others, as in `int4_head8`."""
    return Choice(setting.bits, setting.block, "gptq" if setting.bits == 4 else "rtn")


def lower_hull(settings: Sequence[Setting]) -> list[Setting]:
    """The settings of a matrix that are worth their bytes, smallest first: the lower convex hull of loss over bytes."""
    hull: list[Setting] = []
    for setting in sorted(settings, key=lambda one: (one.stored_bytes, one.nats)):
        if hull and setting.nats >= hull[-1].nats:
            continue
        while len(hull) > 1 and _saved(hull[-2], hull[-1]) <= _saved(hull[-2], setting):
            hull.pop()
        hull.append(setting)
    return hull


def _gain(hull: Sequence[Setting], step: int) -> float:
    return _saved(hull[step], hull[step + 1])


def _saved(small: Setting, large: Setting) -> float:
    """Nats that a byte saves from one setting to a larger one."""
    return (small.nats - large.nats) / (large.stored_bytes - small.stored_bytes)
