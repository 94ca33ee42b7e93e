"""Picture files: what Pillow gets wrong in silence is right, and what cannot be read is refused by name."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from edgetune.serve.codecs.picture_file import depth_of, open_picture, read_picture
from edgetune.serve.codecs.picture_spec import PictureSpec
from edgetune.serve.errors import InputError
from tests.golden.pictures import COLOURS, picture, picture_bytes

SPEC = PictureSpec(size=(8, 8))
DEEP = PictureSpec(size=(8, 8), depth_range=(1_000.0, 2_000.0))


def saved(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, format=kind, **options)
    return content.getvalue()


def pixel(content, spec=SPEC, at=(0, 0)):
    return read_picture(content, "x", spec).getpixel(at)


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "P"), ("TIFF", "CMYK"), ("BMP", "RGB"), ("GIF", "P")]
)
def test_a_colour_stays_itself(kind, mode):
    shown = pixel(saved(picture("red", mode=mode), kind))
    assert np.abs(np.subtract(shown, COLOURS["red"])).max() <= 30  # palettes of fixed colours are coarse


def test_grey_and_bits_become_three_equal_channels():
    assert pixel(saved(Image.new("L", (3, 3), 77))) == (77, 77, 77)
    assert pixel(saved(Image.new("1", (3, 3), 1))) == (255, 255, 255)


def test_transparent_pixels_show_the_background_and_not_their_hidden_colour():
    clear = Image.new("RGBA", (4, 4), (255, 0, 0, 0))
    assert pixel(saved(clear)) == (255, 255, 255)
    assert pixel(saved(clear), PictureSpec(size=(8, 8), background=(1, 2, 3))) == (1, 2, 3)
    assert pixel(saved(Image.new("LA", (4, 4), (0, 0)))) == (255, 255, 255)
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert pixel(saved(half)) == (255, 127, 127)
    palette = picture("red", mode="P")
    assert pixel(saved(palette, transparency=palette.getpixel((0, 0)))) == (255, 255, 255)


def test_a_picture_is_turned_as_its_note_says():
    image = Image.new("RGB", (4, 2))
    image.putpixel((0, 0), (255, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    upright = read_picture(saved(image, exif=exif.tobytes()), "x", SPEC)
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == (255, 0, 0)


def test_sixteen_bits_are_refused_without_a_range_and_scaled_with_one():
    levels = np.array([[1_000, 1_500], [2_000, 9_000]], np.uint16)
    content = saved(Image.fromarray(levels))
    with pytest.raises(InputError, match="more than 8 bits a channel"):
        read_picture(content, "scan.png", SPEC)
    shown = np.asarray(read_picture(content, "scan.png", DEEP))[..., 0]
    assert shown.tolist() == [[0, 128], [255, 255]]
    assert depth_of(open_picture(content, "x", 100)) == (1_000.0, 9_000.0)
    floats = saved(Image.fromarray(np.array([[0.0, 1.0]], np.float32)), "TIFF")
    assert np.asarray(read_picture(floats, "x", PictureSpec(size=(8, 8), depth_range=(0.0, 1.0))))[
        0, :, 0
    ].tolist() == [0, 255]


def test_damage_is_told_with_the_name_of_the_file(tmp_path):
    whole = saved(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"cut\.jpg cannot be read: image file is truncated"):
        read_picture(tmp_path / "cut.jpg", str(tmp_path / "cut.jpg"), SPEC)
    with pytest.raises(InputError, match=r"There is no file nowhere\.png"):
        read_picture(tmp_path / "nowhere.png", "nowhere.png", SPEC)
    for content, words in ((b"", "it is empty"), (b"%PDF-1.7 and more", "it begins with b'%PDF-1.7'")):
        with pytest.raises(InputError, match="is no picture that can be read") as caught:
            read_picture(content, "report.png", SPEC)
        assert words in caught.value.found
    png = bytearray(picture_bytes("red"))
    png[60:70] = b"\0" * 10
    with pytest.raises(InputError, match=r"^x (cannot be read|is damaged|is no picture)"):
        read_picture(bytes(png), "x", SPEC)


def test_a_bomb_is_refused_before_it_is_decoded():
    content = saved(Image.new("1", (20_000, 5_000)))
    assert len(content) < 20_000
    with pytest.raises(InputError, match=r"bomb\.png has 20,000 x 5,000 pixels"):
        read_picture(content, "bomb.png", SPEC)
    with pytest.raises(InputError, match="24 x 16 pixels"):
        read_picture(picture_bytes("red"), "x", PictureSpec(size=(8, 8), most_pixels=300))
    monster = saved(Image.new("1", (60_000, 6_000)))  # which Pillow itself refuses
    with pytest.raises(InputError, match=r"monster\.png"):
        read_picture(monster, "monster.png", SPEC)


def test_formats_that_run_programs_are_no_pictures():
    content = saved(picture("red"), "EPS")
    with pytest.raises(InputError, match="is no picture that can be read"):
        read_picture(content, "x.eps", SPEC)
