"""A cache's tensors bound to a session, as its inputs and outputs at once: a step writes behind what they hold.

Binding forty values by name takes longer than a small model's products, so it is done once for the tensors and not once
for the step; and a step, which finds Python's own code cold behind a model's weights, goes by as few calls as it can.
Must import numpy only; session and store come in as arguments.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.stepwise.cache import Store

if TYPE_CHECKING:
    import onnxruntime

Ids = NDArray[np.int64]
# What may be fed to graphs that give logits of several positions: (1,) int64, the first of them, counted from the end.
LOGITS_FROM = "logits_from"


class Bound:
    """One cache's tensors and the logits behind its rows. Not thread-safe, as a cache under way has one owner."""

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        store: Store,
        names: Sequence[tuple[str, str]],
        values: Sequence[Any],
        vocabulary: int,
        takes: Collection[str],
    ) -> None:
        """Bind.

        Args:
            session: of the graph.
            store: where caches lie.
            names: past and present of each value.
            values: OrtValues (rows, heads, capacity, width).
            vocabulary: width of the logits.
            takes: the names of the graph's inputs.
        """
        self._session, self._store, self._takes = session, store, takes
        self._binding: Any = session.io_binding()
        for (past, present), value in zip(names, values, strict=True):
            self._binding.bind_ortvalue_input(past, value)
            self._binding.bind_ortvalue_output(present, value)
        rows, _, capacity, _ = values[0].shape()
        self._vocabulary = vocabulary
        self._logits = np.zeros((rows, 1, vocabulary), np.float32)
        self._last = self._logits[:, 0]
        self._binding.bind_ortvalue_output("logits", store.value(self._logits))
        self._fed: dict[str, Any] = {}
        # What a step of one token a row goes by: the mask of all columns, and ids and places that stay bound.
        self._mask = np.ones((rows, capacity), np.int64)
        self._ids, self._places = np.zeros((rows, 1), np.int64), np.zeros((rows, 1), np.int64)
        self._known = -1

    def run(self, feed: Mapping[str, Ids]) -> NDArray[np.float32]:
        """Run ids, mask and positions of any number of tokens, each int64.

        Returns:
            the logits (rows, vocabulary) float32 behind the last tokens, in memory that the next run writes again.
        """
        self._known = -1
        for name, array in feed.items():
            self._feed(name, np.ascontiguousarray(array))
        self._session.run_with_iobinding(self._binding)
        return self._last

    def run_ahead(self, feed: Mapping[str, Ids]) -> NDArray[np.float32]:
        """As `run`, of one row and a graph that takes `LOGITS_FROM`: the logits (tokens, vocabulary) of all its ids."""
        tokens = feed["input_ids"].shape[1]
        logits = np.empty((1, tokens, self._vocabulary), np.float32)
        self._feed(LOGITS_FROM, np.array([-tokens], np.int64))
        self._binding.bind_ortvalue_output("logits", self._store.value(logits))
        try:
            self.run(feed)
        finally:
            self._feed(LOGITS_FROM, np.array([-1], np.int64))
            self._binding.bind_ortvalue_output("logits", self._store.value(self._logits))
        last: NDArray[np.float32] = logits[0]
        return last

    def step(self, ids: Ids, before: Ids) -> tuple[NDArray[np.float32], Ids]:
        """Run one token a row, none of them padding.

        Args:
            ids: (rows, 1) int64.
            before: the mask (rows, columns) int64 of what stands before them, as the run before told or left it.

        Returns:
            the logits as `run` gives them, and the mask (rows, columns + 1) with these tokens.
        """
        columns = before.shape[1]
        if self._known != columns:
            self._begin(before)
        self._ids[...] = ids
        mask = self._mask[:, : columns + 1]
        if "attention_mask" in self._takes:
            self._binding.bind_cpu_input("attention_mask", mask)  # one call; it reads a row of ours in place
        self._session.run_with_iobinding(self._binding)
        self._places += 1
        self._known = columns + 1
        return self._last, mask

    def _begin(self, before: Ids) -> None:
        """Take over from a run that was told all it needed."""
        self._mask[:, : before.shape[1]] = before
        before.sum(axis=1, keepdims=True, out=self._places)
        self._feed("input_ids", self._ids)
        if "position_ids" in self._takes:
            self._feed("position_ids", self._places)

    def _feed(self, name: str, array: Ids) -> None:
        """Bind an array, which the value shares its memory with: what is bound is kept alive."""
        self._fed[name] = value = self._store.value(array)
        self._binding.bind_ortvalue_input(name, value)
