"""What tuning ends with: whether the trained model or the probe is handed on, and why, in words with figures."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.tune.methods import Method

_PERFECT = 1.0


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


def settled_by_probe(method: Method, probe_value: float) -> Outcome | None:
    """The outcome where training can gain nothing: for `probe`, and for `auto` after a probe without a mistake."""
    if not method.trains:
        return Outcome("probe", probe_value, "")
    if method.name == "auto" and probe_value >= _PERFECT:
        return Outcome("probe", probe_value, "The probe makes no mistake on the validation part; nothing was trained.")
    return None


def choose(method: Method, probe_value: float, trained_value: float, rows: int) -> Outcome:
    """The better of probe and trained model on the validation part of `rows` rows.

    On a tie `auto` keeps the probe, whose head was solved on training and validation part together; a method that the
    user named is kept.
    """
    name = method.trained_name
    gain = 100 * (trained_value - probe_value)
    values = f"{trained_value:.4f} against {probe_value:.4f} on the {rows:,} validation rows"
    if gain > 0 or (gain == 0 and method.name != "auto"):
        return Outcome(name, trained_value, f"{name} is handed on: {values}, {gain:+.2f} points over the probe.")
    ended = "gained nothing over" if gain == 0 else "ended below"
    return Outcome("probe", probe_value, f"{name} {ended} the probe ({values}): the probe is handed on.")
