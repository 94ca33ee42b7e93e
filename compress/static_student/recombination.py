"""More inputs for the teacher to answer: the beginning of one text with the end of another.

A student that adds up words learns more of what each is worth from texts in which they stand beside others, and the
teacher's answer to nonsense is as exact as to sense. Cut between tokens, so that no language needs a splitter.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

EncodedRow = dict[str, list[int]]


def recombined(rows: Sequence[EncodedRow], special: Collection[int], count: int, *, seed: int) -> list[EncodedRow]:
    """`count` encoded inputs, each the beginning of one row and the end of another, drawn by the seed.

    Args:
        rows: input_ids, attention_mask [, token_type_ids] of each, unpadded.
        special: ids that frame a text, of which none is cut off.
        count: how many; none is longer than the longest row.
    """
    random = np.random.default_rng(seed)
    texts = [(row, bounds) for row in rows if (bounds := text_bounds(row["input_ids"], special))]
    longest = max((len(row["input_ids"]) for row, _ in texts), default=0)
    made: list[EncodedRow] = []
    for first, second in random.integers(len(texts), size=(count if texts else 0, 2)).tolist():
        (row, (start, end)), (other, (other_start, other_end)) = texts[first], texts[second]
        cut = int(random.integers(start, end + 1))
        other_cut = int(random.integers(other_start, other_end + 1))
        behind = len(other["input_ids"]) - other_end
        other_cut = max(other_cut, other_end - (longest - cut - behind))
        if cut == start and other_cut == other_end:
            cut = end  # of no token at all the teacher would say nothing
        made.append({name: values[:cut] + other[name][other_cut:] for name, values in row.items()})
    return made


def text_bounds(ids: Sequence[int], special: Collection[int]) -> tuple[int, int] | None:
    """Where the text begins and ends between its special tokens; None where there is no other token."""
    ordinary = [place for place, token in enumerate(ids) if token not in special]
    return (ordinary[0], ordinary[-1] + 1) if ordinary else None
