"""The first cache of a tuned language model, written beside its graph as the runtime reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgetune.serve.stepwise.first_caches import first_cache_bytes
from edgetune.serve.stepwise.spec import FirstCacheSpec

FIRST_CACHE_FILE = "first-cache.bin"


def write_first_cache(model_folder: Path, folder: Path) -> list[FirstCacheSpec]:
    """Write the first cache of a merged model beside its graph in `folder`: what the graph's spec tells of it.

    Returns:
        one, or none where the model starts from an empty cache.

    Raises:
        ModelError: it cannot be read.
    """
    from edgetune.tune.stepwise.first_cache import FirstCache

    first = FirstCache.open(model_folder)
    if first is None:
        return []
    parts = [np.asarray(part, dtype=np.float32) for pair in first.layers for part in pair]
    (folder / FIRST_CACHE_FILE).write_bytes(first_cache_bytes(parts))
    return [FirstCacheSpec(file=FIRST_CACHE_FILE, tokens=first.tokens)]
