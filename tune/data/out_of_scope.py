"""Texts out of scope: they belong to none of the classes, and a model that can abstain should be unsure of them.

Half of them help to choose the threshold, half are reported on; the model never learns from any.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgetune.serve.errors import DataError, RecipeError
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.unlabeled import clean_unlabeled, read_unlabeled

if TYPE_CHECKING:
    from edgetune.tune.data.columns import Columns
    from edgetune.tune.data.dataset import DataRecipe
    from edgetune.tune.data.rows import Parts

FEWEST_TEXTS = 20
_NOUN = "out-of-scope row"


@dataclass(frozen=True)
class OutOfScope:
    """Texts that belong to no class, what the user named, and sentences on how they were read."""

    texts: tuple[str, ...]
    source: str
    findings: tuple[str, ...]

    def halves(self, seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The texts that help to choose, and those that are reported on."""
        order = np.random.default_rng(seed).permutation(len(self.texts))
        middle = len(order) // 2
        choosing, reporting = (tuple(self.texts[place] for place in part) for part in (order[:middle], order[middle:]))
        return choosing, reporting


def read_out_of_scope(source: str, parts: Parts, recipe: DataRecipe, columns: Columns) -> OutOfScope:
    """The texts of `source` without those that stand in any part.

    Args:
        source: as `data.unlabeled` names its texts.
        parts: the labelled rows.
        recipe: how files are written and cleaned.
        columns: of the labelled rows.

    Raises:
        DataError: the source cannot be read, or too few texts are left.
        RecipeError: the labelled rows are pairs.
    """
    if len(columns.texts) > 1:
        raise RecipeError("data.out_of_scope is given with pairs of texts.", expected="labelled pairs alone.")
    texts, findings = read_unlabeled(source, recipe.file_options, columns.texts[0], noun=_NOUN)
    texts, done = clean_unlabeled(texts, parts, normalize=recipe.clean.normalize, deduplicate=True, noun=_NOUN)
    if len(texts) < FEWEST_TEXTS:
        raise DataError(
            f"{source} has {counted(len(texts), _NOUN)} with a text of its own.",
            expected=f"at least {FEWEST_TEXTS}: half of them choose the threshold, half are reported on",
            action="add such texts, or leave data.out_of_scope away",
        )
    return OutOfScope(texts, source, (*findings, *done))
