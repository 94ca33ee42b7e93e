"""How a picture becomes the numbers that a graph takes: the settings in a bundle's picture.json.

Every step is named, so that the runtime knows no class of transformers; the build derives them from the base's
preprocessor_config.json and proves that both give the same numbers. Must import nothing but msgspec.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec

from edgetune.serve.errors import BundleDamaged
from edgetune.serve.files import read_regular

PICTURE_NAME = "picture.json"
MOST_BYTES = 1024 * 1024

Side = Annotated[int, msgspec.Meta(ge=1, le=4096)]
Filter = Annotated[int, msgspec.Meta(ge=0, le=5)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=2**31)]
Level = Annotated[int, msgspec.Meta(ge=0, le=255)]

# A photograph of a telephone has up to 50 million pixels; Pillow itself warns from 89 million on.
MOST_PIXELS = 64_000_000


class Normalization(msgspec.Struct, frozen=True):
    """`(value - mean) / std` of each channel."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class PictureSpec(msgspec.Struct, frozen=True, kw_only=True):
    """The steps, in their order.

    Attributes:
        short_side: pixels that the shorter side is resized to, the other in proportion; None where `size` says both.
        size: (height, width) that a picture is resized to whatever its shape; None where `short_side` says one.
        resample: Pillow's number of the filter: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming.
        crop: (height, width) cut out of the middle, with black where the picture is smaller; None for no crop.
        scale: what levels, 0 to 255, are multiplied by, in float64.
        offset: what is added then, in float32.
        normalizations: done one after the other, in float32.
        reversed_channels: whether the channels are blue, green, red.
        depth_range: the levels of pictures of 16 bits, or of floats, that become black and white; None where such
            pictures are refused, since the training data had none.
        background: what shows through transparent pixels, (red, green, blue).
        most_pixels: of one picture; larger ones are refused before they are decoded.
    """

    short_side: Side | None = None
    size: tuple[Side, Side] | None = None
    resample: Filter = 2
    crop: tuple[Side, Side] | None = None
    scale: float = 1.0
    offset: float = 0.0
    normalizations: list[Normalization] = []
    reversed_channels: bool = False
    depth_range: tuple[float, float] | None = None
    background: tuple[Level, Level, Level] = (255, 255, 255)
    most_pixels: Pixels = MOST_PIXELS

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) of what the graph takes.

        Raises:
            BundleDamaged: the settings leave it open.
        """
        shape = self.crop or self.size
        if shape is None:
            raise BundleDamaged(f"{PICTURE_NAME} leaves the size of pictures open.", expected="crop or size")
        return shape


def read_picture_spec(folder: Path) -> PictureSpec:
    """The settings in a folder's picture.json.

    Raises:
        BundleDamaged: they cannot be read.
    """
    path = folder / PICTURE_NAME
    try:
        spec = msgspec.json.decode(read_regular(path, MOST_BYTES), type=PictureSpec)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleDamaged(f"{path} cannot be read: {error}") from error
    if any(0.0 in each.std for each in spec.normalizations):
        raise BundleDamaged(f"{path} divides by zero: a standard deviation is 0.", expected="positive numbers")
    assert spec.shape
    return spec
