"""Texts of the training part with small changes, as further rows of the same labels: one row in `AUGMENTERS` a kind.

Swap and deletion are EDA's (Wei and Zou 2019, arXiv 1901.11196). Must not import torch: the recipe reads the table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgetune.tune.augmentation.drawn import Drawn, Synonyms
from edgetune.tune.augmentation.keyboard import mistype
from edgetune.tune.augmentation.synonyms import replace_words
from edgetune.tune.augmentation.word_order import delete, swap


@dataclass(frozen=True)
class Augmenter:
    """A way to change a text.

    Attributes:
        name: as recipes name it.
        summary: one sentence.
        change: a text and synonyms by word to other words by place, "" for none; empty where nothing can change.
        needs_lexicon: whether it takes words from the user's lexicon.
    """

    name: str
    summary: str
    change: Callable[[Drawn, Synonyms], dict[int, str]]
    needs_lexicon: bool = False


AUGMENTERS: dict[str, Augmenter] = {
    kind.name: kind
    for kind in (
        Augmenter("swap", "Two words change places.", swap),
        Augmenter("delete", "Words are left out.", delete),
        Augmenter("typing", "A letter is mistyped: a neighbouring key, two in turn, one left out.", mistype),
        Augmenter("synonyms", "Words become synonyms that a lexicon gives.", replace_words, needs_lexicon=True),
    )
}


class TextAugmentRecipe(BaseModel):
    """How training texts are copied with small changes; texts that choose and judge never are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kinds: tuple[str, ...] = Field((), description="Changes, of " + ", ".join(AUGMENTERS) + "; none without any.")
    copies: int = Field(1, ge=1, le=10, description="Copies of each training text, each by one of the kinds, drawn.")
    lexicon: str | None = Field(
        None,
        description="Of kind synonyms: WordNet's folder with data.noun and its like, or a UTF-8 file with a group of "
        "synonyms a line, split at commas or tabs.",
    )
    decide: Literal["auto", "always"] = Field(
        "auto", description="auto learns the copies only where the probe gains more than its standard error by them."
    )

    @field_validator("kinds")
    @classmethod
    def _known_kinds(cls, kinds: tuple[str, ...]) -> tuple[str, ...]:
        if strangers := [kind for kind in kinds if kind not in AUGMENTERS]:
            raise ValueError(f"there is no kind {strangers[0]!r}; expected some of {', '.join(AUGMENTERS)}")
        return kinds

    @model_validator(mode="after")
    def _whole(self) -> Self:
        """Nothing that is said goes without effect."""
        needed = any(AUGMENTERS[kind].needs_lexicon for kind in self.kinds)
        if needed and self.lexicon is None:
            raise ValueError("kind synonyms has no lexicon; name its words with data.augment.lexicon")
        if self.lexicon is not None and not needed:
            raise ValueError("a lexicon is given, which no kind uses; add synonyms to kinds")
        if not self.kinds and (self.copies != 1 or self.decide != "auto"):
            raise ValueError(f"augment has no kinds; expected kinds, some of {', '.join(AUGMENTERS)}")
        return self
