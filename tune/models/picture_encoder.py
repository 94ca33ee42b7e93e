"""The encoder of pictures: files to batches for a model in PyTorch, by the very code that the bundle answers with.

Rows name their files; a file is decoded when its batch is made, and its resized levels are kept where they fit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs.picture import level_tables, normalized, picture_levels, whole_levels
from edgetune.serve.codecs.picture_file import read_picture
from edgetune.serve.codecs.picture_spec import PICTURE_NAME, PictureSpec, read_picture_spec
from edgetune.tune.data.augmentation import AugmentRecipe, augmented
from edgetune.tune.data.pictures import name_of, source_of
from edgetune.tune.data.slices import spread_evenly
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.tasks.task import Task

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BatchEncoding

    from edgetune.tune.data.rows import Input
    from edgetune.tune.models.types import EncodedRow

PICTURE = "picture"  # the column of a row that names its file
MOST_CACHED_BYTES = 1_000_000_000
VARIED = "varied"  # the column of a training row that numbers it
ALONE = 1  # what a picture counts for where batches are bounded by tokens


class _Levels:
    """Levels of files that were decoded, as far as they fit."""

    def __init__(self) -> None:
        self._known: dict[str, NDArray[np.uint8]] = {}
        self._bytes, self._lock = 0, threading.Lock()

    def get(self, name: str) -> NDArray[np.uint8] | None:
        return self._known.get(name)

    def put(self, name: str, levels: NDArray[np.uint8]) -> None:
        with self._lock:
            if self._bytes + levels.nbytes <= MOST_CACHED_BYTES:
                self._known[name] = levels
                self._bytes += levels.nbytes


@dataclass(frozen=True)
class PictureEncoder(Encoder):
    """An image processor's steps, and the task whose inputs they take; `tokenizer` is the image processor.

    Attributes:
        spec: the steps.
        augment: how the pictures of `training_rows` are varied.
        seed: of that.
    """

    spec: PictureSpec = field(default_factory=PictureSpec)
    augment: AugmentRecipe = field(default_factory=lambda: AugmentRecipe(crop=1, colour=0))
    seed: int = 0
    _cache: _Levels = field(default_factory=_Levels, compare=False, repr=False)
    _epoch: list[int] = field(default_factory=lambda: [0], compare=False, repr=False)

    reads_text = False

    @classmethod
    def opened(cls, folder: Path, task: Task) -> PictureEncoder:
        """The encoder of a folder that `save` wrote."""
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
        return cls(processor, ALONE, task, read_picture_spec(folder))

    def emptied(self) -> PictureEncoder:
        """The same without the levels that it has decoded, for other settings."""
        return replace(self, _cache=_Levels(), _epoch=[0])

    def save(self, folder: Path) -> None:
        """Write picture.json and preprocessor_config.json."""
        self.tokenizer.save_pretrained(folder)
        (folder / PICTURE_NAME).write_bytes(msgspec.json.format(msgspec.json.encode(self.spec), indent=2) + b"\n")

    def rows(self, inputs: Sequence[Input]) -> list[EncodedRow]:
        """The file of each input."""
        return [{PICTURE: str(value)} for value in inputs]

    def training_rows(self, inputs: Sequence[Input]) -> list[EncodedRow]:
        """As `rows`, of pictures that are varied in each epoch; each is numbered."""
        if not self.augment.changes:
            return self.rows(inputs)
        return [{**row, VARIED: number} for number, row in enumerate(self.rows(inputs))]

    def begin_epoch(self, epoch: int) -> None:
        """What is varied next is of this epoch."""
        self._epoch[0] = epoch

    def size(self, row: EncodedRow) -> int:
        """All pictures are of one size."""
        return ALONE

    def pad(self, rows: Sequence[Mapping[str, object]], tensors: str = "pt") -> BatchEncoding:
        """pixel_values (rows, 3, height, width) float32, and whatever else stands in the rows, such as labels."""
        import torch
        from transformers import BatchEncoding

        levels = [self._varied(row) if VARIED in row else self.levels(str(row[PICTURE])) for row in rows]
        values = normalized(levels, level_tables(self.spec))
        others = {name: np.asarray([row[name] for row in rows]) for name in rows[0] if name not in (PICTURE, VARIED)}
        arrays: EncodedRow = {"pixel_values": values, **others}
        if tensors == "np":
            return BatchEncoding(arrays)
        return BatchEncoding({name: torch.from_numpy(array) for name, array in arrays.items()})

    def batch(self, inputs: Sequence[Input]) -> BatchEncoding:
        """Inputs as one batch of torch tensors."""
        return self.pad(self.rows(inputs))

    def collator(self) -> Callable[[list[EncodedRow]], Any]:
        """What makes a batch of labelled rows for the Trainer."""
        return self.pad

    def blank(self, rows: int, tokens: int) -> BatchEncoding:
        """A batch of so many pictures."""
        import torch
        from transformers import BatchEncoding

        return BatchEncoding({"pixel_values": torch.zeros((rows, 3, *self.spec.shape))})

    def library_batch(self, inputs: Sequence[Input]) -> BatchEncoding:
        """As `batch`, by transformers' own image processor."""
        pictures = [read_picture(source_of(str(value)), name_of(str(value)), self.spec) for value in inputs]
        batch: BatchEncoding = self.tokenizer(images=pictures, return_tensors="pt")
        return batch

    def split(self, batch: EncodedRow, most_tokens: int) -> list[EncodedRow]:
        """The batch itself."""
        return [batch]

    def lengths(self, inputs: Sequence[Input]) -> tuple[NDArray[np.int64], int]:
        """Pictures have no tokens."""
        return np.zeros(len(inputs), np.int64), 0

    def example(self, inputs: Sequence[Input]) -> EncodedRow:
        """Two rows: a dimension of one would be frozen into the graph."""
        return dict(self.batch([inputs[0], inputs[-1]]))

    def probes(self, inputs: Sequence[Input], most: int) -> list[Input]:
        """At most so many inputs, spread evenly."""
        return spread_evenly(inputs, most)

    def levels(self, name: str) -> NDArray[np.uint8]:
        """Levels (height, width, 3) uint8 of one file."""
        return self._cached(name, lambda: picture_levels(self._read(name), self.spec))

    def _varied(self, row: Mapping[str, object]) -> NDArray[np.uint8]:
        """Levels (height, width, 3) uint8 of a training row, as this epoch sees it."""
        from PIL import Image

        name, spec = str(row[PICTURE]), self.spec
        picture = Image.fromarray(self._cached(f"whole {name}", lambda: whole_levels(self._read(name), spec)))
        seed = (self.seed, self._epoch[0], int(str(row[VARIED])))
        levels = augmented(picture, spec.shape, spec.resample, self.augment, seed)
        return levels[..., ::-1] if spec.reversed_channels else levels

    def _read(self, name: str) -> Image:
        return read_picture(source_of(name), name_of(name), self.spec)

    def _cached(self, key: str, make: Callable[[], NDArray[np.uint8]]) -> NDArray[np.uint8]:
        known = self._cache.get(key)
        if known is None:
            known = np.ascontiguousarray(make())
            self._cache.put(key, known)
        return known
