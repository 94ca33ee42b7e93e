"""The protocol's binary tensor data extension: raw tensors behind the JSON of a request or an answer.

Source: the KServe and Triton specifications "Binary Tensor Data Extension": little-endian, row-major, no padding; an
element of type BYTES is its length as unsigned 32 bits, then its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.serve.http.errors import invalid
from edgetune.serve.json_types import JsonObject

HEADER_NAME = b"inference-header-content-length"
CONTENT_TYPE = b"application/octet-stream"

INTEGERS: dict[str, np.dtype[Any]] = {"INT64": np.dtype("<i8"), "INT32": np.dtype("<i4")}


def header_length(value: str | None, body_bytes: int) -> int | None:
    """Bytes of the JSON part, by the header's value; None where there is no header: the body is JSON alone.

    Raises:
        Refused: the value is no number, or is more than the body has.
    """
    if value is None:
        return None
    if not (value.isascii() and value.isdigit()) or len(value) > 18:
        raise invalid(f"The header Inference-Header-Content-Length is {value[:40]!r}.", expected="a number of bytes")
    length = int(value)
    if length > body_bytes:
        raise invalid(f"Inference-Header-Content-Length is {length}, the body has {body_bytes} bytes.")
    return length


class Blob:
    """The bytes behind a request's JSON, taken by its tensors from left to right."""

    def __init__(self, content: memoryview) -> None:
        self._content = content
        self._taken = 0

    def take(self, size: object, name: str) -> memoryview:
        """The next `size` bytes, which are tensor `name`'s.

        Raises:
            Refused: the size is no size, or there are fewer bytes.
        """
        if isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise invalid(f"binary_data_size of {name} is {size!r:.40}.", expected="a number of bytes")
        left = len(self._content) - self._taken
        if size > left:
            raise invalid(f"binary_data_size of {name} is {size}, and {left} bytes are left behind the JSON.")
        self._taken += size
        return self._content[self._taken - size : self._taken]

    def finish(self) -> None:
        """Refuse bytes that no tensor took."""
        left = len(self._content) - self._taken
        if left:
            raise invalid(
                f"{left} bytes behind the JSON belong to no tensor.",
                expected="the sum of all binary_data_size, with the header Inference-Header-Content-Length",
            )


def read_elements(raw: memoryview, count: int, name: str) -> list[bytes]:
    """The `count` elements of a BYTES tensor.

    Raises:
        Refused: the lengths do not lead to the end in `count` steps.
    """
    elements: list[bytes] = []
    place, end = 0, len(raw)
    while place < end:
        if end - place < 4:
            raise invalid(f"{name} ends within the length of element {len(elements)}.", expected="4 bytes of length")
        (length,) = struct.unpack_from("<I", raw, place)
        place += 4
        if length > end - place:
            raise invalid(f"Element {len(elements)} of {name} has {length} bytes, and {end - place} are left.")
        elements.append(bytes(raw[place : place + length]))
        place += length
        if len(elements) > count:
            break
    if len(elements) != count:
        raise invalid(f"{name} holds {'more' if len(elements) > count else len(elements)} elements, its shape {count}.")
    return elements


def read_integers(raw: memoryview, datatype: str, count: int, name: str) -> NDArray[np.int64]:
    """The values of an INT64 or INT32 tensor: (count,) int64.

    Raises:
        Refused: the bytes are not those of `count` values.
    """
    dtype = INTEGERS[datatype]
    if len(raw) != count * dtype.itemsize:
        raise invalid(f"{name} has {len(raw)} bytes, its shape and {datatype} make {count * dtype.itemsize}.")
    values: NDArray[np.int64] = np.frombuffer(raw, dtype=dtype).astype(np.int64)
    return values


def write_elements(values: Iterable[str]) -> bytes:
    """A BYTES tensor of UTF-8 texts."""
    parts: list[bytes] = []
    for value in values:
        content = value.encode()
        parts += (struct.pack("<I", len(content)), content)
    return b"".join(parts)


def join(answer: JsonObject, blobs: Sequence[bytes]) -> tuple[bytes, int]:
    """An answer's JSON with the raw tensors behind it, and the bytes of the JSON part."""
    head = msgspec.json.encode(answer)
    return b"".join((head, *blobs)), len(head)
