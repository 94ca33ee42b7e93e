"""Changed copies of training rows, at the end of the training part, and of that part alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from edgetune.tune.augmentation import AUGMENTERS, TextAugmentRecipe
from edgetune.tune.augmentation.drawn import Drawn, Synonyms
from edgetune.tune.augmentation.lexicon import read_lexicon
from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.dataset import Copies, Dataset, Part
from edgetune.tune.data.rows import Target, key


def with_copies(dataset: Dataset, recipe: TextAugmentRecipe, seed: int) -> Dataset:
    """The data set with changed copies of its training rows behind them, each of its row's target.

    A copy that equals, but for case and spacing, a text of any part or another copy is left out. Each draw depends on
    the seed, the row's text and the copy's number alone.

    Args:
        dataset: of single texts, without copies.
        recipe: with one kind at least.

    Raises:
        DataError: the lexicon is none.
    """
    synonyms: Synonyms = read_lexicon(Path(recipe.lexicon)) if recipe.lexicon is not None else {}
    held_out = {key(text) for part in (dataset.validation, dataset.test) for text in part.texts}
    known = {key(text) for text in dataset.train.texts}
    texts: list[str] = []
    targets: list[Target] = []
    counts: Counter[str] = Counter()
    unchanged = leaked = 0
    for number in range(recipe.copies):
        for text, target in zip(dataset.train.texts, dataset.train.targets, strict=True):
            kind, copy = _copy(str(text), recipe.kinds, synonyms, seed, number)
            if key(copy) in held_out:
                leaked += 1
            elif not copy or key(copy) in known:
                unchanged += 1
            else:
                known.add(key(copy))
                texts.append(copy)
                targets.append(target)
                counts[kind] += 1
    made = ", ".join(f"{counts[kind]:,} by {kind}" for kind in dict.fromkeys(recipe.kinds))
    finding = f"Added {counted(len(texts), 'changed copy', 'changed copies')} of training rows behind them: {made}."
    dropped = (
        f"Left out {counted(leaked, 'copy', 'copies')} equal to validation or test texts, {unchanged:,} equal to "
        "training texts or other copies."
    )
    return replace(
        dataset,
        train=Part((*dataset.train.texts, *texts), (*dataset.train.targets, *targets)),
        findings=(*dataset.findings, finding, *([dropped] if leaked or unchanged else [])),
        copies=Copies(len(texts), recipe.decide == "auto") if texts else None,
    ).with_digest()


def _copy(text: str, kinds: tuple[str, ...], synonyms: Synonyms, seed: int, number: int) -> tuple[str, str]:
    """The kind of a copy and its text: by the drawn kind, or the next that can change the text; else as it is."""
    row = Drawn.of(text, seed, number)
    first = int(row.draw.integers(len(kinds)))
    for kind in (*kinds[first:], *kinds[:first]):
        if changes := AUGMENTERS[kind].change(row, synonyms):
            return kind, row.changed(changes)
    return kinds[first], text
