"""The codec of pictures: what may be given, the numbers that come out, and a bundle that answers with them."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgetune.serve import load
from edgetune.serve.codecs import codec_inputs, open_codec
from edgetune.serve.codecs.picture import level_tables, picture_levels, resized_shape
from edgetune.serve.codecs.picture_spec import Normalization, PictureSpec, read_picture_spec
from edgetune.serve.errors import BundleDamaged, InputError, MissingDependency
from edgetune.serve.golden import replay_golden
from tests.golden.pictures import COLOURS, picture, picture_bytes


@pytest.fixture(scope="module")
def predictor(picture_bundle):
    return load(picture_bundle, threads=1)


def test_a_picture_may_be_given_in_every_way(predictor, tmp_path):
    (tmp_path / "green.png").write_bytes(picture_bytes("green"))
    text = base64.b64encode(picture_bytes("blue")).decode()
    given = [
        picture_bytes("red"),
        bytearray(picture_bytes("red")),
        tmp_path / "green.png",
        text,
        f"data:image/png;base64,{text}",
        picture("blue"),
        picture("red", mode="P"),
    ]
    answers = predictor.predict(given)
    assert [answer.label for answer in answers] == ["red", "red", "green", "blue", "blue", "blue", "red"]
    assert not any(answer.truncated for answer in answers)
    means = 4 * (np.array(COLOURS["green"]) / 255 - 0.5) / 0.5
    assert predictor.logits(predictor.encode([tmp_path / "green.png"]))[0] == pytest.approx(means, abs=1e-5)
    joined = asyncio.run(predictor.predict_async(given))
    assert [answer.label for answer in joined] == [answer.label for answer in answers]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("photo.jpg", "is a text that is no base64: 'photo.jpg'"),
        ("/etc/passwd", "is a text that is no base64"),
        ("aGVsbG8=", "is no picture that can be read"),
        (7, "is of type int"),
        (None, "is of type NoneType"),
        (["a", "b"], "is of type list"),
    ],
)
def test_what_is_no_picture_is_refused_with_its_place(predictor, value, words):
    with pytest.raises(InputError) as caught:
        predictor.predict([picture_bytes("red"), value])
    assert caught.value.found.startswith("Picture 1")
    assert words in caught.value.found


def test_a_string_never_opens_a_file(predictor, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("abcd").write_bytes(picture_bytes("red"))  # a name that is base64 too
    with pytest.raises(InputError, match="is no picture that can be read"):
        predictor.predict(["abcd"])


def test_golden_pictures_are_replayed(predictor):
    replay = replay_golden(predictor)
    assert (replay.cases, replay.max_abs_diff < 1e-5) == (3, True)


def test_inputs_of_a_data_set_become_paths():
    assert codec_inputs("picture", ["a.png", "data:image;base64,AA"]) == [Path("a.png"), "data:image;base64,AA"]
    assert codec_inputs("text", ["a.png"]) == ["a.png"]


def test_steps_are_done_in_their_order():
    steps = [Normalization((0.5, 0.5, 0.5), (0.5, 0.25, 0.125)), Normalization((0.0, 0.0, 0.0), (2.0, 2.0, 2.0))]
    tables = level_tables(PictureSpec(size=(2, 2), scale=1 / 255, offset=-1.0, normalizations=steps))
    assert tables.shape == (3, 256)
    assert tables[:, 255] == pytest.approx([-0.5, -1.0, -2.0])
    assert tables[:, 0] == pytest.approx([-1.5, -3.0, -6.0])


@pytest.mark.parametrize(
    ("height", "width", "shape"), [(100, 100, (256, 256)), (300, 401, (256, 342)), (517, 230, (575, 256))]
)
def test_the_longer_side_follows_and_is_rounded_down(height, width, shape):
    assert resized_shape(height, width, PictureSpec(short_side=256, crop=(224, 224))) == shape


def test_a_crop_takes_the_middle_and_is_black_around_a_smaller_picture():
    levels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    image = Image.fromarray(levels)
    assert picture_levels(image, PictureSpec(crop=(2, 2))).tolist() == levels[1:3, 1:3].tolist()
    wide = picture_levels(image, PictureSpec(crop=(6, 2)))
    assert wide.shape == (6, 2, 3)
    assert wide[1:5].tolist() == levels[:, 1:3].tolist()
    assert not wide[[0, 5]].any()
    turned = picture_levels(image, PictureSpec(crop=(2, 2), reversed_channels=True))
    assert turned.tolist() == levels[1:3, 1:3, ::-1].tolist()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"short_side": 8}, "leaves the size of pictures open"),
        ({"size": [8, 8], "normalizations": [{"mean": [0, 0, 0], "std": [1, 0, 1]}]}, "divides by zero"),
        ({"size": [8, 100_000]}, "cannot be read"),
        ({"size": "large"}, "cannot be read"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path, settings, words):
    (tmp_path / "picture.json").write_text(json.dumps(settings), "utf-8")
    with pytest.raises(BundleDamaged, match=words):
        read_picture_spec(tmp_path)


def test_a_bundle_without_its_settings_is_damaged(picture_bundle, tmp_path):
    import shutil

    shutil.copytree(picture_bundle, tmp_path / "bundle")
    (tmp_path / "bundle" / "picture.json").unlink()
    with pytest.raises(BundleDamaged, match=r"picture\.json is missing"):
        load(tmp_path / "bundle")


def test_without_pillow_one_sentence_says_what_to_install(picture_bundle, monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "PIL" else find(name))
    with pytest.raises(MissingDependency, match=r"Pillow.*\n.*pip install 'edgetune\[pictures\]'"):
        open_codec("picture", picture_bundle, 1)


def test_bundles_of_texts_do_without_pillow():
    program = (
        "import sys; sys.modules['PIL'] = None; from edgetune.serve import load; "
        "print(load('tests/golden/bundle-v1').predict(['where is my parcel'])[0].label)"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "delivery"
