"""EDA's two operations on places: words that change places, and words that are left out (arXiv 1901.11196)."""

from __future__ import annotations

from edgetune.tune.augmentation.drawn import Drawn, Synonyms


def swap(row: Drawn, _: Synonyms) -> dict[int, str]:
    """Pairs of words that change places."""
    words = [row.word(place) for place in range(len(row.words))]
    if len(words) < 2:
        return {}
    for _pair in range(row.most):
        first, second = row.draw.choice(len(words), 2, replace=False).tolist()
        words[first], words[second] = words[second], words[first]
    return {place: word for place, word in enumerate(words) if word != row.word(place)}


def delete(row: Drawn, _: Synonyms) -> dict[int, str]:
    """Words that are left out; one at least stays."""
    return dict.fromkeys(row.some(range(len(row.words))), "") if len(row.words) > row.most else {}
