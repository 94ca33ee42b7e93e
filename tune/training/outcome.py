"""What tuning ends with: whether the trained model or the probe is handed on, and why, in words with figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgetune.tune.methods import Method
from edgetune.tune.metrics import Metric


@dataclass(frozen=True)
class Outcome:
    """What is handed on (`probe`, or the trained method's name), its value on the validation part, and why."""

    handed_on: str
    value: float
    why: str

    @property
    def is_trained(self) -> bool:
        """Whether the trained model is handed on."""
        return self.handed_on != "probe"


def settled_by_probe(method: Method, probe_value: float, metric: Metric) -> Outcome | None:
    """The outcome where training can gain nothing: for `probe`, and for `auto` after a probe without a mistake."""
    if not method.trains:
        return Outcome("probe", probe_value, "")
    perfect = probe_value >= 1 if metric.higher_is_better else probe_value <= 0
    if method.name == "auto" and perfect:
        return Outcome("probe", probe_value, "The probe makes no mistake on the validation part; nothing was trained.")
    return None


def choose(method: Method, probe_value: float, trained_value: float, rows: int, metric: Metric) -> Outcome:
    """The better of probe and trained model on the validation part of `rows` rows.

    On a tie `auto` keeps the probe, whose head was solved on training and validation part together; a method that the
    user named is kept.
    """
    name = method.trained_name
    gain = -100 * float(metric.loss(np.asarray(probe_value), np.asarray(trained_value)))
    values = f"{trained_value:.4f} against {probe_value:.4f} on the {rows:,} validation rows"
    unit = "points over the probe" if metric.higher_is_better else f"percent off the probe's {metric.name}"
    if gain > 0 or (gain == 0 and method.name != "auto"):
        return Outcome(name, trained_value, f"{name} is handed on: {values}, {gain:+.2f} {unit}.")
    ended = "gained nothing over" if gain == 0 else "did worse than"
    return Outcome("probe", probe_value, f"{name} {ended} the probe ({values}): the probe is handed on.")
