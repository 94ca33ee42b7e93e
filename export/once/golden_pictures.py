"""Golden inputs of pictures: a few of the validation part, made small, as files without loss inside golden.json."""

from __future__ import annotations

import io
from collections.abc import Sequence

from edgetune.serve.codecs.picture_file import open_picture, upright
from edgetune.serve.codecs.picture_spec import MOST_PIXELS
from edgetune.tune.data.data_urls import as_data_url
from edgetune.tune.data.pictures import name_of, source_of
from edgetune.tune.data.slices import spread_evenly

SIDE = 48


def golden_pictures(inputs: Sequence[object], most: int) -> tuple[str, ...]:
    """At most so many pictures as data URLs of PNG files of at most `SIDE` pixels a side: about 5 kB each."""
    distinct = list(dict.fromkeys(str(value) for value in inputs))
    return tuple(_small(value) for value in spread_evenly(distinct, most))


def _small(value: str) -> str:
    picture = upright(open_picture(source_of(value), name_of(value), MOST_PIXELS))
    deep = picture.mode not in ("RGB", "RGBA", "L", "LA")
    picture = picture.convert("RGB") if deep else picture
    picture.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    picture.save(content, format="PNG", exif=b"", icc_profile=None)
    return as_data_url(content.getvalue())
