"""How a long stage says where it is, without knowing what shows it.

The command line draws a live bar or prints plain lines; a test records; a script ignores.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


class Progress(Protocol):
    """What a stage may tell while it works."""

    def say(self, text: str) -> None:
        """A finding worth a line of its own."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """`done` of `total` steps are finished; `note` is a few words such as the current loss."""


@runtime_checkable
class EvaluationWatcher(Protocol):
    """A progress that is told each evaluation's value too, and ends the training by raising an error of its own."""

    def evaluated(self, epoch: float, value: float) -> None:
        """The validation part's metric after so many passes over the rows."""


class Silent:
    """Tells nobody."""

    def say(self, text: str) -> None:
        """Ignore `text`."""

    def advance(self, done: int, total: int, note: str = "") -> None:
        """Ignore the step."""
