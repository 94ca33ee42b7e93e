"""Which schemes the search tries here, and why it leaves the others out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy import stats

from edgetune.benchmarks.recipe import GateRecipe
from edgetune.compress.material import Material
from edgetune.compress.recipe import CompressRecipe
from edgetune.compress.schemes import SCHEMES, Scheme
from edgetune.tune.metrics import Metric

# Of the allowed drop, what a candidate is assumed to really lose when the rows that would prove it are counted.
ASSUMED_DROP = 0.3


@dataclass(frozen=True)
class SchemePlan:
    """The schemes to try, in order of promise, the reason of each that is left out, by its name, and whether cascades
    are made of them.
    """

    tried: tuple[Scheme, ...]
    skipped: dict[str, str]
    cascades: bool = True

    def level(self, level: str) -> tuple[Scheme, ...]:
        """The schemes to try on one level."""
        return tuple(scheme for scheme in self.tried if scheme.level == level)

    def has(self, name: str) -> bool:
        """Whether a scheme is tried."""
        return any(scheme.name == name for scheme in self.tried)


def plan_schemes(
    recipe: CompressRecipe, material: Material, gate: GateRecipe, metric: Metric, test_rows: int
) -> SchemePlan:
    """The schemes that a recipe names, or for "auto" those that suit model, data and machine.

    A scheme that is named is tried whatever its file says of this model; fp32 is always there, to fall back on.
    """
    if not isinstance(recipe.schemes, str):
        named = [SCHEMES[name] for name in recipe.schemes]
        unfit = {
            one.name: one.unsuitable(material)
            for one in named
            if not (material.reads_text or one.pictures) or (material.several and one.level != "graph")
        }
        return SchemePlan(_with_fallback([one for one in named if one.name not in unfit]), unfit, recipe.cascades)
    tried: list[Scheme] = []
    skipped: dict[str, str] = {}
    rows = min(len(material.validation), test_rows, gate.rows)
    for scheme in SCHEMES.values():
        reason = scheme.unsuitable(material) or _not_wanted(scheme, recipe) or _unprovable(scheme, gate, metric, rows)
        if reason:
            skipped[scheme.name] = reason
        else:
            tried.append(scheme)
    return SchemePlan(_with_fallback(tried), skipped, recipe.cascades)


def _with_fallback(schemes: Sequence[Scheme]) -> tuple[Scheme, ...]:
    plain = SCHEMES["fp32"]
    return tuple(schemes) if plain in schemes else (*schemes, plain)


def _not_wanted(scheme: Scheme, recipe: CompressRecipe) -> str:
    return "" if recipe.structural or not scheme.structural else "the recipe says compress.structural: false"


def _unprovable(scheme: Scheme, gate: GateRecipe, metric: Metric, rows: int) -> str:
    """Why no candidate of a structural scheme could be proven on so few rows, before minutes are spent on one.

    Known of shares of rows alone: a row that turns moves them by one row.
    """
    if not scheme.structural or gate.when_inconclusive == "accept" or not metric.is_share:
        return ""
    if scheme.level == "artefact":  # learnt in seconds, and of use in a cascade where it is not proven alone
        return ""
    needed = rows_to_prove(scheme.turned, gate.max_drop, gate.confidence)
    if rows >= needed:
        return ""
    return (
        f"it turns about {100 * scheme.turned:.3g}% of the answers, and to prove a drop within "
        f"{100 * gate.max_drop:g} points then takes about {needed:,} rows; the smaller of validation and test part has "
        f"{rows:,} (gate.when_inconclusive: accept tries it all the same, as does naming it)"
    )


def rows_to_prove(turned: float, max_drop: float, confidence: float) -> int:
    """Rows on which a candidate that turns a share of the answers would be proven within `max_drop`.

    The normal approximation of the paired interval, for a candidate that loses 0.3 of what it may lose.
    """
    if max_drop <= 0:
        return 2**31
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    return math.ceil(turned * (z / ((1 - ASSUMED_DROP) * max_drop)) ** 2)
