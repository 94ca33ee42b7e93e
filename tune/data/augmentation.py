"""Pictures of the training part as they might have been taken: another crop, another light, mirrored where told.

Each drawing depends on seed, epoch and row alone, so that a continued training sees what an unbroken one does. Must not
import torch: the recipe reads the settings.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from PIL.Image import Image

# Shapes of a crop lie between this and its inverse, as in Szegedy et al. 2015 (arXiv 1409.4842), halved in range.
MOST_STRETCH = 1.15


class AugmentRecipe(BaseModel):
    """How training pictures are varied; pictures that choose and judge never are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    crop: float = Field(0.7, gt=0, le=1, description="Least share of a picture that a random crop shows; 1 for none.")
    colour: float = Field(
        0.2, ge=0, lt=1, description="Largest change of brightness and contrast, as a share; 0 for none."
    )
    flip: bool = Field(
        False, description="Mirror half of the pictures; not where left and right, or writing, tell classes apart."
    )

    @property
    def changes(self) -> bool:
        """Whether anything is varied at all."""
        return self.crop < 1 or self.colour > 0 or self.flip


def augmented(
    picture: Image, shape: tuple[int, int], resample: int, recipe: AugmentRecipe, seed: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Levels (height, width, 3) uint8 of a picture in mode RGB, varied.

    Args:
        shape: (height, width) of what the model takes.
        resample: Pillow's number of the filter.
        seed: what the drawing depends on.
    """
    draw = np.random.default_rng(seed)
    levels = np.asarray(picture.resize(shape[::-1], resample, box=_box(picture.size, shape, recipe.crop, draw)))
    if recipe.flip and draw.random() < 0.5:
        levels = levels[:, ::-1]
    if recipe.colour:
        brightness, contrast = 1 + recipe.colour * draw.uniform(-1, 1, 2)
        table = (np.arange(256) - levels.mean()) * contrast + levels.mean() * brightness
        levels = np.clip(np.rint(table), 0, 255).astype(np.uint8)[levels]
    return levels


def _box(
    size: tuple[int, int], shape: tuple[int, int], least: float, draw: np.random.Generator
) -> tuple[float, float, float, float]:
    """(left, top, right, bottom) of a random crop, near the shape that the model takes; all where `least` is 1."""
    width, height = size
    if least >= 1:
        return (0, 0, width, height)
    share = draw.uniform(least, 1)
    stretch = math.exp(draw.uniform(-1, 1) * math.log(MOST_STRETCH))
    # The largest box of the model's own shape in the picture, then the share of it, stretched.
    unit = min(width / shape[1], height / shape[0]) * math.sqrt(share)
    wide = min(width, unit * shape[1] * stretch)
    tall = min(height, unit * shape[0] / stretch)
    left, top = draw.uniform(0, width - wide), draw.uniform(0, height - tall)
    return (left, top, left + wide, top + tall)
