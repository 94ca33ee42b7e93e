"""What the tokenizers library raises, as errors of ours: it knows `Exception` alone, and panics beyond that.

A panic of its Rust code is no `Exception` to Python, so that whoever catches faults of a request would let it through.
Must not import numpy.
"""

from __future__ import annotations

from pathlib import Path

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


def tokenizer_fault(error: BaseException) -> BaseException:
    """What a failed call of a tokenizer becomes; what is not the library's stays what it is."""
    if isinstance(error, UnicodeEncodeError | TypeError):
        return InputError(
            "A text holds an unpaired surrogate, which no encoding can carry.",
            expected="valid Unicode",
            action="decode the text with errors='replace' first",
        )
    if not _is_of_the_library(error):
        return error
    return RunError(
        f"The tokenizer failed: {str(error)[:500]}",
        expected="a tokenizer that takes every text",
        action="give another text; if that changes nothing, build the bundle again",
    )


def _is_of_the_library(error: BaseException) -> bool:
    return isinstance(error, Exception) or type(error).__name__ == "PanicException"
