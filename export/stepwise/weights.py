"""The merged model that a bundle's graph was made from, and its weights, read without torch.

A bundle holds the graph alone: layouts for engines with graphs of their own take the weights from the work folder of
the build. safetensors files are read by their specification (a length, a JSON header, bytes), so that bfloat16 needs
no further package. Needs the floor only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import CONFIG_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.digest import file_sha256, value_sha256
from edgetune.serve.errors import WorkError
from edgetune.serve.json_types import JsonObject

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
# Where a build keeps the merged model, within its work folder.
MERGED = Path("tune") / "model"

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
# What of config.json and tokenizer.json packing may write anew.
_REWRITTEN = {"_name_or_path", "architectures", "pad_token_id", "transformers_version", "dtype", "torch_dtype"}
_CUTTING = {"truncation", "padding"}


@dataclass(frozen=True)
class Weight:
    """One tensor of a safetensors file: where its bytes lie, and what they are."""

    path: Path
    dtype: str
    shape: tuple[int, ...]
    start: int

    def read(self) -> NDArray[np.float32]:
        """Its values, float32 whatever it is stored in.

        Raises:
            WorkError: it is stored in a type that is no plain float, such as that of a quantized weight.
        """
        if self.dtype not in _DTYPES:
            raise WorkError(f"{self.path} holds {self.dtype} weights.", expected="a merged model in floating point")
        count = math.prod(self.shape)
        raw: Any = np.fromfile(self.path, dtype=_DTYPES[self.dtype], count=count, offset=self.start)
        if self.dtype == "BF16":  # the upper half of a float32
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        values: NDArray[np.float32] = raw.astype(np.float32).reshape(self.shape)
        return values


def merged_folder(bundle: Bundle, work: Path | None = None) -> Path:
    """The merged model's folder in the work folder of the build that made a bundle.

    Args:
        bundle: an opened bundle.
        work: the work folder; None looks where a build leaves it, in `<bundle>.work` beside the bundle.

    Raises:
        WorkError: there is none, or it is that of another model or of another build.
    """
    place = work if work is not None else bundle.folder.with_name(f"{bundle.folder.name}.work")
    folder = place / MERGED
    if not (folder / CONFIG_NAME).is_file():
        raise WorkError(
            f"{place} holds no merged model.",
            expected=f"the work folder of the build, with {MERGED.as_posix()} in it: a bundle has its graph alone",
            action="name the work folder with --work, or build again",
            cost="the weights in floating point, several times the bundle's size",
        )
    for name, ignored in ((CONFIG_NAME, _REWRITTEN), (TOKENIZER_NAME, _CUTTING)):
        if _settings(folder / name, ignored) != _settings(bundle.folder / name, ignored):
            raise WorkError(
                f"{folder} is not the model of {bundle.folder}: their {name} differ.",
                expected="the work folder of the build that made this bundle",
                action="name it with --work",
            )
    # Another build of the same base has the same configuration and tokenizer, and other weights. Bundles that were
    # packed before the manifest told the digest cannot be held against it.
    expected = bundle.manifest.model_digest
    if expected is not None and (digest := model_digest(folder)) != expected:
        raise WorkError(
            f"{folder} is not the model of {bundle.folder}: its weights are of another build ({digest[:19]}...).",
            expected=f"weights with the digest {expected[:19]}..., which the bundle's manifest tells",
            action="name the work folder of the build that made this bundle with --work, or build again",
        )
    return folder


def model_digest(folder: Path) -> str:
    """The digest of a model folder's weights: "sha256:" and 64 hex digits.

    Raises:
        WorkError: it has none.
    """
    return "sha256:" + value_sha256({name: file_sha256(folder / name) for name in weight_files(folder)})


def _settings(path: Path, ignored: set[str]) -> JsonObject:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WorkError(f"{path} cannot be read: {error}.") from error
    return {name: value for name, value in settings.items() if name not in ignored}


def weight_files(folder: Path) -> list[str]:
    """The names of a model folder's safetensors files, the index first where there are several.

    Raises:
        WorkError: it has none.
    """
    if (folder / INDEX).is_file():
        placed = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
        return [INDEX, *sorted(set(placed.values()))]
    if (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    raise WorkError(f"{folder} holds no {WEIGHTS}.", expected="a merged model as `save_pretrained` leaves it")


def weights(folder: Path) -> dict[str, Weight]:
    """All tensors of a model folder by name, unread.

    Raises:
        WorkError: a file is missing or no safetensors file.
    """
    tensors: dict[str, Weight] = {}
    for name in weight_files(folder):
        if name != INDEX:
            tensors.update(_tensors(folder / name))
    return tensors


def _tensors(path: Path) -> Iterator[tuple[str, Weight]]:
    try:
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            size = path.stat().st_size
            if not 2 <= length <= size - 8:
                raise ValueError(f"its header is said to have {length:,} bytes")
            header = json.loads(stream.read(length))
    except (OSError, ValueError) as error:
        raise WorkError(f"{path} is no safetensors file: {error}.", expected="the weights of a merged model") from error
    header.pop("__metadata__", None)
    for name, one in header.items():
        start, end = (8 + length + place for place in one["data_offsets"])
        if end > size:
            raise WorkError(f"{path} is cut short: {name} ends at byte {end:,} of {size:,}.", expected="a whole file")
        yield name, Weight(path, one["dtype"], tuple(one["shape"]), start)
