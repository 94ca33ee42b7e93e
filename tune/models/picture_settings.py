"""What a base does to pictures, as the steps of a codec: read from its image processor, and proven on pictures.

transformers has a class of image processor for every kind of model, each with an order of its own. The steps are read
off those that are known; whatever class it is, made-up pictures of several shapes must come out the same from both.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs.picture import level_tables, normalized, picture_levels
from edgetune.serve.codecs.picture_spec import Normalization, PictureSpec
from edgetune.serve.errors import ModelError
from edgetune.tune.models.base import UNREADABLE, Base, first_words

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BaseImageProcessor

TOLERANCE = 1e-6
# (width, height) of the pictures that prove the steps: square, wide, tall, and smaller than any crop.
_SHAPES = ((300, 300), (401, 283), (230, 517), (33, 21))
# Sides below which a ConvNeXt is fed the middle of a larger picture (its paper's evaluation).
_CONVNEXT_WHOLE = 384


def open_processor(base: Base) -> BaseImageProcessor:
    """The image processor of a base, in its Pillow backend.

    Raises:
        ModelError: there is none that can be opened.
    """
    from transformers import AutoImageProcessor

    if not (base.folder / "preprocessor_config.json").is_file():
        raise ModelError(
            f"{base.folder} has no preprocessor_config.json, which says how pictures are resized and scaled.",
            expected="the folder of a model for pictures, as save_pretrained writes model and image processor",
            action="copy preprocessor_config.json from the model's source",
        )
    try:
        return AutoImageProcessor.from_pretrained(base.folder, backend="pil")
    except UNREADABLE as error:
        raise ModelError(
            f"transformers cannot open the image processor of {base.folder}: {first_words(error)}",
            expected="a preprocessor_config.json of a model for pictures",
            action="copy it again from the model's source",
        ) from error


def picture_spec(processor: BaseImageProcessor, base: Base, depth_range: tuple[float, float] | None) -> PictureSpec:
    """The steps of an image processor, proven.

    Args:
        processor: in the Pillow backend.
        base: whose it is, for messages.
        depth_range: of the data's pictures of more than 8 bits a channel.

    Raises:
        ModelError: it does something that the codec has no step for.
    """
    spec = _read(processor, depth_range)
    if spec is None or not (spec.crop or spec.size):
        raise _unknown(processor, base, "it leaves pictures of different sizes")
    difference = steps_differ(processor, spec, [_made_up(*shape) for shape in _SHAPES])
    if not difference <= TOLERANCE:
        raise _unknown(processor, base, f"its numbers differ from the known steps by {difference:.2g}")
    return spec


def steps_differ(processor: BaseImageProcessor, spec: PictureSpec, pictures: Sequence[Image]) -> float:
    """The largest difference between transformers' preprocessing and the codec's; infinite for another shape."""
    tables = level_tables(spec)
    differences = [0.0]
    for picture in pictures:
        theirs: NDArray[Any] = np.asarray(processor(images=picture, return_tensors="np")["pixel_values"])
        ours = normalized([picture_levels(picture, spec)], tables)
        if theirs.shape != ours.shape:
            return float("inf")
        differences.append(float(np.abs(theirs - ours).max()))
    return max(differences)


def _read(processor: BaseImageProcessor, depth_range: tuple[float, float] | None) -> PictureSpec | None:
    kind = type(processor).__name__
    says = processor.to_dict()
    short_side: int | None = None
    size: tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    if says.get("do_resize"):
        given = dict(says.get("size") or {})
        short_side, size = given.get("shortest_edge"), _pair(given)
        if given.get("longest_edge"):
            return None
        if kind.startswith("ConvNext") and short_side is not None:
            if short_side < _CONVNEXT_WHOLE:
                crop = (short_side, short_side)
                short_side = int(short_side / says.get("crop_pct", 224 / 256))
            else:
                size = (short_side, short_side)
                short_side = None
    if says.get("do_center_crop"):
        crop = _pair(dict(says.get("crop_size") or {}))
    steps = []
    if says.get("do_normalize"):
        steps.append(Normalization(_triple(says["image_mean"]), _triple(says["image_std"])))
    if kind.startswith("EfficientNet") and says.get("include_top"):
        steps.append(Normalization((0.0, 0.0, 0.0), _triple(says["image_std"])))
    resample = says.get("resample")
    return PictureSpec(
        short_side=short_side,
        size=size,
        resample=2 if resample is None else int(resample),
        crop=crop,
        scale=float(says.get("rescale_factor") or 1 / 255) if says.get("do_rescale") else 1.0,
        offset=-1.0 if kind.startswith("EfficientNet") and says.get("rescale_offset") else 0.0,
        normalizations=steps,
        reversed_channels=bool(says.get("do_flip_channel_order")),
        depth_range=depth_range,
    )


def _pair(given: dict[str, Any]) -> tuple[int, int] | None:
    height, width = given.get("height"), given.get("width")
    return (int(height), int(width)) if height and width else None


def _triple(values: Any) -> tuple[float, float, float]:
    listed = [float(value) for value in (values if isinstance(values, list | tuple) else [values] * 3)]
    return (listed[0], listed[1], listed[2])


def _made_up(width: int, height: int) -> Image:
    """A picture of noise and slopes, the same at every call."""
    from PIL import Image as Pillow

    drawn = np.random.default_rng(width).integers(0, 256, (height, width, 3))
    slope = np.linspace(0, 255, width)[None, :, None]
    return Pillow.fromarray(((drawn + slope) / 2).astype(np.uint8))


def _unknown(processor: BaseImageProcessor, base: Base, reason: str) -> ModelError:
    return ModelError(
        f"The image processor of {base.id}, {type(processor).__name__}, cannot be followed: {reason}.",
        expected="resizing, a crop of the middle, a scale and normalizations to one size of picture",
        action="choose another --base, or set a fixed size in its preprocessor_config.json",
    )
