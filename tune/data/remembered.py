"""Rows of an earlier task beside those of a new one, so that what is learnt anew can be held against what is forgotten.

Their labels are joined, the earlier ones first, as an earlier model's head has them. Held-out rows of the earlier task
stand behind the new ones in the validation and test parts, so that both tasks choose and judge.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.dataset import DataRecipe, Dataset, Part, Remembered


def earlier_recipe(recipe: DataRecipe) -> DataRecipe:
    """How the rows of the earlier task are read: as the new ones, from `remember`."""
    nothing = dict.fromkeys(("train", "validation", "test", "unlabeled", "out_of_scope", "remember"))
    return recipe.model_copy(update={**nothing, "path": recipe.remember})


def with_remembered(new: Dataset, earlier: Dataset, replay: float, seed: int) -> Dataset:
    """The new rows with the earlier task's, their labels joined.

    Args:
        replay: share of the earlier training rows that are learnt again.
        seed: of the rows that are drawn for it.
    """
    labels = (*earlier.labels, *(label for label in new.labels if label not in earlier.labels))
    places = {label: place for place, label in enumerate(labels)}

    def numbered(part: Part, names: tuple[str, ...], without: frozenset[object]) -> Part:
        kept = [place for place, text in enumerate(part.texts) if text not in without]
        targets = tuple(places[names[int(part.targets[place])]] for place in kept)  # type: ignore[arg-type]
        return Part(tuple(part.texts[place] for place in kept), targets)

    nothing: frozenset[object] = frozenset()
    train, validation, test = (numbered(part, new.labels, nothing) for part in (new.train, new.validation, new.test))
    learnt, held_out = frozenset(train.texts), frozenset((*validation.texts, *test.texts))
    rows = numbered(earlier.train, earlier.labels, held_out)
    order = np.random.default_rng(seed).permutation(len(rows)).tolist()
    rows = Part(tuple(rows.texts[place] for place in order), tuple(rows.targets[place] for place in order))
    judged = [numbered(part, earlier.labels, learnt) for part in (earlier.validation, earlier.test)]
    replayed = round(replay * len(rows))
    added = [label for label in new.labels if label not in earlier.labels]
    finding = (
        f"Remembered {counted(len(rows), 'training row')} of {earlier.source} with "
        f"{counted(len(earlier.labels), 'label')}, {replayed:,} of them learnt again; the new rows add "
        f"{counted(len(added), 'label')}."
    )
    return replace(
        new,
        train=_joined(train, Part(rows.texts[:replayed], rows.targets[:replayed])),
        validation=_joined(validation, judged[0]),
        test=_joined(test, judged[1]),
        labels=labels,
        findings=(*new.findings, finding),
        remembered=Remembered(rows, replayed, len(judged[0]), len(judged[1])),
    ).with_digest()


def _joined(part: Part, other: Part) -> Part:
    return Part(part.texts + other.texts, part.targets + other.targets)
