"""A cache's tensors bound to a session, as its inputs and outputs at once: a step writes behind what they hold.

Binding forty values by name takes longer than a small model's products, so it is done once for the tensors and not once
for the step. Must import numpy only; session and store come in as arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.generation.cache import Store


class Bound:
    """One cache's tensors and the logits behind its rows. Not thread-safe, as a cache under way has one owner."""

    def __init__(
        self, session: Any, store: Store, names: Sequence[tuple[str, str]], values: Sequence[Any], vocabulary: int
    ) -> None:
        """Bind.

        Args:
            session: of the graph.
            store: where caches lie.
            names: past and present of each value.
            values: OrtValues (rows, heads, capacity, width).
            vocabulary: width of the logits.
        """
        self._session, self._store = session, store
        self._binding: Any = session.io_binding()
        for (past, present), value in zip(names, values, strict=True):
            self._binding.bind_ortvalue_input(past, value)
            self._binding.bind_ortvalue_output(present, value)
        self._fed: dict[str, tuple[NDArray[np.int64], Any]] = {}
        self._logits = np.zeros((int(values[0].shape()[0]), 1, vocabulary), np.float32)
        self._binding.bind_ortvalue_output("logits", store.value(self._logits))

    def run(self, feed: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """Run ids, mask and positions, each int64.

        Returns:
            the logits (rows, vocabulary) float32 behind the last tokens, in memory that the next run writes again.
        """
        for name, array in feed.items():
            bound, _ = self._fed.get(name, (None, None))
            if bound is not None and bound.shape == array.shape:
                bound[...] = array
            else:
                own = np.array(array, order="C")  # which the value shares its memory with
                self._fed[name] = (own, self._store.value(own))
                self._binding.bind_ortvalue_input(name, self._fed[name][1])
        self._session.run_with_iobinding(self._binding)
        return self._logits[:, 0]
