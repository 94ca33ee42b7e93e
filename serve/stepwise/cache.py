"""Keys and values of the tokens so far, for rows that take their steps together.

Rows are aligned at their last token: shorter ones begin later, behind padding that the mask hides. The tensors stay
ONNX Runtime's own values from one step to the next; where the graph can write into them, a step copies nothing, and
else it copies what the graph copies. Must import numpy only; ONNX Runtime comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROOM_STEP = 64


@dataclass
class Tail:
    """How far tensors with room at their end are written; the caches that begin in them share it.

    Attributes:
        used: columns that hold tokens of some cache.
        capacity: columns that there are.
        bound: the tensors bound to a session, as its inputs and outputs at once; None until a step has run.
    """

    used: int
    capacity: int
    bound: Any = None


@dataclass(frozen=True)
class Cache:
    """The cache of some rows. It never changes: a step gives a new one, so it may be kept and used again.

    Attributes:
        values: OrtValues (rows, heads, columns, width) by layer and part, in the order of the graph's inputs. Of a
            layer with a sliding window, columns may be fewer: they are the last ones. With a tail they may be more:
            a step writes behind those of this cache, unless another has done so already.
        mask: (rows, columns) int64, 1 where a token stands.
        tail: of tensors with room; None where a step makes new ones.
    """

    values: tuple[Any, ...]
    mask: NDArray[np.int64]
    tail: Tail | None = None

    @property
    def rows(self) -> int:
        """How many answers it serves."""
        return int(self.mask.shape[0])

    @property
    def columns(self) -> int:
        """Places of each row, padding included."""
        return int(self.mask.shape[1])

    @property
    def size_bytes(self) -> int:
        """Bytes of all its tensors, their room included."""
        return sum(int(value.tensor_size_in_bytes()) for value in self.values)

    def takes(self, tokens: int) -> bool:
        """Whether so many can be written behind its own, where nobody else has written."""
        columns = self.columns
        return self.tail is not None and self.tail.used == columns and columns + tokens <= self.tail.capacity

    def arrays(self) -> list[NDArray[Any]]:
        """Its tensors without the room at their end, as views that hold as long as this cache: who keeps them copies.

        A view of an OrtValue does not keep the array alive that the value was made of.
        """
        return [value.numpy()[:, :, : self.columns] for value in self.values]


@dataclass(frozen=True)
class Store:
    """Where caches lie: how arrays become values of ONNX Runtime on the graph's device.

    Attributes:
        ort_value: ONNX Runtime's class OrtValue.
        device: "cpu" or "cuda".
        sizes: (heads, width) of each value.
        dtypes: of each value.
        roomy: whether the graph writes into its cache: then tensors are made with room for tokens to come.
        context_tokens: more than these never come.
    """

    ort_value: Any
    device: str
    sizes: tuple[tuple[int, int], ...]
    dtypes: tuple[Any, ...]
    roomy: bool = False
    context_tokens: int = 0

    def value(self, array: NDArray[Any]) -> Any:
        """An array as a value on the device; on the CPU it is not copied."""
        return self.ort_value.ortvalue_from_numpy(array, self.device, 0)

    def cache(self, arrays: Sequence[NDArray[Any]], mask: NDArray[np.int64], *, coming: int = 1) -> Cache:
        """A cache of arrays (rows, heads, columns, width), with room for at least `coming` tokens where it is roomy."""
        if not self.roomy:
            return Cache(tuple(self.value(np.ascontiguousarray(array)) for array in arrays), mask)
        rows, columns = mask.shape
        capacity = self._capacity(columns + coming)
        values = []
        for array, (heads, width), dtype in zip(arrays, self.sizes, self.dtypes, strict=True):
            roomy = np.zeros((rows, heads, capacity, width), dtype)
            roomy[:, :, :columns] = array
            values.append(self.value(roomy))
        return Cache(tuple(values), mask, Tail(columns, capacity))

    def _capacity(self, columns: int) -> int:
        """Columns to make for so many: a quarter more and some, so that a long answer moves its cache seldom."""
        return max(columns, min(self.context_tokens, -(-(columns * 5 // 4 + 32) // ROOM_STEP) * ROOM_STEP))


def first_cache(store: Store, arrays: Sequence[NDArray[Any]], rows: int, *, coming: int = 1) -> Cache:
    """A cache of `arrays`, (1, heads, tokens, width) of each layer and part, in each of so many rows."""
    tokens = arrays[0].shape[2]
    repeated = [
        np.broadcast_to(array[0], (rows, *array.shape[1:])).astype(dtype)
        for array, dtype in zip(arrays, store.dtypes, strict=True)
    ]
    return store.cache(repeated, np.ones((rows, tokens), dtype=np.int64), coming=coming)


def empty_cache(store: Store, rows: int, *, coming: int = 1) -> Cache:
    """A cache of no tokens, with room for those that come where the graph writes into it."""
    arrays = [
        np.zeros((rows, heads, 0, width), dtype)
        for (heads, width), dtype in zip(store.sizes, store.dtypes, strict=True)
    ]
    return store.cache(arrays, np.zeros((rows, 0), dtype=np.int64), coming=coming)


def shortened(cache: Cache, columns: int) -> Cache:
    """The cache without what stands behind its first `columns`, in the same tensors: the next run writes there again.

    Only of tensors with room, and where the cache is the last that wrote into them.
    """
    if cache.tail is None or cache.tail.used != cache.columns:
        raise ValueError("a cache that others have written behind cannot be shortened")
    cache.tail.used = columns
    return Cache(cache.values, cache.mask[:, :columns], cache.tail)


def with_room(store: Store, cache: Cache, tokens: int) -> Cache:
    """The same cache where so many tokens can be written behind it; itself if they can."""
    return cache if cache.takes(tokens) else store.cache(cache.arrays(), cache.mask, coming=tokens)


def without_room(store: Store, cache: Cache) -> Cache:
    """The same cache in tensors that hold nothing else, to be kept long; itself if they do.

    Always a copy: of one row and one head the columns in use are contiguous, and `ascontiguousarray` would hand out the
    memory that the next step writes behind them and the tensor's whole room with it.
    """
    if cache.tail is None:
        return cache
    return Cache(tuple(store.value(array.copy()) for array in cache.arrays()), cache.mask)


def gather(store: Store, parts: Sequence[tuple[Cache, Sequence[int]]]) -> Cache:
    """One cache of chosen rows of others, in order; columns that no row needs any more are cut off.

    Args:
        store: of the graph.
        parts: caches, each with the rows to take from it.
    """
    if len(parts) == 1 and list(parts[0][1]) == list(range(parts[0][0].rows)) and _first_used(parts[0][0].mask) == 0:
        return parts[0][0]
    widest = max(cache.columns for cache, _ in parts)
    mask = np.zeros((sum(len(rows) for _, rows in parts), widest), dtype=np.int64)
    start = 0
    for cache, rows in parts:
        mask[start : start + len(rows), widest - cache.columns :] = cache.mask[list(rows)]
        start += len(rows)
    mask = mask[:, _first_used(mask) :]
    taken = [(cache.arrays(), rows) for cache, rows in parts]
    arrays = [_gathered(store, taken, index, mask.shape) for index in range(len(store.sizes))]
    return store.cache(arrays, np.ascontiguousarray(mask))


def _gathered(
    store: Store, parts: Sequence[tuple[list[NDArray[Any]], Sequence[int]]], index: int, shape: tuple[int, ...]
) -> NDArray[Any]:
    """One of the tensors; `shape` is (rows, columns) of what comes out."""
    arrays = [tensors[index] for tensors, _ in parts]
    heads, width = store.sizes[index]
    columns = min(shape[1], max(array.shape[2] for array in arrays))
    joined = np.zeros((shape[0], heads, columns, width), dtype=store.dtypes[index])
    start = 0
    for array, (_, rows) in zip(arrays, parts, strict=True):
        taken = min(columns, array.shape[2])
        joined[start : start + len(rows), :, columns - taken :] = array[list(rows), :, array.shape[2] - taken :]
        start += len(rows)
    return joined


def _first_used(mask: NDArray[np.int64]) -> int:
    """The first column in which a token stands; 0 where there is none at all."""
    return int(mask.any(axis=0).argmax()) if mask.size else 0


def beginning(store: Store, cache: Cache, tokens: int, *, rows: int = 1) -> Cache | None:
    """The first tokens of a cache of one row without padding, the same for so many rows.

    Returns:
        None where a sliding window has already forgotten some of them.
    """
    if tokens == cache.columns and rows == 1:
        return cache
    arrays = cache.arrays()
    if tokens < cache.columns and any(array.shape[2] < cache.columns for array in arrays):
        return None
    # Copied, since the other cache may go before this one does.
    repeated = [np.broadcast_to(array[:, :, :tokens], (rows, *array[0, :, :tokens].shape)).copy() for array in arrays]
    return store.cache(repeated, np.ones((rows, tokens), dtype=np.int64))
