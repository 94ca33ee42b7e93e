"""The plainest loop over a decoder graph: every step in numpy, the likeliest token taken, no end but a count.

Parity stands on it, so that a fault that it tells is the graph's and not the runtime's. Needs the floor alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.session import open_session
from edgetune.serve.stepwise.first_caches import FirstCaches
from edgetune.serve.stepwise.spec import GenerationSpec

Ids = Sequence[Sequence[int]]


class GreedyLoop:
    """A decoder graph in a session, stepped by hand."""

    def __init__(self, graph: Path, spec: GenerationSpec) -> None:
        self._spec = spec
        self._session = open_session(graph, provider="cpu")
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self.outputs = tuple(value.name for value in self._session.get_outputs())
        self._first = FirstCaches(graph.parent, spec)

    def first_logits(self, rows: Ids) -> NDArray[np.float32]:
        """Logits (batch, vocabulary) after the last token of each row, all rows in one left-padded step."""
        return self._begin(rows)[0]

    def continued_logits(self, row: Sequence[int]) -> NDArray[np.float32]:
        """Logits (1, vocabulary) after the last token, its first half already in the cache: prefixes are kept so."""
        ids, mask = left_padded([row])
        half = len(row) // 2
        mask = self._behind_first(mask)
        _, past = self._step(ids[:, :half], mask[:, : mask.shape[1] - len(row) + half], self._start(1))
        return self._step(ids[:, half:], mask, past)[0]

    def generate(self, rows: Ids, tokens: int) -> list[list[int]]:
        """The next `tokens` ids of each row, the likeliest at every place; no token ends a row."""
        mask = self._behind_first(left_padded(rows)[1])
        logits, past = self._begin(rows)
        steps: list[NDArray[np.int64]] = []
        while True:
            ids = logits.argmax(axis=1).astype(np.int64)[:, None]
            steps.append(ids)
            if len(steps) == tokens:
                break
            mask = np.concatenate([mask, np.ones_like(ids)], axis=1)
            logits, past = self._step(ids, mask, past)
        return [[int(one) for one in row] for row in np.concatenate(steps, axis=1)]

    def _begin(self, rows: Ids) -> tuple[NDArray[np.float32], list[Any]]:
        """The first step, left-padded; of a graph that cannot take it so, row by row and left-padded behind it."""
        ids, mask = left_padded(rows)
        if not (self._spec.begins_apart or self._first.names):
            return self._step(ids, mask, self._start(len(rows)))
        apart = [
            self._step(ids[[row]][:, real], self._behind_first(mask[[row]][:, real]), self._start(1))
            for row, real in enumerate(mask > 0)
        ]
        longest = max(past[0].shape[2] for _, past in apart)
        padded = [
            [np.pad(one, ((0, 0), (0, 0), (longest - one.shape[2], 0), (0, 0))) for one in past] for _, past in apart
        ]
        return np.concatenate([logits for logits, _ in apart]), [
            np.concatenate(part) for part in zip(*padded, strict=True)
        ]

    def _behind_first(self, mask: NDArray[np.int64]) -> NDArray[np.int64]:
        """A mask (batch, tokens) with the virtual tokens' places, which stand behind a row's padding."""
        virtual = len(self._first.virtual_ids(self._first.name(None)))
        return np.concatenate([mask, np.ones((len(mask), virtual), dtype=np.int64)], axis=1)

    def _start(self, batch: int) -> list[NDArray[np.float32]]:
        """What sequences start from."""
        if (name := self._first.name(None)) is not None:
            return [np.repeat(part, batch, axis=0) for part in self._first.arrays(name)]
        shape = (batch, self._spec.kv_heads, 0, self._spec.head_dim)
        return [np.zeros(shape, dtype=np.float32) for _ in self._spec.past_names()]

    def _step(
        self, ids: NDArray[np.int64], mask: NDArray[np.int64], past: list[Any]
    ) -> tuple[NDArray[np.float32], list[Any]]:
        """One run: `ids` (batch, tokens) and `mask` (batch, total tokens) to the last logits and the present."""
        positions = np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -ids.shape[1] :]
        given = {"input_ids": ids, "attention_mask": mask, "position_ids": positions}
        given.update(zip(self._spec.past_names(), past, strict=True))
        names = ["logits", *self._spec.present_names()]
        logits, *present = self._session.run(names, {name: given[name] for name in self.inputs})
        return logits[:, -1], present


def left_padded(rows: Ids) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows of unlike length as ids and mask, both (batch, longest) int64, padded with token 0 on the left."""
    longest = max(len(row) for row in rows)
    ids = np.zeros((len(rows), longest), dtype=np.int64)
    mask = np.zeros_like(ids)
    for place, row in enumerate(rows):
        ids[place, longest - len(row) :] = row
        mask[place, longest - len(row) :] = 1
    return ids, mask
