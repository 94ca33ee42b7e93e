"""Tensors of the Open Inference Protocol, read and checked: name, datatype and shape against what came as data.

Knows the protocol's forms alone (JSON flat or nested, binary, base64); what the tensors mean stands in inference.py.
"""

from __future__ import annotations

import base64
import binascii
import math
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgetune.serve.bundle import NOT_JSON
from edgetune.serve.http.binary import INTEGERS, Blob, read_elements, read_integers
from edgetune.serve.http.errors import Refused, invalid

MOST_ELEMENTS = 2**40  # of a shape: far past what a body can hold, well before numbers grow large

Size = Annotated[int, msgspec.Meta(ge=0)]
_Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_RANGES = {"INT64": (-(2**63), 2**63 - 1), "INT32": (-(2**31), 2**31 - 1)}

_TEXTS = msgspec.json.Decoder(list[str | list[str]])
_NUMBERS = msgspec.json.Decoder(list[_Int64 | list[_Int64]])

# How BYTES may stand in JSON, by the parameter that MLServer's clients send; the NumPy codec sends strings too.
PLAIN_CONTENT = frozenset({None, "str", "np"})
CONTENT_TYPES = PLAIN_CONTENT | {"base64"}


class InputTensor(msgspec.Struct):
    """One tensor of a request. `data` stays raw until the datatype tells how to read it."""

    name: str
    shape: list[Size]
    datatype: str
    data: msgspec.Raw = msgspec.Raw()
    parameters: dict[str, Any] | None = None

    @property
    def is_text(self) -> bool:
        return self.datatype == "BYTES"

    @property
    def content_type(self) -> object:
        return (self.parameters or {}).get("content_type")

    @property
    def has_data(self) -> bool:
        return bytes(memoryview(self.data)[:5]) not in (b"", b"null")

    @property
    def count(self) -> int:
        """Elements by the shape."""
        count = math.prod(self.shape)
        if count > MOST_ELEMENTS:
            raise invalid(
                f"{self.name[:80]} has the shape {self.shape[:8]}.", expected="a tensor that fits into a body"
            )
        return count


def read_texts(tensor: InputTensor, blob: Blob, content_type: object) -> list[str]:
    """The texts of a BYTES tensor of shape [n] or [n, 1].

    Raises:
        Refused: 400; shape and data differ, or an element is no text.
    """
    name, shape = tensor.name[:80], tensor.shape
    if len(shape) not in (1, 2) or (len(shape) == 2 and shape[1] != 1):
        raise invalid(f"{name} has the shape {shape[:8]}.", expected="[n] or [n, 1], one element a text")
    if not isinstance(content_type, str | None) or content_type not in CONTENT_TYPES:
        raise invalid(f"The content_type of {name} is {content_type!r:.40}.", expected="str or base64")
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is not None:
        _refuse_both(tensor)
        return [
            _utf8(each, index, name)
            for index, each in enumerate(read_elements(blob.take(size, name), tensor.count, name))
        ]
    texts = _flat(_decoded(tensor, _TEXTS, "strings"), tensor)
    if content_type == "base64":
        return [_from_base64(each, index, name) for index, each in enumerate(texts)]
    return texts


def read_matrix(tensor: InputTensor, blob: Blob) -> NDArray[np.int64]:
    """The values of an INT64 or INT32 tensor of two dimensions: (rows, columns) int64.

    Raises:
        Refused: 400; datatype, shape and data do not agree.
    """
    name, shape = tensor.name[:80], tensor.shape
    if tensor.datatype not in INTEGERS:
        raise invalid(f"{name} is of datatype {tensor.datatype[:40]}.", expected="INT64 or INT32")
    if len(shape) != 2 or 0 in shape:
        raise invalid(f"{name} has the shape {shape[:8]}.", expected="[rows, tokens], both 1 or more")
    size = (tensor.parameters or {}).get("binary_data_size")
    if size is not None:
        _refuse_both(tensor)
        return read_integers(blob.take(size, name), tensor.datatype, tensor.count, name).reshape(shape)
    values = np.array(_flat(_decoded(tensor, _NUMBERS, "integers of 64 bits"), tensor), dtype=np.int64)
    low, high = _RANGES[tensor.datatype]
    if values.min() < low or values.max() > high:
        raise invalid(f"{name} holds a value that does not fit into {tensor.datatype}.")
    return values.reshape(shape)


def _refuse_both(tensor: InputTensor) -> None:
    if tensor.has_data:
        raise invalid(f"{tensor.name[:80]} has both data and binary_data_size.", expected="one of the two")


def _decoded(tensor: InputTensor, decoder: Any, words: str) -> list[Any]:
    if not tensor.has_data:
        raise invalid(f"{tensor.name[:80]} has no data.", expected="data, or the parameter binary_data_size")
    try:
        values: list[Any] = decoder.decode(tensor.data)
    except NOT_JSON as error:
        raise invalid(
            f"The data of {tensor.name[:80]} cannot be read: {error}.", expected=f"an array of {words}"
        ) from error
    return values


def _flat(values: list[Any], tensor: InputTensor) -> list[Any]:
    """The elements in row-major order, from data that is flat or nested as the shape is."""
    shape = tensor.shape
    if any(isinstance(each, list) for each in values):
        columns = shape[-1]
        if len(shape) != 2 or len(values) != shape[0]:
            raise _other_shape(tensor)
        if any(not isinstance(each, list) or len(each) != columns for each in values):
            raise _other_shape(tensor)
        return [each for row in values for each in row]
    if len(values) != tensor.count:
        raise _other_shape(tensor, f"{len(values)} elements, not {tensor.count}")
    return values


def _other_shape(tensor: InputTensor, problem: str = "an array of another shape") -> Refused:
    return invalid(f"The data of {tensor.name[:80]} is {problem}.", expected=f"what its shape {tensor.shape[:8]} says")


def _from_base64(element: str, index: int, name: str) -> str:
    try:
        content = base64.b64decode(element, validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid(f"Element {index} of {name} is no base64.", expected="as content_type says, base64") from error
    return _utf8(content, index, name)


def _utf8(content: bytes, index: int, name: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise invalid(
            f"Element {index} of {name} is not UTF-8 at byte {error.start}.", expected="UTF-8 text"
        ) from error
