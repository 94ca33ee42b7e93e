"""What a report says of the classes of processors that a bundle was proven for."""

from __future__ import annotations

import msgspec

from edgetune.serve.targets import ProofKind


class TargetReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The proof for one class of processors: answers there beside those that the gate judged, on the same rows.

    `scheme` is that of the graph to open there, empty where none was proven; `how` says by what the class was computed;
    of `rows` of the test part a share `agreement` was answered alike, with the metric `value` there and `here_value`
    where the bundle was built; `drop` is the loss between the two with its `drop_interval`, and `gate` what the gate
    says of it; `max_abs_diff` is the largest difference of an output, `golden_diff` that of a golden one. `refused` are
    schemes that were tried before, with the reason. Emulation proves answers, never speed.
    """

    name: str
    summary: str
    scheme: str
    proof: ProofKind
    how: str
    rows: int = 0
    agreement: float | None = None
    value: float | None = None
    here_value: float | None = None
    drop: float | None = None
    drop_interval: list[float] = []
    gate: str = ""
    max_abs_diff: float | None = None
    golden_diff: float | None = None
    refused: dict[str, str] = {}

    @property
    def line(self) -> str:
        """The proof in a sentence."""
        refused = "".join(f" {scheme} was refused: {reason}." for scheme, reason in self.refused.items())
        if not self.scheme:
            return f"{self.name}: no graph answers there as it was judged.{refused}"
        if self.proof == "unproven":
            return f"{self.name} is unproven: {self.how}."
        if self.agreement is None or self.proof == "native":
            return f"{self.name}: {self.scheme} was judged on such a processor."
        share = f"{100 * self.agreement:.2f}% of {self.rows:,} rows"
        agreed = f"{self.name}: {self.scheme} agrees with the judged answers on {share}"
        return f"{agreed}, {self.proof} ({self.how}), which says nothing of speed.{refused}"
