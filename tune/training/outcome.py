"""What tuning ends with: whether the trained model or the probe is handed on, and why, in words with figures."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.tune.methods import Method
from edgetune.tune.metrics import Metric
from edgetune.tune.training.gain import Gain


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


def settled_by_probe(method: Method, probe_value: float, metric: Metric, *, per_token: bool = False) -> Outcome | None:
    """The outcome where training can gain nothing: for `probe`, and for `auto` after a probe without a mistake, which
    says nothing of a task on tokens, whose probe is many points worse on all but the easiest data."""
    if not method.trains:
        return Outcome("probe", probe_value, "")
    perfect = probe_value >= 1 if metric.higher_is_better else probe_value <= 0
    if method.by_gain and perfect and not per_token:
        return Outcome("probe", probe_value, "The probe makes no mistake on the validation part; nothing was trained.")
    return None


def choose(
    method: Method, trained_name: str, probe_value: float, trained_value: float, gain: Gain, metric: Metric
) -> Outcome:
    """The better of probe and trained model on the validation part.

    `auto` hands on the trained model where its gain exceeds its standard error: of two that cannot be told apart the
    probe is taken, whose head has learnt both parts. A method that the user named is kept unless it does worse.

    Args:
        gain: of the trained model's answers over those of the probe as it would be handed on.
    """
    values = f"{trained_value:.4f} against {probe_value:.4f} on the {gain.rows:,} validation rows"
    unit = "points over the probe" if metric.higher_is_better else f"percent off the probe's {metric.name}"
    values += f", {100 * gain.value:+.2f} {unit}, standard error {100 * gain.error:.2f}"
    if gain.is_significant if method.by_gain else gain.value >= 0:
        return Outcome(trained_name, trained_value, f"{trained_name} is handed on: {values}.")
    ended = "did worse than" if gain.value < 0 else "gained nothing beyond chance over"
    return Outcome("probe", probe_value, f"{trained_name} {ended} the probe ({values}): the probe is handed on.")
