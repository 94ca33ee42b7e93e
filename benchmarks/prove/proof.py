"""The proof on the test part: the search's choice is judged there, and behind it what stands next.

Each look at the test part widens the next one's interval; a candidate that cannot be judged has failed too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgetune.benchmarks.prove.gate import Verdict
from edgetune.serve.errors import GateError
from edgetune.tune.training.progress import Progress


@dataclass(frozen=True)
class FinalVerdict:
    """Which candidate may be packed.

    Attributes:
        chosen: its name; empty where none may.
        verdict: on it, None where there is none.
        looks: candidates that were judged.
        fallen: those that were preferred and then failed, with the reason.
    """

    chosen: str
    verdict: Verdict | None
    looks: int
    fallen: dict[str, str]


def prove(order: Sequence[str], judge: Callable[[str, int], Verdict], rows: int, progress: Progress) -> FinalVerdict:
    """Judge candidates on the test part until one is accepted.

    Args:
        order: their names, the preferred one first.
        judge: the verdict on a name, where so many have been judged, this one included; may raise GateError.
        rows: of the test part that judge.
        progress: told each verdict.
    """
    fallen: dict[str, str] = {}
    for looks, name in enumerate(order, start=1):
        try:
            verdict = judge(name, looks)
        except GateError as error:
            progress.say(f"{name} on {rows:,} test rows: failed; {error.found}")
            fallen[name] = error.found.rstrip(".")
            continue
        progress.say(f"{name} on {rows:,} test rows: {verdict.gate}; {verdict.reason}")
        if verdict.accepted:
            return FinalVerdict(name, verdict, looks, fallen)
        fallen[name] = verdict.reason
    return FinalVerdict("", None, len(order), fallen)
