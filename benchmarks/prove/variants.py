"""The graphs that a bundle holds beside the chosen one: which may, how each is best run, and how fast it is then.

They differ from the chosen one in the graph-level scheme alone, so tokenizer and inputs are the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from edgetune.benchmarks.prove.search import Searched
from edgetune.benchmarks.timing.quick import quick_race
from edgetune.benchmarks.timing.runtime import measure_settings
from edgetune.benchmarks.timing.side import Side
from edgetune.compress.route import CASCADE_MARK
from edgetune.compress.schemes import SCHEMES
from edgetune.export.once.variants import VariantDraft
from edgetune.serve.bundle import Bundle, RuntimeSettings
from edgetune.tune.data.rows import Input
from edgetune.tune.training.progress import Progress


def passed_variants(chosen: str, requested: Sequence[str], searched: Searched) -> tuple[list[str], list[str]]:
    """The routes of wanted variants that passed the search's gates, and a sentence for each that did not.

    Being beaten by the chosen one is no obstacle: on another machine it may be the other way about.
    """
    *steps, graph = chosen.rpartition(CASCADE_MARK)[2].split("+")
    if SCHEMES[graph].level == "artefact":
        return [], [f"The bundle holds no variant {name}: {chosen} is no graph of the model." for name in requested]
    candidates = {one.scheme: one for one in searched.candidates}
    passed: list[str] = []
    notes: list[str] = []
    for route in ("+".join([*steps, name]) for name in requested if name != graph):
        one = candidates.get(route)
        if one is None:
            reason = searched.skipped.get(route, "the search did not make it")
        elif one.accepted and one.stopped_at in ("", "dominated"):
            passed.append(route)
            continue
        else:
            reason = one.reason
        notes.append(f"The bundle holds no variant {route}: {reason}.")
    return passed, notes


def measured_variants(
    drafts: Mapping[str, Bundle],
    settings: RuntimeSettings,
    texts: Sequence[Input],
    threads: int | None,
    progress: Progress,
) -> list[VariantDraft]:
    """What is packed of each draft: the settings it is best run with, and its p50 with them, all of them in turn.

    The p50 is None where the machine was too busy for it to mean anything.

    Args:
        drafts: by route, the chosen one first.
        settings: of the chosen one.
        texts: what is answered.
        threads: the only number of threads to try; None tries several.
        progress: tells how far it is.
    """
    names = list(drafts)
    needs = {name: SCHEMES[name.rpartition(CASCADE_MARK)[2].split("+")[-1]].needs for name in names}
    if drafts[names[0]].manifest.provider != "cpu":
        return [VariantDraft(drafts[name], needs[name], settings, None) for name in names]
    best = {names[0]: settings}
    for name in names[1:]:
        best[name], _ = measure_settings(drafts[name].folder, texts, progress, threads=threads)
    sides = {
        name: Side("bundle", drafts[name].folder, threads=one.threads, spinning=one.spinning)
        for name, one in best.items()
    }
    figures = quick_race(sides, texts, progress)
    p50 = {name: round(timed.p50_ms, 4) if timed.timing_valid else None for name, timed in figures.items()}
    return [VariantDraft(drafts[name], needs[name], best[name], p50[name]) for name in names]
