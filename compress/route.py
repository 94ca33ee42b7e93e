"""Routes: how a candidate comes about. Weight-level steps reshape the model, one graph-level scheme ends the route."""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.compress.schemes import SCHEMES, Scheme


@dataclass(frozen=True)
class Step:
    """A weight-level scheme at one of its strengths, such as a student of 3 layers."""

    scheme: str
    strength: int = 0

    @property
    def name(self) -> str:
        """`student3`, or `trimmed` for a scheme of one strength."""
        return f"{self.scheme}{self.strength or ''}"


@dataclass(frozen=True)
class Route:
    """The steps to a candidate, in the order they are taken, and the graph-level scheme at the end."""

    steps: tuple[Step, ...]
    graph: str

    @property
    def name(self) -> str:
        """`student3+trimmed+int8_dynamic`."""
        return "+".join([*(step.name for step in self.steps), self.graph])

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """All schemes on the way."""
        return tuple(SCHEMES[name] for name in (*(step.scheme for step in self.steps), self.graph))

    @property
    def structural(self) -> bool:
        """Whether any step takes parts of the model away."""
        return any(scheme.structural for scheme in self.schemes)

    @property
    def neighbours(self) -> bool:
        """Whether an answer may depend on what else is answered in the same batch."""
        return any(scheme.neighbours for scheme in self.schemes)

    @property
    def tolerance(self) -> float:
        """Largest logit difference when golden answers are replayed elsewhere, as a share of the logits' spread."""
        return max(scheme.tolerance for scheme in self.schemes)
