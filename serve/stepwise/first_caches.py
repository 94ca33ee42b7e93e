"""First caches of a decoder: keys and values of virtual tokens that were trained, from which its sequences start.

A bundle may hold several over one graph, and each request chooses one by its name: rows behind unlike ones take their
steps together, since to the graph they are caches like any other. Must import numpy only.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.files import read_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgetune.serve.stepwise.spec import FirstCacheSpec, GenerationSpec


class FirstCaches:
    """What is read of them; the one that stands first is taken where a request names none.

    Attributes:
        names: of all, in order; none of a graph that starts from an empty cache.
    """

    def __init__(self, folder: Path, spec: GenerationSpec) -> None:
        """Read those that the specification tells of.

        Args:
            folder: where the graph and their files lie.

        Raises:
            BundleDamaged: a file is missing or is not of their size.
        """
        self._arrays = {one.name: read_first_cache(folder / one.file, one, spec) for one in spec.first_caches}
        self.names = tuple(self._arrays)

    def name(self, adapter: str | None) -> str | None:
        """The one that a request means; None where there are none and none was named.

        Raises:
            InputError: there is none of that name.
        """
        if adapter is None:
            return next(iter(self.names), None)
        if adapter not in self._arrays:
            listed = ", ".join(filter(None, self.names))
            raise InputError(
                f"There is no adapter {adapter!r}.",
                expected=f"one of {listed}" if listed else "none: this bundle has no adapters by name",
            )
        return adapter

    def arrays(self, name: str) -> list[NDArray[np.float32]]:
        """Keys and values, (1, kv_heads, tokens, head_dim) float32 each, in the order of the graph's cache."""
        return self._arrays[name]

    def virtual_ids(self, name: str | None) -> tuple[int, ...]:
        """Ids that no text has, one for each virtual token: they tell beginnings behind unlike caches apart."""
        if name is None:
            return ()
        tokens, place = self._arrays[name][0].shape[2], self.names.index(name)
        return tuple(-1 - (place << 16) - number for number in range(tokens))


def read_first_cache(path: Path, first: FirstCacheSpec, spec: GenerationSpec) -> list[NDArray[np.float32]]:
    """Keys and values in the order of the graph's cache, (1, kv_heads, tokens, head_dim) float32 each, read-only.

    Raises:
        BundleDamaged: the file is missing or is not of their size.
    """
    shape = (len(spec.past_names()), 1, spec.kv_heads, first.tokens, spec.head_dim)
    expected = 4 * prod(shape)
    try:
        raw = read_regular(path, expected)
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error}", expected) from error
    if len(raw) != expected:
        raise _damaged(path, f"has {len(raw):,} bytes", expected)
    return list(np.frombuffer(raw, "<f4").reshape(shape))


def first_cache_bytes(parts: list[NDArray[np.float32]]) -> bytes:
    """What `read_first_cache` reads: all keys and values, one behind the other."""
    return np.stack(parts).astype("<f4").tobytes()


def _damaged(path: Path, fault: str, expected: int) -> BundleDamaged:
    return BundleDamaged(
        f"The first cache {path} {fault}.",
        expected=f"{expected:,} bytes, as the manifest's sizes say",
        action="copy the bundle again from where it was built, or build it again",
    )
