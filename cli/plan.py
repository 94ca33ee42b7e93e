"""What a build would do, with sizes and a time estimate, without doing it: nothing is written.

Each family looks at its own data and model (plan.py of cli/once/ and cli/stepwise/); what every plan says stands here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from edgetune.recipe import Recipe
from edgetune.tasks import TASKS


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What would be done. Seconds are estimates, by stage; sizes are bytes.

    Attributes:
        facts: what the family alone knows, for scripts.
        words: what the family says of a stage, by its line: data, base, tune and compress.
        targets: lines that say how each class of processors will be proven.
        more: further lines of the family, before the place of the bundle.
        basis: what the times were estimated from, in words.
    """

    base: str
    base_bytes: int
    parameters: int
    data: str
    findings: tuple[str, ...]
    rows: Mapping[str, int]
    method: str
    epochs: float
    device: str
    precision: str
    schemes: tuple[str, ...]
    size_bytes: Mapping[str, int]
    work_bytes: int
    threads: int
    out: str
    replaces: bool
    seconds: Mapping[str, float]
    facts: Mapping[str, Any]
    words: Mapping[str, str]
    targets: Sequence[tuple[str, str]] = ()
    more: Sequence[tuple[str, str]] = ()
    basis: str

    def summary(self) -> dict[str, Any]:
        """What a script wants to know, as JSON types."""
        spoken = {"facts", "words", "targets", "more", "basis"}
        shared = {field.name: getattr(self, field.name) for field in fields(self) if field.name not in spoken}
        return {**shared, **self.facts}

    def lines(self) -> list[tuple[str, str]]:
        """What a person wants to know: a stage and what it would do; further lines of a stage begin with ""."""
        rows = ", ".join(f"{count:,} {name}" for name, count in self.rows.items())
        sizes = ", ".join(f"{name} about {size / 1e6:.1f} MB" for name, size in self.size_bytes.items())
        base = f"{self.parameters / 1e6:.1f} million parameters, {self.base_bytes / 1e6:.1f} MB"
        stages = ", ".join(f"{stage} {seconds:.0f}" for stage, seconds in self.seconds.items())
        minutes = sum(self.seconds.values()) / 60
        return [
            ("data", "; ".join(filter(None, (f"{self.data}: {rows}", self.words["data"])))),
            *(("", finding) for finding in self.findings),
            ("base", f"{self.base}: {base}{self.words.get('base', '')}"),
            ("tune", f"{self.method}, {self.words['tune']}{self._training()}"),
            ("compress", f"tries {', '.join(self.schemes)}, {self.words['compress']} ({sizes})"),
            ("bench", f"base in PyTorch beside the bundle, {self.threads} threads each"),
            *self.targets,
            *self.more,
            ("out", self.out + (" (replaces the bundle there)" if self.replaces else "")),
            ("disk", f"about {self.work_bytes / 1e6:.0f} MB in the work folder {self.out}.work"),
            ("time", f"about {minutes:.1f} minutes ({stages} s); estimated from {self.basis}"),
            ("", "Nothing was done."),
        ]

    def _training(self) -> str:
        epochs = f"at most {self.epochs:g} epochs in {self.precision} on {self.device}"
        return f", {epochs}" if self.epochs else f", on {self.device}"


def make_plan(recipe: Recipe) -> Plan:
    """Read the data, open the base, time a few passes over a sample, and estimate the rest.

    Raises:
        EdgetuneError: whatever would stop the build before it starts.
    """
    plan: Plan = TASKS[recipe.task].load("plan")(recipe)
    return plan
