"""Rows of a task on tokens: the windows of each text as a model in PyTorch takes them, and what it gives for them.

A text longer than the model takes is several rows, which share tokens, as at run time (`serve/codecs/tokens.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs.tokens import EncodedTokens, shared_tokens
from edgetune.serve.token_outputs import assemble
from edgetune.tune.data.rows import Input

if TYPE_CHECKING:
    from edgetune.tune.models.encoder import Encoder

Row = dict[str, list[int]]


def token_texts(encoder: Encoder, texts: Sequence[Input]) -> list[EncodedTokens]:
    """Texts with their windows, as the runtime's codec gives them."""
    if not texts:
        return []
    shared = shared_tokens(encoder.max_tokens)
    encoded = encoder.tokenizer(
        list(texts), truncation=True, max_length=encoder.max_tokens, stride=shared, return_overflowing_tokens=True
    )
    windows: list[list[Any]] = [[] for _ in texts]
    for encoding, text in zip(encoded.encodings, encoded["overflow_to_sample_mapping"], strict=True):
        windows[text].append(encoding)
    padding = encoder.tokenizer.pad_token_id
    by_word = encoder.codec == "words"
    return [
        EncodedTokens.of(str(text), each, padding, by_word=by_word) for text, each in zip(texts, windows, strict=True)
    ]


def window_rows(encoder: Encoder, texts: Sequence[EncodedTokens]) -> list[Row]:
    """All windows of texts in order, each as a model's row: input_ids, attention_mask [, token_type_ids]."""
    names = encoder.tokenizer.model_input_names
    return [
        {
            name: values
            for name, values in (
                ("input_ids", window.ids),
                ("attention_mask", [1] * window.size),
                ("token_type_ids", window.type_ids),
            )
            if name in names
        }
        for text in texts
        for window in text.windows
    ]


def assembled(texts: Sequence[EncodedTokens], outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Outputs of texts (texts, tokens, 2 + width) by those of their windows in order, each (tokens, width)."""
    return assemble(texts, outputs, outputs[0].shape[-1] if outputs else 0)
