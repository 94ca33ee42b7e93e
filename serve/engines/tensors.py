"""Tensors read in place: from where they lie in a file of the bundle, after their bounds were compared with it.

They are copied into memory, not mapped: a file that is overwritten in place under a mapping takes the process down, and
what an engine reads is a few megabytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgetune.serve.engines.spec import TensorPlace
from edgetune.serve.errors import BundleDamaged
from edgetune.serve.files import open_regular

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_tensors(path: Path, places: Mapping[str, TensorPlace]) -> dict[str, NDArray[Any]]:
    """Each tensor by its name, in its shape and dtype, read-only.

    Raises:
        BundleDamaged: the file cannot be read, or ends before a tensor does.
    """
    tensors: dict[str, NDArray[Any]] = {}
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            for name, place in places.items():
                dtype, count = np.dtype(place.dtype).newbyteorder("<"), prod(place.shape)
                if (end := place.offset + count * dtype.itemsize) > size:
                    raise _damaged(path, f"{name} would end at byte {end:,} of {size:,}")
                file.seek(place.offset)
                flat = np.fromfile(file, dtype, count)
                flat.flags.writeable = False
                tensors[name] = flat.reshape(place.shape)
    except (OSError, ValueError) as error:  # the latter: the file has become shorter meanwhile
        raise _damaged(path, f"it cannot be read ({error})") from error
    return tensors


def _damaged(path: Path, fault: str) -> BundleDamaged:
    return BundleDamaged(
        f"{path} does not hold the tensors that the manifest places in it: {fault}.",
        expected="a manifest and a file that were packed together",
        action="copy the bundle again from where it was built, or build it again",
    )
