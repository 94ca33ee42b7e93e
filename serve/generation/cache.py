"""Keys and values of the tokens so far, for rows that take their steps together.

Rows are aligned at their last token: shorter ones begin later, behind padding that the mask hides. The tensors stay
ONNX Runtime's own values from one step to the next, so a step copies what the graph copies and nothing more; only when
rows join or leave are they copied, once. Must import numpy only; ONNX Runtime comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Cache:
    """The cache of some rows. It is never changed: a step gives a new one, so it may be kept and used again.

    Attributes:
        values: OrtValues (rows, heads, columns, width) by layer and part, in the order of the graph's inputs. Of a
            layer with a sliding window, columns may be fewer: they are the last ones.
        mask: (rows, columns) int64, 1 where a token stands.
    """

    values: tuple[Any, ...]
    mask: NDArray[np.int64]

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
        """Bytes of all its tensors."""
        return sum(int(value.tensor_size_in_bytes()) for value in self.values)


def empty_cache(store: Store, rows: int) -> Cache:
    """A cache of no tokens."""
    values = tuple(
        store.value(np.zeros((rows, heads, 0, width), dtype))
        for (heads, width), dtype in zip(store.sizes, store.dtypes, strict=True)
    )
    return Cache(values, np.zeros((rows, 0), dtype=np.int64))


@dataclass(frozen=True)
class Store:
    """Where caches lie: how arrays become values of ONNX Runtime on the graph's device.

    Attributes:
        ort_value: ONNX Runtime's class OrtValue.
        device: "cpu" or "cuda".
        sizes: (heads, width) of each value.
        dtypes: of each value.
    """

    ort_value: Any
    device: str
    sizes: tuple[tuple[int, int], ...]
    dtypes: tuple[Any, ...]

    def value(self, array: NDArray[Any]) -> Any:
        """An array as a value on the device; on the CPU it is not copied."""
        return self.ort_value.ortvalue_from_numpy(array, self.device, 0)


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
    values = (_gather_value(store, parts, index, mask.shape) for index in range(len(store.sizes)))
    return Cache(tuple(values), np.ascontiguousarray(mask))


def _gather_value(
    store: Store, parts: Sequence[tuple[Cache, Sequence[int]]], index: int, shape: tuple[int, ...]
) -> Any:
    """One of the tensors; `shape` is (rows, columns) of what comes out."""
    arrays = [cache.values[index].numpy() for cache, _ in parts]
    heads, width = store.sizes[index]
    columns = min(shape[1], max(array.shape[2] for array in arrays))
    joined = np.zeros((shape[0], heads, columns, width), dtype=store.dtypes[index])
    start = 0
    for array, (_, rows) in zip(arrays, parts, strict=True):
        taken = min(columns, array.shape[2])
        joined[start : start + len(rows), :, columns - taken :] = array[list(rows), :, array.shape[2] - taken :]
        start += len(rows)
    return store.value(joined)


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
    arrays = [value.numpy() for value in cache.values]
    if tokens < cache.columns and any(array.shape[2] < cache.columns for array in arrays):
        return None
    values = tuple(
        store.value(np.ascontiguousarray(np.broadcast_to(array[:, :, :tokens], (rows, *array[0, :, :tokens].shape))))
        for array in arrays
    )
    return Cache(values, np.ones((rows, tokens), dtype=np.int64))
