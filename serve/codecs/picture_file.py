"""A picture file to its levels of red, green and blue: turned by its EXIF note, in one mode, and never a bomb.

What Pillow's own conversion gets wrong in silence is done here: transparent pixels show their hidden colour in it, and
levels above 255 of 16-bit pictures all become white. Damaged and oversized files are refused by name.
"""

from __future__ import annotations

import importlib.util
import io
import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetune.serve.codecs.picture_spec import PictureSpec
from edgetune.serve.errors import InputError, MissingDependency

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Of one file; a 64-megapixel PNG of noise has three times as many bytes, a photograph a tenth.
MOST_FILE_BYTES = 256 * 1024 * 1024
_DEEP = ("I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_TRANSPARENT = ("RGBA", "LA", "PA", "La", "RGBa")
_ORIENTATION = 0x0112  # of the EXIF note
_EXPECTED = f"a whole picture: {', '.join(FORMATS[:-1])} or {FORMATS[-1]}"


def require_pillow() -> None:
    """Look for Pillow without importing it.

    Raises:
        MissingDependency: it is not installed.
    """
    if importlib.util.find_spec("PIL") is None:
        raise MissingDependency(
            "This bundle answers pictures, and Pillow, which reads them, is not installed.",
            action="pip install 'edgetune[pictures]'",
        )


def read_picture(source: bytes | Path, name: str, spec: PictureSpec) -> Image:
    """The picture in a file as Pillow has it, upright and in mode RGB.

    Args:
        source: the file's bytes, or where it lies.
        name: what messages call it.
        spec: limits, background, and the range of deep pictures.

    Raises:
        InputError: it is missing, damaged, too large or no picture; or of 16 bits where the bundle knows no range.
    """
    picture = upright(open_picture(source, name, spec.most_pixels))
    if picture.mode not in _DEEP:
        return _in_colour(picture, spec.background)
    if spec.depth_range is None:
        raise InputError(
            f"{name} has more than 8 bits a channel (mode {picture.mode}), and the training data had no such "
            "pictures, so that nobody knows which levels are black and white.",
            expected="a picture of 8 bits a channel",
            action="convert it with the range that you mean, or train on such pictures",
        )
    return _shallow(picture, *spec.depth_range)


def depth_of(picture: Image) -> tuple[float, float] | None:
    """The least and the greatest level of a picture of more than 8 bits a channel; None of any other."""
    if picture.mode not in _DEEP:
        return None
    levels = np.asarray(picture)
    return float(levels.min()), float(levels.max())


def open_picture(source: bytes | Path, name: str, most_pixels: int) -> Image:
    """The picture in a file, decoded, as it is stored.

    Raises:
        InputError: it is missing, damaged, too large or no picture.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        content = source if isinstance(source, bytes) else _content(source)
        if len(content) > MOST_FILE_BYTES:
            raise InputError(f"{name} has {len(content):,} bytes.", expected=f"at most {MOST_FILE_BYTES:,}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on sizes, which are checked here, and on metadata
            picture = Image.open(io.BytesIO(content), formats=FORMATS)
            width, height = picture.size
            if width * height > most_pixels:
                raise InputError(
                    f"{name} has {width:,} x {height:,} pixels.",
                    expected=f"at most {most_pixels:,} pixels, so that no small file fills the memory",
                    action="make it smaller",
                )
            picture.load()
    except UnidentifiedImageError:
        raise InputError(f"{name} is no picture that can be read ({_start(content)}).", expected=_EXPECTED) from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{name} is too large: {error}.", expected=f"at most {most_pixels:,} pixels") from error
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            raise InputError(f"There is no file {name}.", expected=_EXPECTED) from error
        raise InputError(f"{name} cannot be read: {error}.", expected=_EXPECTED) from error
    except (SyntaxError, ValueError, EOFError, IndexError, struct.error) as error:  # what decoders raise on damage
        raise InputError(f"{name} is damaged: {error}.", expected=_EXPECTED) from error
    return picture


def _content(path: Path) -> bytes:
    if path.stat().st_size > MOST_FILE_BYTES:
        raise InputError(f"{path} has {path.stat().st_size:,} bytes.", expected=f"at most {MOST_FILE_BYTES:,}")
    return path.read_bytes()


def _start(content: bytes) -> str:
    return f"it begins with {content[:8]!r}" if content else "it is empty"


def upright(picture: Image) -> Image:
    """A picture turned and mirrored as its EXIF note says; a damaged note says nothing."""
    from PIL import ImageOps

    try:
        turned = picture.getexif().get(_ORIENTATION, 1) != 1
        return ImageOps.exif_transpose(picture) if turned else picture
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return picture


def _in_colour(picture: Image, background: tuple[int, int, int]) -> Image:
    """Mode RGB of a picture of 8 bits a channel, on the background where it is transparent."""
    from PIL import Image

    if picture.mode in _TRANSPARENT or "transparency" in picture.info:
        shown = picture.convert("RGBA")
        below = Image.new("RGBA", picture.size, (*background, 255))
        return Image.alpha_composite(below, shown).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _shallow(picture: Image, black: float, white: float) -> Image:
    """Mode RGB of a deep picture whose levels from `black` to `white` become 0 to 255."""
    from PIL import Image

    levels = (np.asarray(picture).astype(np.float64) - black) * (255 / max(white - black, 1e-12))
    return Image.fromarray(np.clip(np.rint(np.nan_to_num(levels)), 0, 255).astype(np.uint8)).convert("RGB")
