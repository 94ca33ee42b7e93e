"""Texts to token ids with the `tokenizers` library alone: the same ids as in training, without transformers.

Must not import numpy: `load` opens the codec in a thread while numpy is still being imported.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
from tokenizers import Encoding, Tokenizer

from edgetune.serve.bundle import CONFIG_NAME, MOST_JSON_BYTES, NOT_JSON, TOKENIZER_NAME
from edgetune.serve.codecs import CODECS, Input
from edgetune.serve.codecs.word_spans import Span
from edgetune.serve.codecs.words import WordCache
from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.files import read_regular
from edgetune.serve.tokenizing import TokenizerCall, read_tokenizer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Of a text longer than this many characters for each token that the model reads, the rest is looked at only if needed.
CHARACTERS_A_TOKEN = 32

SAMPLE = "the quick brown fox jumps over the lazy dog"


class EncodedText(msgspec.Struct, frozen=True):
    """Ids of one input with its special tokens; `truncated` when it was longer than the model takes."""

    ids: list[int]
    type_ids: list[int]
    truncated: bool

    @property
    def size(self) -> int:
        """Tokens."""
        return len(self.ids)

    @property
    def all_ids(self) -> list[int]:
        """The ids of all that is read of the input."""
        return self.ids


class _Padding(msgspec.Struct):
    """What a config.json says of padding."""

    pad_token_id: Annotated[int, msgspec.Meta(ge=-1, lt=2**31)] | None = None


class TextCodec:
    """Single texts, truncated at `max_tokens` on the side that the tokenizer.json names."""

    parts = CODECS["text"].parts

    def __init__(self, folder: Path, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._tokenizer = read_tokenizer(folder / TOKENIZER_NAME)
        self._side: str = (self._tokenizer.truncation or {}).get("direction", "right")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens, direction=self._side)
        self._words = WordCache.of(self._tokenizer)
        self._pad_id = read_pad_id(folder / CONFIG_NAME)
        self._pad_batch: Callable[[Sequence[EncodedText], int], dict[str, NDArray[np.int64]]] | None = None

    def texts(self, inputs: Sequence[Input]) -> Sequence[str]:
        """The inputs themselves.

        Raises:
            InputError: one is no string.
        """
        for value in inputs:
            if not isinstance(value, str):
                raise _no_text(inputs)
        return inputs  # type: ignore[return-value]  # each was looked at

    def encode(self, inputs: Sequence[Input]) -> list[EncodedText]:
        """Token ids of each text, in order.

        Raises:
            InputError: a text is no string, or no valid Unicode (an unpaired surrogate).
        """
        texts = self.texts(inputs)
        if self._words is None:
            return self._tokenized(texts)
        words, most = self._words, self._max_tokens
        with TokenizerCall():
            known = [words.encode(text, most) for text in texts]
        others = iter(self._tokenized([text for text, ids in zip(texts, known, strict=True) if ids is None]))
        return [next(others) if ids is None else EncodedText(ids, [words.type_id] * len(ids), False) for ids in known]

    def _tokenized(self, texts: Sequence[str]) -> list[EncodedText]:
        """As `encode`, by the tokenizer."""
        if not texts:
            return []
        encodings = run_tokenizer(self._tokenizer, texts)
        # Where the tokenizer adds no special tokens, a text without a token is read as one of padding, as in training.
        return [EncodedText(e.ids or [self._pad_id], e.type_ids or [0], bool(e.overflowing)) for e in encodings]

    def encode_spans(self, value: Input) -> tuple[EncodedText, list[Span | None]]:
        """One input as `encode` gives it, and the characters of each of its tokens; None of special ones.

        Raises:
            InputError: as `encode`.
        """
        (encoding,) = run_tokenizer(self._tokenizer, self.texts([value]))
        (row,) = self.encode([value])
        spans = [
            None if special else Span(0, *offsets)
            for special, offsets in zip(encoding.special_tokens_mask, encoding.offsets, strict=True)
        ]
        return row, spans or [None]

    def encode_beginnings(self, inputs: Sequence[Input]) -> list[EncodedText]:
        """As `encode`, without reading megabytes of which the model takes the first few hundred tokens.

        A text is cut at a space. What then still fills the model is what the whole text would give, since a token ends
        with its word; what does not, such as a page of spaces, is encoded whole.
        """
        if self._side != "right":
            return self.encode(inputs)
        texts, most = self.texts(inputs), CHARACTERS_A_TOKEN * self._max_tokens
        beginnings = [text if len(text) <= most else _beginning(text, most) for text in texts]
        encoded = self.encode(beginnings)
        for index, (text, beginning) in enumerate(zip(texts, beginnings, strict=True)):
            if beginning is not text and not encoded[index].truncated:
                encoded[index] = self.encode([text])[0]
        return encoded

    def pad(self, rows: Sequence[EncodedText]) -> dict[str, NDArray[np.int64]]:
        """input_ids, attention_mask and token_type_ids: each (rows, largest size) int64, padded on the right."""
        if self._pad_batch is None:  # an import in each call would take 1% of a short text's time
            from edgetune.serve.codecs.padding import pad_batch

            self._pad_batch = pad_batch
        return self._pad_batch(rows, self._pad_id)

    def samples(self, sizes: Sequence[int]) -> list[EncodedText]:
        """A row of each of these sizes: the ids of a sentence, again and again."""
        (row,) = self.encode([self._sample()])
        pairs = list(zip(row.ids, row.type_ids, strict=True))
        repeated = [list(itertools.islice(itertools.cycle(pairs), size)) for size in sizes]
        return [EncodedText([i for i, _ in row], [t for _, t in row], False) for row in repeated]

    def _sample(self) -> Input:
        return SAMPLE


def run_tokenizer(tokenizer: Tokenizer, texts: Sequence[str], *, special_tokens: bool = True) -> list[Encoding]:
    """The encodings of texts, in order.

    Raises:
        InputError: a text is no valid Unicode.
        RunError: the tokenizer fails on one.
    """
    with TokenizerCall():
        # A text or two need no thread pool: encode_batch takes a sixth longer for one.
        if len(texts) <= 2:
            return [tokenizer.encode(text, add_special_tokens=special_tokens) for text in texts]
        return tokenizer.encode_batch(list(texts), add_special_tokens=special_tokens)


def read_pad_id(config: Path) -> int:
    """The id that pads, by a config.json; 0 where it names none, or -1 as some do to say so.

    Raises:
        BundleDamaged: the file cannot be read, or the id is none.
    """
    try:
        content = msgspec.json.decode(read_regular(config, MOST_JSON_BYTES), type=dict[str, object])
        value = msgspec.convert(content, _Padding).pad_token_id
    except (OSError, *NOT_JSON) as error:
        raise BundleDamaged(f"{config} cannot be read: {error}") from error
    return 0 if value is None else max(0, value)


def _no_text(inputs: Sequence[object]) -> InputError:
    index, value = next((index, value) for index, value in enumerate(inputs) if not isinstance(value, str))
    if isinstance(value, list | tuple | Mapping):
        return InputError(
            f"Text {index} is of type {type(value).__name__}.",
            expected="a string, since this bundle answers single texts",
        )
    return InputError(f"Text {index} is of type {type(value).__name__}.", expected="a string")


def _beginning(text: str, most: int) -> str:
    place = text.rfind(" ", most // 2, most)
    return text if place < 0 else text[:place]
