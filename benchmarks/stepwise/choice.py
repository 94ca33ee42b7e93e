"""The choice among a language model's schemes in words: why one was taken, and why others were never tried.

Apart from the search, which takes the first that passes; ../choice.py weighs classifiers' candidates by their speed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from edgetune.benchmarks.stepwise.ladder import Climbed
from edgetune.compress.gptq.schemes import LADDER
from edgetune.serve.stepwise.report import LanguageCandidate

Schemes = Sequence[str] | Literal["auto"]  # as the recipe has them: names in the order they are tried


def why_chosen(climbed: Climbed, chosen: str, fallen: Mapping[str, str], schemes: Schemes) -> str:
    """Why the chosen scheme won, in a sentence; empty where none did.

    Args:
        climbed: what was tried.
        chosen: the scheme that is packed, or "".
        fallen: schemes that were preferred and then failed on the test part.
        schemes: those that the user asked for.
    """
    if not chosen:
        return ""
    refused = []
    for candidate in climbed.candidates:
        if candidate.scheme == chosen:
            break
        refused.append(_refused(candidate, fallen))
    refused += [f"{name} (it failed)" for name in _before(chosen, climbed.failed, schemes)]
    if schemes != "auto" and len(schemes) == 1:
        return f"{chosen} won: no other scheme was asked for, and the gate let it through."
    order = "smallest first" if schemes == "auto" else "in the order of the recipe"
    if not refused:
        return f"{chosen} won: schemes are tried {order}, and the gate let the first one through."
    *others, last = refused
    names = f"{', '.join(others)} and {last}" if others else last
    return f"{chosen} won: schemes are tried {order}, and before it {names} {'were' if others else 'was'} refused."


def _asked(schemes: Schemes) -> list[str]:
    return [scheme.name for scheme in LADDER] if schemes == "auto" else list(schemes)


def _before(chosen: str, names: Iterable[str], schemes: Schemes) -> list[str]:
    """Those of `names` that are tried before the chosen scheme."""
    earlier = _asked(schemes)[: _asked(schemes).index(chosen)]
    return [name for name in names if name in earlier]


def _refused(candidate: LanguageCandidate, fallen: Mapping[str, str]) -> str:
    if candidate.scheme in fallen:
        return f"{candidate.scheme} (on the test part)"
    return f"{candidate.scheme} (rise {100 * candidate.rise:+.2f}%, agreement {100 * candidate.agreement:.1f}%)"


def skipped_schemes(climbed: Climbed, schemes: Schemes) -> dict[str, str]:
    """The schemes that were not tried or failed, by name, and why."""
    tried = [one.scheme for one in climbed.candidates]
    asked = _asked(schemes)
    passed = next((one.scheme for one in climbed.candidates if one.accepted), None)
    skipped = dict(climbed.failed)
    for name in (scheme.name for scheme in LADDER):
        if name in tried or name in climbed.failed:
            continue
        if name not in asked or passed is None or asked.index(name) < asked.index(passed):
            skipped[name] = "the recipe's compress.schemes does not name it"
        elif schemes == "auto":
            skipped[name] = f"{passed}, which is smaller, passed the gate"
        else:
            skipped[name] = f"{passed}, which stands before it in compress.schemes, passed the gate"
    return skipped
