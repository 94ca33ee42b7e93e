"""Texts stripped before they are encoded, where those that were learnt from had been (`data.clean.normalize`).

A tokenizer that keeps white space would otherwise give a text with a blank or a line break around it other ids, and so
perhaps another answer, than the same text in the training data. Must not import numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgetune.serve.codecs import Codec, Input, stripped
from edgetune.serve.codecs.word_spans import Span, SpanCodec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgetune.serve.codecs.text import EncodedText


class StrippedCodec:
    """Another codec, whose texts are stripped first; its faults are raised as they are."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self.parts = codec.parts

    def texts(self, inputs: Sequence[Input]) -> Sequence[str]:
        """All texts of the inputs as they are encoded."""
        return [stripped(text) for text in self._codec.texts(inputs)]

    def encode(self, inputs: Sequence[Input]) -> list[EncodedText]:
        """Each input as one row of the graph."""
        return self._codec.encode(self._stripped(inputs))

    def encode_spans(self, value: Input) -> tuple[EncodedText, list[Span | None]]:
        """One input as one row, and the characters of its tokens in the stripped texts."""
        assert isinstance(self._codec, SpanCodec)  # texts are all that is stripped
        return self._codec.encode_spans(self._stripped([value])[0])

    def encode_beginnings(self, inputs: Sequence[Input]) -> list[EncodedText]:
        """The same rows as `encode`."""
        return self._codec.encode_beginnings(self._stripped(inputs))

    def pad(self, rows: Sequence[EncodedText]) -> dict[str, NDArray[np.int64]]:
        """Rows joined to one batch: (rows, largest size) int64 by input's name."""
        return self._codec.pad(rows)

    def samples(self, sizes: Sequence[int]) -> list[EncodedText]:
        """A row of each of these sizes in tokens."""
        return self._codec.samples(sizes)

    def _stripped(self, inputs: Sequence[Input]) -> Sequence[Input]:
        texts, size = self.texts(inputs), len(self.parts)
        return texts if size == 1 else [texts[at : at + size] for at in range(0, len(texts), size)]
