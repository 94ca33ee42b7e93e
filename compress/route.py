"""Routes: how a candidate comes about. Weight-level steps reshape the model, one graph-level scheme ends the route.

An artefact is a small model of its own, a route of one scheme; a cascade is an artefact before another route.
"""

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


# Between the small model of a cascade and the strong one, in a route's name.
CASCADE_MARK = "~"


@dataclass(frozen=True)
class Route:
    """The steps to a candidate, in the order they are taken, and the graph-level scheme or artefact at the end.

    `small` is the artefact that answers first where the candidate is a cascade.
    """

    steps: tuple[Step, ...]
    graph: str
    small: str = ""

    @property
    def name(self) -> str:
        """`student3+trimmed+int8_dynamic`; of a cascade `static~trimmed+int8_dynamic`."""
        strong = "+".join([*(step.name for step in self.steps), self.graph])
        return f"{self.small}{CASCADE_MARK}{strong}" if self.small else strong

    @property
    def is_model(self) -> bool:
        """Whether one graph of the model answers: no artefact of its own, and no cascade."""
        return not self.small and SCHEMES[self.graph].level == "graph"

    @property
    def keeps_head(self) -> bool:
        """Whether the tuned model's own head answers, of a cascade behind the small model; a student has its own."""
        return SCHEMES[self.graph].level == "graph" and not self.structural

    @property
    def schemes(self) -> tuple[Scheme, ...]:
        """All schemes on the way to the graph, or to the artefact; the small model of a cascade aside."""
        return tuple(SCHEMES[name] for name in (*(step.scheme for step in self.steps), self.graph))

    @property
    def structural(self) -> bool:
        """Whether any step takes parts of the model away, or an artefact takes its place.

        A cascade is as its strong model: what its small one may cost was bounded when the threshold was chosen.
        """
        return any(scheme.structural for scheme in self.schemes)

    @property
    def neighbours(self) -> bool:
        """Whether an answer may depend on what else is answered in the same batch."""
        return any(scheme.neighbours for scheme in self.schemes)

    @property
    def tolerance(self) -> float:
        """Largest logit difference when golden answers are replayed elsewhere, as a share of the logits' spread."""
        return max(scheme.tolerance for scheme in self.schemes)
