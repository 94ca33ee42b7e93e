"""Texts to token ids with the `tokenizers` library alone: the same ids as in training, without transformers.

Must not import numpy: `load` opens the tokenizer in a thread while numpy is still being imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from edgetune.serve.bundle import TOKENIZER_NAME, Bundle
from edgetune.serve.errors import BundleDamaged, InputError


@dataclass(frozen=True)
class TokenizedText:
    """Ids of one text with its special tokens; `truncated` when the text was longer than the model takes."""

    ids: list[int]
    type_ids: list[int]
    truncated: bool


class TextTokenizer:
    """A tokenizer.json opened for answering: truncates at `max_tokens`, never pads by itself."""

    def __init__(self, path: Path, max_tokens: int) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the tokenizers library raises Exception itself for every bad file
            raise BundleDamaged(f"{path} is no tokenizer: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)

    def tokenize(self, texts: Sequence[str]) -> list[TokenizedText]:
        """Token ids of each text, in order.

        Raises:
            InputError: a text is no string, or no valid Unicode (an unpaired surrogate).
        """
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InputError(f"Text {index} is of type {type(text).__name__}.", expected="a string")
        try:
            # One text needs no thread pool: encode_batch takes a sixth longer for it.
            one = len(texts) == 1
            encodings = [self._tokenizer.encode(texts[0])] if one else self._tokenizer.encode_batch(list(texts))
        except (UnicodeEncodeError, TypeError) as error:
            raise InputError(
                "A text holds an unpaired surrogate, which no encoding can carry.",
                expected="valid Unicode",
                action="decode the text with errors='replace' before predicting",
            ) from error
        return [TokenizedText(e.ids, e.type_ids, bool(e.overflowing)) for e in encodings]


def open_tokenizer(bundle: Bundle) -> TextTokenizer:
    """The tokenizer of a bundle."""
    return TextTokenizer(bundle.folder / TOKENIZER_NAME, bundle.manifest.max_tokens)
