"""Pictures inside cells: the bytes of a file as a data URL (RFC 2397), and back.

Apart from tune/data/pictures.py, which decodes: tables are read where neither Pillow nor numpy is.
"""

from __future__ import annotations

import base64
from pathlib import Path

from edgetune.serve.errors import DataError

DATA_URL = "data:"
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


def is_picture_name(cell: object) -> bool:
    """Whether a cell names a picture file, or holds one as a data URL."""
    if not isinstance(cell, str):
        return False
    return cell.startswith("data:image") or Path(cell.strip()).suffix.lower() in SUFFIXES


def picture_bytes(value: str) -> bytes:
    """The bytes of a data URL.

    Raises:
        DataError: it is none.
    """
    try:
        return base64.b64decode(value.partition(",")[2], validate=True)
    except ValueError as error:
        raise DataError(f"A data URL holds no base64: {value[:40]!r}.") from error


def as_data_url(content: bytes) -> str:
    """Bytes of a file as a data URL."""
    return f"data:image;base64,{base64.b64encode(content).decode('ascii')}"
