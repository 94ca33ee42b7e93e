"""The encoder: how a task's inputs become batches for a model in PyTorch.

One object for tokenizer, limit and the task's own `encode`, so that every encoding of a build is the task's. At run
time `edgetune.serve.codecs` does the same without transformers, and the export proves that both give the same ids.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.task import Task

if TYPE_CHECKING:
    from transformers import BatchEncoding

    from edgetune.tune.data.rows import Input
    from edgetune.tune.models.model import TunedModel


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with the longest input that a model takes, and the task whose inputs they are."""

    tokenizer: Any
    max_tokens: int
    task: Task

    @classmethod
    def of(cls, tuned: TunedModel) -> Encoder:
        """The encoder of a tuned model, from its folder."""
        from transformers import AutoTokenizer

        return cls(AutoTokenizer.from_pretrained(tuned.model_folder), tuned.max_tokens, TASKS[tuned.task])

    def rows(self, inputs: Sequence[Input]) -> list[dict[str, list[int]]]:
        """Each input by itself: input_ids, attention_mask [, token_type_ids], unpadded."""
        encoded = self.task.encode(self.tokenizer, inputs, self.max_tokens)
        names = [name for name in self.tokenizer.model_input_names if name in encoded]
        empty = {"input_ids": [self.tokenizer.pad_token_id], "attention_mask": [1], "token_type_ids": [0]}
        # Where a tokenizer adds no special tokens, a text without a token is read as one of padding, as at run time.
        return [{name: encoded[name][row] or empty[name] for name in names} for row in range(len(inputs))]

    def pad(self, rows: Sequence[Mapping[str, object]], tensors: str = "pt") -> BatchEncoding:
        """Rows as one batch, padded to the longest of them: arrays (rows, tokens) int64 by name."""
        return self.tokenizer.pad(list(rows), return_tensors=tensors)

    def batch(self, inputs: Sequence[Input]) -> BatchEncoding:
        """Inputs as one padded batch of torch tensors, by a single call of the tokenizer."""
        return self.task.encode(self.tokenizer, inputs, self.max_tokens, padding=True, tensors="pt")
