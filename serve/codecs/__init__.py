"""Codecs: how an input becomes arrays. One file a kind, one row here.

Must not import numpy: `load` opens the codec in a thread while numpy is still being imported.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

from edgetune.serve.errors import BundleFormatError, InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgetune.serve.codecs.text import EncodedText

# What a caller may give as one input: a text, or a pair of texts as a list, a tuple or an object by part; of pictures
# the bytes of a file, its path, or base64.
Input = str | bytes | Path | Sequence[str] | Mapping[str, str]


class CodecKind(NamedTuple):
    """One row of the table: where the class is, the parts of an input, what one is in a few words, the file of a folder
    that says how inputs are encoded, and whether data sets name inputs by the files that hold them.
    """

    place: str
    parts: tuple[str, ...]
    summary: str
    settings: str = "tokenizer.json"
    in_files: bool = False


# By name in the manifest.
CODECS = {
    "text": CodecKind("edgetune.serve.codecs.text:TextCodec", ("text",), "a text"),
    "text-pair": CodecKind("edgetune.serve.codecs.text_pair:TextPairCodec", ("text", "text_pair"), "a pair of texts"),
    "tokens": CodecKind("edgetune.serve.codecs.tokens:TokensCodec", ("text",), "a text, read token by token"),
    "words": CodecKind("edgetune.serve.codecs.tokens:WordsCodec", ("text",), "a text, read word by word"),
    "text-and-tokens": CodecKind(
        "edgetune.serve.codecs.tokens:TextAndTokensCodec", ("text",), "a text, read as a whole and token by token"
    ),
    "text-and-words": CodecKind(
        "edgetune.serve.codecs.tokens:TextAndWordsCodec", ("text",), "a text, read as a whole and word by word"
    ),
    "picture": CodecKind(
        "edgetune.serve.codecs.picture:PictureCodec", ("image",), "a picture", settings="picture.json", in_files=True
    ),
}


class Codec(Protocol):
    """How inputs become what the graph takes.

    Attributes:
        parts: names of the texts that one input is made of, in order, as columns, tensors and JSON members have them.
    """

    parts: tuple[str, ...]

    def texts(self, inputs: Sequence[Input]) -> Sequence[str]:
        """All texts of the inputs, `len(parts)` of each, one input's behind the other's.

        Raises:
            InputError: an input is not what this codec takes; says which, and what was expected.
        """

    def encode(self, inputs: Sequence[Input]) -> list[EncodedText]:
        """Each input as one row of the graph, in order.

        Raises:
            InputError: as `texts`; or a text is no valid Unicode.
        """

    def encode_beginnings(self, inputs: Sequence[Input]) -> list[EncodedText]:
        """The same rows as `encode`, in time bounded by what the model reads of each input wherever that is possible.

        Raises:
            InputError: as `encode`.
        """

    def pad(self, rows: Sequence[EncodedText]) -> dict[str, NDArray[np.int64]]:
        """Rows joined to one batch: each input of the graph by name, (rows, largest size) int64."""

    def samples(self, sizes: Sequence[int]) -> list[EncodedText]:
        """A row of each of these sizes in tokens, for warming up: what it says means nothing."""


def open_codec(name: str, folder: Path, max_tokens: int, *, strip: bool = False) -> Codec:
    """The codec of that name on a folder's tokenizer and configuration.

    Args:
        name: of CODECS, as the manifest has it.
        folder: holds tokenizer.json and config.json: a bundle, or a tuned model.
        max_tokens: longest row; what is longer is truncated.
        strip: whether each text is stripped first, as the manifest says (`strip_inputs`).

    Raises:
        BundleFormatError: this release has no such codec.
        BundleDamaged: a file of the folder cannot be read.
    """
    module, _, kind = _kind(name).place.partition(":")
    codec = cast(Codec, getattr(importlib.import_module(module), kind)(folder, max_tokens))
    if not strip:
        return codec
    from edgetune.serve.codecs.stripped import StrippedCodec

    return StrippedCodec(codec)


def visible(text: str) -> str:
    """A text without the NUL and BOM characters that files leave in it."""
    return text.replace("\0", "").replace("\ufeff", "")


def stripped(text: str) -> str:
    """A text without those and without outer white space, as training strips it (`data.clean.normalize`)."""
    return visible(text).strip()


def codec_parts(name: str) -> tuple[str, ...]:
    """Names of the texts of one input, without opening anything.

    Raises:
        BundleFormatError: this release has no such codec.
    """
    return _kind(name).parts


def codec_alone(codec: str, *, per_token: bool) -> str:
    """The codec of one of several tasks by itself, of that which they share."""
    return codec.removeprefix("text-and-") if per_token else "text"


def takes_files(name: str) -> bool:
    """Whether data sets name the inputs of a codec by the files that hold them."""
    return name in CODECS and CODECS[name].in_files


def codec_inputs(name: str, inputs: Sequence[Any]) -> list[Any]:
    """Inputs as a data set has them, as the codec takes them: what names a file becomes its path."""
    if not takes_files(name):
        return list(inputs)
    return [value if value.startswith("data:") else Path(value) for value in inputs]


def _kind(name: str) -> CodecKind:
    if name not in CODECS:
        raise BundleFormatError(
            f"The bundle takes inputs of the kind {name!r}.",
            expected=f"one of {', '.join(CODECS)}, which this edgetune reads",
            action="install a newer edgetune",
        )
    return CODECS[name]


def describe_codec(name: str) -> str:
    """What one input is, in a few words; the name itself where this release does not know it."""
    return CODECS[name].summary if name in CODECS else f"{name} (of a newer edgetune)"


def list_inputs(inputs: Iterable[Any], *, one: str = "predict_one()") -> list[Any]:
    """The inputs of one call as a list; `one` is what answers a single input.

    Raises:
        InputError: there is none; or a single text, or something whose elements are no rows: the columns' names of a
            frame, the keys of a dict.
    """
    if isinstance(inputs, (str, bytes)):
        raise InputError("One string was given.", expected="a list of texts", action=f"use {one}")
    kind = type(inputs).__name__
    if is_frame(inputs):
        raise InputError(
            f"A {kind} was given, whose elements are its columns.",
            expected="one text, or pair of texts, a row",
            action='give a column: predict(frame["text"]); for pairs predict(list(zip(frame["a"], frame["b"])))',
        )
    if isinstance(inputs, Mapping):
        raise InputError(
            f"A {kind} was given, whose elements are its keys.",
            expected="a list of inputs",
            action=f"use {one} for a single input; of several, give list(values.values())",
        )
    if isinstance(inputs, (set, frozenset)):
        raise InputError(f"A {kind} was given, which has no order.", expected="a list: answers come in its order")
    try:
        each = iter(inputs)
    except TypeError:  # a number, None, an array without a dimension
        raise InputError(f"A value of type {kind} was given.", expected="a list of texts") from None
    listed = list(each)  # a generator can be read once only, and an array has no truth
    if not listed:
        raise InputError("There is no text to answer.", expected="at least one text")
    return listed


def is_frame(value: object) -> bool:
    """Whether a value is a table of pandas, Polars, Arrow or Spark: iterated, it gives its columns and not its rows."""
    return hasattr(type(value), "columns") or hasattr(type(value), "column_names")


def json_input(parts: Sequence[str]) -> Any:
    """An input of these texts as JSON: a string, or a list of strings."""
    return parts[0] if len(parts) == 1 else list(parts)
