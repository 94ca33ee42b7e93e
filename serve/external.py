"""Which files beside it an ONNX graph takes its weights from, read from its bytes alone.

The runtime has no onnx package, and ONNX Runtime opens whatever file of the folder a graph names. A walk over the
fields of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto3 that can hold a tensor; nothing else is decoded. Must
import the standard library alone.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

# Of each message, the fields that can lead to a tensor, by number, and what they hold.
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}
_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5


class UnreadableGraph(ValueError):
    """The bytes are no message of protocol buffers."""


def external_files(graph: Path) -> set[str]:
    """The locations that tensors of a graph name; none where all weights lie in the graph itself.

    Raises:
        OSError: the file cannot be read.
        UnreadableGraph: it is no protocol buffer.
    """
    with graph.open("rb") as stream:
        try:
            content = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:  # an empty file cannot be mapped
            return set()
        with content:
            # Most graphs hold all their weights: the walk in Python is for those that have the word at all.
            return set(_locations(content)) if content.find(b"location") >= 0 else set()


def _locations(content: mmap.mmap) -> Iterator[str]:
    waiting = [("model", 0, len(content))]
    while waiting:
        kind, start, stop = waiting.pop()
        if kind == "external":
            parts = [(number, content[begin:end]) for number, begin, end in _fields(content, start, stop)]
            if (1, b"location") in parts:
                yield from (value.decode("utf-8", "replace") for number, value in parts if number == 2)
            continue
        for number, begin, end in _fields(content, start, stop):
            if (inner := _FIELDS[kind].get(number)) is not None:
                waiting.append((inner, begin, end))


def _fields(content: mmap.mmap, place: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field of a message that has a length; all others are passed over."""
    while place < stop:
        key, place = _varint(content, place, stop)
        number, wire = key >> 3, key & 7
        if wire == _LENGTH:
            length, place = _varint(content, place, stop)
            end = place + length
            if end > stop:
                raise UnreadableGraph("a field is longer than its message")
            yield number, place, end
            place = end
        elif wire == _VARINT:
            _, place = _varint(content, place, stop)
        elif wire in (_EIGHT_BYTES, _FOUR_BYTES):
            place += 8 if wire == _EIGHT_BYTES else 4
        else:
            raise UnreadableGraph(f"a field of the wire type {wire}")
    if place != stop:
        raise UnreadableGraph("a message ends within a field")


def _varint(content: mmap.mmap, place: int, stop: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and the place behind it."""
    value = shift = 0
    while True:
        if place >= stop or shift > 63:
            raise UnreadableGraph("a number without an end")
        byte = content[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
