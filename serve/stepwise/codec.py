"""Text to token ids and back, with the `tokenizers` library alone: the same ids as in training.

It stands apart from the classifiers' tokenizer since a prompt is never cut. Must not import transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.stepwise.spec import GenerationSpec
from edgetune.serve.tokenizing import TokenizerCall, read_tokenizer


class TokenCodec:
    """A tokenizer.json opened for generating. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._tokenizer = read_tokenizer(path)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.path = path

    def encode(self, text: str, *, special: bool = True) -> list[int]:
        """Ids of a text; `special` adds what the tokenizer puts around a text (a chat template has put it itself).

        Raises:
            InputError: it is no string, or no valid Unicode (an unpaired surrogate).
            RunError: the tokenizer fails on it.
        """
        if not isinstance(text, str):
            raise InputError(f"The prompt is of type {type(text).__name__}.", expected="a string")
        with TokenizerCall():
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=special).ids
        return ids

    def decode(self, ids: Sequence[int], *, special: bool = False) -> str:
        """The text of ids; `special` writes special tokens too."""
        with TokenizerCall():
            text: str = self._tokenizer.decode(list(ids), skip_special_tokens=not special)
        return text

    def check(self, spec: GenerationSpec) -> None:
        """Refuse a tokenizer of another model: neither digests nor ONNX Runtime would notice.

        Raises:
            BundleDamaged: it knows more tokens than the graph, or lacks one that ends an answer.
        """
        known = self._tokenizer.get_vocab_size(with_added_tokens=True)
        faults = []
        if known > spec.vocabulary:
            faults.append(f"it knows {known:,} tokens, the graph {spec.vocabulary:,}")
        lacking = [token for token in spec.eos_ids if self._tokenizer.id_to_token(token) is None]
        if lacking:
            faults.append(f"it lacks the tokens {lacking} that end an answer")
        if faults:
            raise BundleDamaged(
                f"The tokenizer {self.path} does not fit its graph: " + "; ".join(faults) + ".",
                expected="a tokenizer and a graph that were packed together",
                action="copy the bundle again from where it was built, or build it again",
            )
