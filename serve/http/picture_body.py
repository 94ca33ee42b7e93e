"""Pictures as the body of a request: the bytes of one file, or a form with a file for each picture.

By RFC 7578 (multipart/form-data); fields without a file name are left out. Nothing is decoded here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from starlette.types import Scope

from edgetune.serve.http.errors import invalid

# What a body may be beside JSON where pictures are answered.
TYPES = ("image/", "multipart/form-data")
_BOUNDARY = re.compile(r"""boundary=(?:"([^"]{1,70})"|([^\s;"]{1,70}))""", re.IGNORECASE)
_FILE = re.compile(rb"""^content-disposition:[^\r\n]*;\s*filename\*?=""", re.IGNORECASE | re.MULTILINE)


def read_pictures(scope: Scope, body: bytes) -> list[bytes] | None:
    """The files that a body is or holds; None where it is of another type, such as JSON.

    Raises:
        Refused: 400; a form that is none, or holds no file.
    """
    headers: dict[bytes, bytes] = dict(scope["headers"])
    kind = headers.get(b"content-type", b"").decode("latin-1").strip()
    if kind.lower().startswith("image/"):
        return [body]
    if not kind.lower().startswith("multipart/form-data"):
        return None
    match = _BOUNDARY.search(kind)
    if match is None:
        raise invalid("The form names no boundary.", expected="Content-Type: multipart/form-data; boundary=...")
    files = list(_files(body, (match[1] or match[2]).encode("latin-1")))
    if not files:
        raise invalid("The form holds no file.", expected="a picture in each file field, as curl -F image=@photo.jpg")
    return files


def _files(body: bytes, boundary: bytes) -> Iterator[bytes]:
    delimiter = b"\r\n--" + boundary
    pieces = (b"\r\n" + body).split(delimiter)
    if len(pieces) < 3 or not pieces[-1].startswith(b"--"):
        raise invalid("The form is not whole: its last boundary is missing.")
    for piece in pieces[1:-1]:
        head, separator, content = piece.partition(b"\r\n\r\n")
        if not separator:
            raise invalid("A part of the form has no end of its headers.")
        if _FILE.search(head):
            yield content
