"""Texts to token ids with the `tokenizers` library alone: the same ids as in training, without transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

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
            encodings = self._tokenizer.encode_batch(list(texts))
        except (UnicodeEncodeError, TypeError) as error:
            raise InputError(
                "A text holds an unpaired surrogate, which no encoding can carry.",
                expected="valid Unicode",
                action="decode the text with errors='replace' before predicting",
            ) from error
        return [TokenizedText(e.ids, e.type_ids, bool(e.overflowing)) for e in encodings]


def pad_batch(texts: Sequence[TokenizedText], pad_id: int) -> dict[str, NDArray[np.int64]]:
    """Join texts into the graph's inputs, padded on the right to the longest of them.

    Returns:
        input_ids, attention_mask and token_type_ids: each (batch, tokens) int64.
    """
    width = max(len(text.ids) for text in texts)
    input_ids = np.full((len(texts), width), pad_id, dtype=np.int64)
    attention_mask = np.zeros((len(texts), width), dtype=np.int64)
    token_type_ids = np.zeros((len(texts), width), dtype=np.int64)
    for row, text in enumerate(texts):
        tokens = len(text.ids)
        input_ids[row, :tokens] = text.ids
        attention_mask[row, :tokens] = 1
        token_type_ids[row, :tokens] = text.type_ids
    return {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
