"""Static tables for another vocabulary: those of a tuned model, for one whose vocabulary was trimmed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from edgetune.serve.bundle import TOKENIZER_NAME
from edgetune.serve.engines.tables import StaticTables
from edgetune.serve.tokenizing import read_tokenizer


def for_vocabulary(tables: StaticTables, old: Path, new: Path) -> StaticTables:
    """The same rows under the ids that another tokenizer gives the same tokens; rows that no token has any more go.

    Args:
        tables: under the ids of `old`.
        old, new: model folders with a tokenizer.json each; a token of `new` that `old` has not says nothing.
    """
    before, after = (read_tokenizer(folder / TOKENIZER_NAME).get_vocab() for folder in (old, new))
    old_of = np.full(1 + max(after.values()), -1, np.int64)
    new_of = np.full(max(len(tables.token_rows), 1 + max(before.values())), -1, np.int64)
    for token, place in after.items():
        if (earlier := before.get(token)) is not None and earlier < len(tables.token_rows):
            old_of[place], new_of[earlier] = earlier, place
    token_rows = np.where(old_of >= 0, tables.token_rows[old_of], 0)
    first, second = new_of[tables.pair_keys >> 32], new_of[tables.pair_keys & 0xFFFF_FFFF]
    has_both = (first >= 0) & (second >= 0)
    keys, pair_rows = (first << 32 | second)[has_both], tables.pair_rows[has_both]
    order = np.argsort(keys)
    used, places = np.unique(np.concatenate([[0], token_rows, pair_rows]), return_inverse=True)
    return replace(
        tables,
        rows=tables.rows[used],
        scales=tables.scales[used],
        token_rows=places[1 : 1 + len(token_rows)].astype(np.int32),
        pair_keys=keys[order],
        pair_rows=places[1 + len(token_rows) :].astype(np.int32)[order],
    )
