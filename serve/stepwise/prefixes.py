"""Beginnings of prompts that have been computed: a system prompt that all chats share is run once.

Every prompt that ran alone is kept while there is room, the one used longest ago goes first; what `remember` was asked
for stays. Caches never change, so who finds one may go on from it. Must import the cache only.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np

from edgetune.serve.errors import InputError
from edgetune.serve.stepwise.cache import Cache

# Fewer common tokens are computed again: copying them out of another cache takes as long.
LEAST_TOKENS = 8


class Prefixes:
    """Caches of prompts by their ids, of at most `most_bytes` together. Thread-safe."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[int, ...], Cache] = OrderedDict()
        self._pinned: set[tuple[int, ...]] = set()

    @property
    def size_bytes(self) -> int:
        """Bytes of all that is kept."""
        with self._lock:
            return self._bytes()

    def find(self, ids: tuple[int, ...]) -> tuple[int, Cache | None]:
        """The longest known beginning of `ids`: how many tokens, and a cache of one row that begins with them.

        Returns:
            0 and None where none is long enough.
        """
        with self._lock:
            best = max(self._kept, key=lambda kept: common_tokens(kept, ids), default=())
            tokens = common_tokens(best, ids)
            if tokens < LEAST_TOKENS:
                return 0, None
            self._kept.move_to_end(best)
            return tokens, self._kept[best]

    def keep(self, ids: tuple[int, ...], cache: Cache, *, pinned: bool = False) -> None:
        """Keep the cache of a prompt, one row without padding; others go for it where the room is short.

        Raises:
            InputError: it is to be pinned and does not fit.
        """
        with self._lock:
            held = sum(self._kept[kept].size_bytes for kept in self._pinned if kept != ids)
            if cache.size_bytes + held > self.most_bytes:
                if pinned:
                    raise InputError(
                        f"The prefix of {len(ids):,} tokens takes {cache.size_bytes:,} bytes.",
                        expected=f"at most {self.most_bytes - held:,} bytes beside what is remembered already",
                        action="open the generator with a larger prefix_bytes",
                    )
                return
            for kept in [kept for kept in self._kept if kept == ids[: len(kept)] and kept not in self._pinned]:
                del self._kept[kept]  # the new one answers for it
            self._kept[ids] = cache
            if pinned:
                self._pinned.add(ids)
            for kept in list(self._kept):
                if self._bytes() <= self.most_bytes:
                    break
                if kept not in self._pinned and kept != ids:
                    del self._kept[kept]

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._kept.clear()
            self._pinned.clear()

    def _bytes(self) -> int:
        return sum(cache.size_bytes for cache in self._kept.values())


def common_tokens(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two prompts share at their beginning."""
    length = min(len(one), len(other))
    if one[:length] == other[:length]:
        return length
    return int(np.argmax(np.asarray(one[:length]) != np.asarray(other[:length])))
