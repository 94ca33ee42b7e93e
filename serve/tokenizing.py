"""What the tokenizers library raises, as errors of ours: it knows `Exception` alone, and panics beyond that.

A panic of its Rust code is no `Exception` to Python, so that whoever catches faults of a request would let it through.
Must not import numpy.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from tokenizers import Tokenizer

from edgetune.serve.errors import BundleDamaged, InputError, RunError

# The largest in use have some 40 MB; parsing takes several times as much memory.
MOST_BYTES = 512 * 2**20


def read_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer.json, opened.

    Raises:
        BundleDamaged: the file is none.
    """
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise ValueError(f"it has {size:,} bytes, and at most {MOST_BYTES:,} are read")
        return Tokenizer.from_file(str(path))
    except BaseException as error:
        if not _is_of_the_library(error):
            raise
        raise BundleDamaged(
            f"{path} is no tokenizer: {error}",
            expected="a tokenizer.json as the tokenizers library writes it",
            action="copy the bundle again from where it was built, or build it again",
        ) from error


class TokenizerCall:
    """Around a call of a tokenizer: what the library raises leaves as an error of ours, all else as it is.

    A class, since a generator takes a microsecond, and a short text is encoded in twenty.

    Raises:
        InputError: a text is no valid Unicode.
        RunError: the tokenizer fails on one.
    """

    def __enter__(self) -> None:
        """Nothing is to be prepared."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, UnicodeEncodeError | TypeError):
            raise InputError(
                "A text holds an unpaired surrogate, which no encoding can carry.",
                expected="valid Unicode",
                action="decode the text with errors='replace' first",
            ) from error
        if error is not None and _is_of_the_library(error):
            raise RunError(
                f"The tokenizer failed: {str(error)[:500]}",
                expected="a tokenizer that takes every text",
                action="give another text; if that changes nothing, build the bundle again",
            ) from error


def _is_of_the_library(error: BaseException) -> bool:
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
