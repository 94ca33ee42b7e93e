"""The side of pictures: smaller only where nothing is lost by it and the model takes it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgetune.serve.codecs.picture_spec import PictureSpec
from edgetune.serve.errors import ModelError
from edgetune.tune.models.base import find_base
from edgetune.tune.models.model import open_model
from edgetune.tune.models.picture_encoder import PictureEncoder
from edgetune.tune.models.picture_settings import TOLERANCE, open_processor, picture_spec, steps_differ
from edgetune.tune.models.picture_size import encoder_of_side, smaller_encoders, smaller_sides
from edgetune.tune.tasks import TASKS


def opened(folder):
    base = find_base(str(folder))
    processor = open_processor(base)
    return base, PictureEncoder(processor, 1, TASKS["image-classification"], picture_spec(processor, base, None))


def test_no_pixel_of_the_data_is_lost():
    usual = PictureSpec(short_side=256, crop=(224, 224))
    assert smaller_sides(usual, 100) == (160, 192)
    assert smaller_sides(usual, 182) == (160, 192)  # 160 is enlarged to 182.9 before the crop
    assert smaller_sides(usual, 183) == smaller_sides(usual, 219) == (192,)
    assert smaller_sides(usual, 220) == smaller_sides(usual, 4_000) == ()
    assert smaller_sides(PictureSpec(size=(224, 224)), 130) == (160, 192)
    assert smaller_sides(PictureSpec(size=(224, 160)), 30) == smaller_sides(PictureSpec(size=(32, 32)), 8) == ()


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2"])
def test_a_network_of_convolutions_takes_the_side_that_is_named(picture_base, name):
    base, encoder = opened(picture_base(name))
    larger = encoder_of_side(encoder, open_model(base.folder), base, 96)
    assert larger.spec.shape == (96, 96)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    assert steps_differ(larger.tokenizer, larger.spec, [picture]) <= TOLERANCE
    assert encoder.spec.shape == (32, 32)


def test_a_model_with_a_table_of_positions_keeps_its_own(picture_base, toy_pictures):
    base, encoder = opened(picture_base("vit"))
    model = open_model(base.folder)
    with pytest.raises(ModelError, match="does not take pictures of 64 pixels a side"):
        encoder_of_side(encoder, model, base, 64)
    assert list(smaller_encoders(encoder, model, base, sorted(map(str, toy_pictures.glob("*/*.png"))))) == []
