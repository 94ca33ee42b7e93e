"""What a build would do, with sizes and a time estimate, without doing it: nothing is written.

Each task has a plan of its own in cli/tasks/; what they share stands here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from edgetune.tasks import TASKS

if TYPE_CHECKING:
    from edgetune.recipe import CommonRecipe


class Plan(Protocol):
    """What would be done."""

    def summary(self) -> dict[str, Any]:
        """What a script wants to know, as JSON types."""

    def lines(self) -> list[tuple[str, str]]:
        """What a person wants to know: a stage and what it would do; further lines of a stage begin with ""."""


def make_plan(recipe: CommonRecipe) -> Plan:
    """Read the data, open the base, time one pass over a sample, and estimate the rest.

    Raises:
        EdgetuneError: whatever would stop the build before it starts.
    """
    plan: Plan = TASKS[recipe.task].open_plan()(recipe)
    return plan


def place_lines(out: str, replaces: bool, disk: str, seconds: Mapping[str, float], basis: str) -> list[tuple[str, str]]:
    """The last lines of every plan: where the bundle goes, the disk and the time that it takes, by `basis`.

    Args:
        disk: how much in the work folder, such as "about 9 MB".
    """
    stages = ", ".join(f"{stage} {value:.0f}" for stage, value in seconds.items())
    return [
        ("out", f"{out}" + (" (replaces the bundle there)" if replaces else "")),
        ("disk", f"{disk} in the work folder {out}.work"),
        ("time", f"about {sum(seconds.values()) / 60:.1f} minutes ({stages} s); estimated from {basis}"),
        ("", "Nothing was done."),
    ]
