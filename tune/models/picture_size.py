"""The side of the pictures that a network is fed: the base's own, or less where the data's pictures hold no more.

A picture of 100 pixels that is enlarged to 224 shows nothing that it does not show at 160, at twice the cost. A
network of convolutions takes any side, one with a table of positions its own alone; which it is, a pass shows. Networks
know objects at other scales than those they were trained at less well (Touvron et al. 2019, arXiv 1906.06423), so that
a side is judged before it is taken.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import AutoImageProcessor

from edgetune.serve.codecs.picture_spec import PictureSpec
from edgetune.serve.errors import ModelError
from edgetune.tune.data.pictures import short_sides
from edgetune.tune.models.base import Base
from edgetune.tune.models.picture_encoder import PictureEncoder
from edgetune.tune.models.picture_settings import picture_spec

if TYPE_CHECKING:
    from edgetune.tune.data.rows import Input
    from edgetune.tune.models.types import Model

# Networks halve a picture five times; of 224 pixels the least that is tried is 160. At 128, on sign digits, the
# tuned MobileNetV2 reached 0.967 on the validation part and 0.989 on the test part, at 224 pixels 1 and 0.989.
STEP, LEAST_SHARE = 32, 2 / 3
MOST_MEASURED = 256


def smaller_encoders(
    encoder: PictureEncoder, model: Model, base: Base, inputs: Sequence[Input]
) -> Iterator[PictureEncoder]:
    """The encoder at each smaller side that loses no pixel of most of the inputs and that the model takes, the smallest
    first."""
    for side in smaller_sides(encoder.spec, float(np.median(short_sides(inputs, MOST_MEASURED)))):
        if takes_side(model, side):
            yield at_side(encoder, base, side)


def size_sentence(read: PictureSpec, own: PictureSpec, value: float, own_value: float, error: float) -> str:
    """That pictures are read at another size than the base's own, with what the probe reaches at both."""
    return (
        f"pictures are read at {read.shape[0]} pixels a side, where the base reads {own.shape[0]} and most of the data "
        f"has no more: the probe reaches {value:.4f} there against {own_value:.4f}, standard error {error:.4f}. "
        "tune.picture_size says otherwise."
    )


def smaller_sides(spec: PictureSpec, short_side: float) -> tuple[int, ...]:
    """Sides below the base's own, in pixels, ascending, to which a picture of that short side is not made smaller."""
    own, other = spec.shape
    if own != other:
        return ()
    enlarged = (spec.short_side or own) / own
    sides = range(STEP, own, STEP)
    return tuple(side for side in sides if side >= LEAST_SHARE * own and side * enlarged >= short_side)


def takes_side(model: Model, side: int) -> bool:
    """Whether the model answers pictures of this side."""
    blank = torch.zeros((1, 3, side, side), device=next(model.parameters()).device)
    try:
        with torch.inference_mode():
            return bool(torch.isfinite(model(pixel_values=blank).logits).all())
    except (ValueError, RuntimeError, IndexError):
        return False


def encoder_of_side(encoder: PictureEncoder, model: Model, base: Base, side: int) -> PictureEncoder:
    """The encoder at a side that the user names.

    Raises:
        ModelError: the model takes no such pictures.
    """
    if not takes_side(model, side):
        raise ModelError(
            f"tune.picture_size is {side}, and {base.id} does not take pictures of {side} pixels a side.",
            expected=f"{encoder.spec.shape[0]}, which it was trained at; networks of convolutions take others too",
            action="leave tune.picture_size out, or choose another --base",
        )
    return at_side(encoder, base, side)


def at_side(encoder: PictureEncoder, base: Base, side: int) -> PictureEncoder:
    """The encoder with all sizes of its image processor in proportion, so that pictures come out with this side.

    Raises:
        ModelError: the image processor leaves them another.
    """
    own = encoder.spec.shape[0]
    listed: dict[str, Any] = encoder.tokenizer.to_dict()
    sizes = {
        key: {name: round(value * side / own) for name, value in dict(listed[key]).items() if value}
        for key in ("size", "crop_size")
        if listed.get(key)
    }
    processor = AutoImageProcessor.from_pretrained(base.folder, backend="pil", **sizes)
    spec = picture_spec(processor, base, encoder.spec.depth_range)
    if spec.shape != (side, side):
        raise ModelError(
            f"The image processor of {base.id} gives pictures of {spec.shape[0]} x {spec.shape[1]} pixels where {side} "
            "are asked for.",
            expected="sizes that can be scaled",
            action="leave tune.picture_size out",
        )
    return replace(encoder.emptied(), tokenizer=processor, spec=spec)
