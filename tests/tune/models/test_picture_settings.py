"""Image processors followed step by step: the codec's numbers are transformers' own, or the base is refused."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image

from edgetune.serve.codecs import open_codec
from edgetune.serve.errors import ModelError
from edgetune.tune.models.base import find_base
from edgetune.tune.models.picture_encoder import PictureEncoder
from edgetune.tune.models.picture_model import keep_statistics, start_picture_model
from edgetune.tune.models.picture_settings import TOLERANCE, open_processor, picture_spec, steps_differ
from edgetune.tune.tasks import TASKS
from tests.picture_bases import PICTURE_BASES, SIDE

PICTURES = TASKS["image-classification"]


@pytest.mark.parametrize("name", PICTURE_BASES)
def test_every_processor_is_followed(picture_base, tmp_path, name):
    base = find_base(str(picture_base(name)))
    processor = open_processor(base)
    spec = picture_spec(processor, base, None)
    assert spec.shape == (SIDE, SIDE)
    encoder = PictureEncoder(processor, 1, PICTURES, spec)
    encoder.save(tmp_path)
    draw = np.random.default_rng(0)
    for number, (width, height) in enumerate(((50, 50), (90, 31), (20, 70))):
        picture = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
        picture.save(tmp_path / f"{number}.png")
        assert steps_differ(processor, spec, [picture]) <= TOLERANCE
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    codec = open_codec("picture", tmp_path, 1)
    served = codec.pad(codec.encode(paths))["pixel_values"]
    opened = PictureEncoder.opened(tmp_path, PICTURES)
    assert opened.spec == spec
    trained = opened.pad(opened.rows(list(map(str, paths))), "np")["pixel_values"]
    assert np.array_equal(served, trained)
    theirs = np.stack([processor(images=Image.open(path), return_tensors="np")["pixel_values"][0] for path in paths])
    assert np.abs(served - theirs).max() <= TOLERANCE


def test_a_processor_that_does_something_else_is_refused(picture_base):
    from transformers import ViTImageProcessorPil

    base = find_base(str(picture_base("vit")))

    class Inverting(ViTImageProcessorPil):
        def rescale(self, image, scale, **options):
            return 1 - super().rescale(image, scale, **options)

    with pytest.raises(ModelError, match="its numbers differ from the known steps"):
        picture_spec(Inverting(size={"height": 8, "width": 8}), base, None)
    with pytest.raises(ModelError, match="pictures of different sizes"):
        picture_spec(ViTImageProcessorPil(size={"shortest_edge": 8, "longest_edge": 16}), base, None)


def test_a_base_without_a_processor_or_of_texts_is_refused(picture_base, tiny_base, tmp_path):
    folder = tmp_path / "base"
    shutil.copytree(picture_base("vit"), folder)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"has no preprocessor_config\.json"):
        open_processor(find_base(str(folder)))
    objective = PICTURES.objective(["a", "b"], "", [0, 1])
    with pytest.raises(ModelError, match="transformers has no picture classifier"):
        start_picture_model(find_base(str(tiny_base("bert"))), objective)


def test_dropout_is_lowered_and_statistics_stay(picture_base):
    import torch

    model = start_picture_model(
        find_base(str(picture_base("mobilenet_v2"))), PICTURES.objective(["a", "b"], "", [0, 1])
    )
    assert model.config.classifier_dropout_prob == 0.2
    keep_statistics(model)
    model.train()
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    before = norms[0].running_mean.clone()
    model(pixel_values=torch.randn(2, 3, SIDE, SIDE))
    assert torch.equal(norms[0].running_mean, before)


def test_training_rows_are_varied_by_epoch_and_others_never(picture_base, toy_pictures):
    from edgetune.tune.data.augmentation import AugmentRecipe

    base = find_base(str(picture_base("resnet")))
    processor = open_processor(base)
    encoder = PictureEncoder(processor, 1, PICTURES, picture_spec(processor, base, None), AugmentRecipe(crop=0.5))
    files = sorted(map(str, toy_pictures.glob("*/*.png")))[:3]

    def seen(rows):
        return encoder.pad(rows, "np")["pixel_values"]

    encoder.begin_epoch(1)
    first = seen(encoder.training_rows(files))
    assert np.array_equal(first, seen(encoder.training_rows(files)))
    encoder.begin_epoch(2)
    assert not np.array_equal(first, seen(encoder.training_rows(files)))
    assert not np.array_equal(first, seen(encoder.rows(files)))
    assert np.array_equal(seen(encoder.rows(files)), seen(encoder.rows(files)))


def test_networks_with_batch_norms_learn_at_a_higher_rate(picture_base):
    from edgetune.tune.models.model import open_model
    from edgetune.tune.models.picture_model import trunk_rate

    assert trunk_rate(open_model(picture_base("resnet")), 5e-5) == 3e-4
    assert trunk_rate(open_model(picture_base("resnet")), 1e-3) == 1e-3
    assert trunk_rate(open_model(picture_base("vit")), 5e-5) == 5e-5
