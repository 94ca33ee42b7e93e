"""Pictures to what a graph takes, with Pillow and numpy alone: the same numbers as transformers' own Pillow backend.

An input is the bytes of a file, a `pathlib.Path`, a picture of Pillow, or a text in base64 (a data URL too). A plain
string is never taken for a path: what a client sends must not open files of the machine that answers.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs import CODECS
from edgetune.serve.codecs.picture_file import read_picture, require_pillow
from edgetune.serve.codecs.picture_spec import PictureSpec, read_picture_spec
from edgetune.serve.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

EXPECTED = "a picture: the bytes of its file, a pathlib.Path, or a text in base64"


@dataclass(frozen=True, eq=False)
class EncodedPicture:
    """Levels of one picture as the graph takes them but for their scale: (height, width, 3) uint8."""

    levels: NDArray[np.uint8]

    truncated = False
    size = 1  # all pictures are of one size once they are encoded
    type_ids: tuple[int, ...] = ()

    @cached_property
    def ids(self) -> list[int]:
        """What tells two rows apart in golden answers: a checksum of the levels."""
        return [zlib.crc32(np.ascontiguousarray(self.levels).tobytes())]

    @property
    def all_ids(self) -> list[int]:
        """The same: a picture is read at once."""
        return self.ids


class PictureCodec:
    """Single pictures, by the settings in the folder's picture.json."""

    parts = CODECS["picture"].parts

    def __init__(self, folder: Path, max_tokens: int = 1) -> None:
        """Open the settings.

        Raises:
            BundleDamaged: they cannot be read.
            MissingDependency: Pillow is not installed.
        """
        require_pillow()
        self.spec = read_picture_spec(folder)
        self._tables = level_tables(self.spec)

    def texts(self, inputs: Sequence[object]) -> list[str]:
        """Each input as text in base64, as a JSON client would send it.

        Raises:
            InputError: one is no picture.
        """
        return [_as_base64(value, place) for place, value in enumerate(inputs)]

    def encode(self, inputs: Sequence[object]) -> list[EncodedPicture]:
        """Each picture as one row of the graph, in order.

        Raises:
            InputError: one is no picture that can be read; says which, and why.
        """
        return [EncodedPicture(self.levels(self._read(value, place))) for place, value in enumerate(inputs)]

    def encode_beginnings(self, inputs: Sequence[object]) -> list[EncodedPicture]:
        """As `encode`."""
        return self.encode(inputs)

    def pad(self, rows: Sequence[EncodedPicture]) -> dict[str, NDArray[np.float32]]:
        """pixel_values, (rows, 3, height, width) float32."""
        return {"pixel_values": normalized([row.levels for row in rows], self._tables)}

    def samples(self, sizes: Sequence[int]) -> list[EncodedPicture]:
        """A grey picture for each of the sizes, which mean nothing here."""
        grey = np.full((*self.spec.shape, 3), 127, dtype=np.uint8)
        return [EncodedPicture(grey) for _ in sizes]

    def levels(self, picture: Image) -> NDArray[np.uint8]:
        """Levels (height, width, 3) uint8 of a picture in mode RGB: resized, cropped, its channels in order."""
        return picture_levels(picture, self.spec)

    def _read(self, value: Any, place: int) -> Image:
        if isinstance(value, Path):
            return read_picture(value, str(value), self.spec)
        if hasattr(value, "convert") and hasattr(value, "resize") and hasattr(value, "mode"):
            return _of_pillow(value, place, self.spec)
        content, name = _content(value, place), f"Picture {place}"
        return read_picture(content, name, self.spec)


def picture_levels(picture: Image, spec: PictureSpec) -> NDArray[np.uint8]:
    """Levels (height, width, 3) uint8 of a picture in mode RGB, by a codec's settings."""
    levels = whole_levels(picture, spec)
    if spec.crop is not None:
        levels = _cropped(levels, spec.crop)
    return levels[..., ::-1] if spec.reversed_channels else levels


def whole_levels(picture: Image, spec: PictureSpec) -> NDArray[np.uint8]:
    """Levels (height, width, 3) uint8 of a picture in mode RGB as it is resized, before any crop."""
    width, height = picture.size
    tall, wide = resized_shape(height, width, spec)
    # Pillow can resize the crop alone, a quarter faster, but rounds some levels to their neighbours then.
    return np.asarray(picture.resize((wide, tall), spec.resample))


def resized_shape(height: int, width: int, spec: PictureSpec) -> tuple[int, int]:
    """(height, width) that a picture is resized to, before any crop."""
    if spec.size is not None:
        return spec.size
    if spec.short_side is None:
        return height, width
    if height < width:
        return spec.short_side, int(spec.short_side * width / height)
    return int(spec.short_side * height / width), spec.short_side


def _cropped(levels: NDArray[np.uint8], crop: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle of levels (height, width, 3), with black around where they are smaller than the crop."""
    height, width = levels.shape[:2]
    if crop[0] <= height and crop[1] <= width:
        top, left = (height - crop[0]) // 2, (width - crop[1]) // 2
        return levels[top : top + crop[0], left : left + crop[1]]
    tall, wide = max(height, crop[0]), max(width, crop[1])
    canvas = np.zeros((tall, wide, 3), np.uint8)
    top, left = -(-(tall - height) // 2), -(-(wide - width) // 2)
    canvas[top : top + height, left : left + width] = levels
    first, second = (height - crop[0]) // 2 + top, (width - crop[1]) // 2 + left
    return canvas[max(0, first) : first + crop[0], max(0, second) : second + crop[1]]


def level_tables(spec: PictureSpec) -> NDArray[np.float32]:
    """What each level becomes in each channel: (3, 256) float32, computed as transformers does, step by step."""
    values = (np.arange(256, dtype=np.float64) * spec.scale).astype(np.float32) + np.float32(spec.offset)
    tables = np.tile(values, (3, 1))
    for step in spec.normalizations:
        mean, std = np.asarray(step.mean, np.float32)[:, None], np.asarray(step.std, np.float32)[:, None]
        tables = (tables - mean) / std
    return tables


def normalized(levels: Sequence[NDArray[np.uint8]], tables: NDArray[np.float32]) -> NDArray[np.float32]:
    """Pictures (height, width, 3) uint8 of one size as (pictures, 3, height, width) float32."""
    height, width = levels[0].shape[:2]
    values = np.empty((len(levels), 3, height, width), np.float32)
    for place, picture in enumerate(levels):
        for channel in range(3):
            # "clip" only spares the check of bounds: a level is always one.
            np.take(tables[channel], picture[..., channel], out=values[place, channel], mode="clip")
    return values


def _of_pillow(picture: Image, place: int, spec: PictureSpec) -> Image:
    """A picture that Pillow has open, by way of a file without loss, so that it is treated as one."""
    import io

    if picture.mode == "RGB" and not picture.getexif() and picture.width * picture.height <= spec.most_pixels:
        return picture
    content = io.BytesIO()
    try:
        picture.save(content, format="TIFF" if picture.mode in ("F", "CMYK", "YCbCr") else "PNG")
    except (OSError, ValueError) as error:
        raise InputError(f"Picture {place} of mode {picture.mode} cannot be read: {error}.") from error
    return read_picture(content.getvalue(), f"Picture {place}", spec)


def _content(value: object, place: int) -> bytes:
    """The bytes of a file.

    Raises:
        InputError: the input is none, nor base64 of one.
    """
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise InputError(f"Picture {place} is of type {type(value).__name__}.", expected=EXPECTED)
    text = value.partition(",")[2] if value.startswith("data:") else value
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise InputError(
            f"Picture {place} is a text that is no base64: {value[:40]!r}.",
            expected=EXPECTED,
            action="for a file that this process may read give pathlib.Path(...)",
        ) from None


def _as_base64(value: object, place: int) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, Path):
        try:
            return base64.b64encode(value.read_bytes()).decode()
        except OSError as error:
            raise InputError(f"{value} cannot be read: {error.strerror or error}.", expected=EXPECTED) from error
    if isinstance(value, bytes | bytearray | memoryview):
        return base64.b64encode(bytes(value)).decode()
    raise InputError(f"Picture {place} is of type {type(value).__name__}.", expected=EXPECTED)
