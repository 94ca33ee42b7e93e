"""The encoder: how a task's inputs become batches for a model in PyTorch.

One object for tokenizer, limit and the task's own `encode`, so that every encoding of a build is the task's. At run
time `edgetune.serve.codecs` does the same without transformers, and the export proves that both give the same ids.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from edgetune.tune.data.rows import each_text, length
from edgetune.tune.data.slices import spread_evenly
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.task import Task

if TYPE_CHECKING:
    from transformers import BatchEncoding

    from edgetune.tune.data.rows import Input
    from edgetune.tune.models.model import TunedModel
    from edgetune.tune.models.types import EncodedRow

# By codec, the class that encodes its inputs where that is not a tokenizer: opened by `opened(folder, task)`.
ENCODERS = {"picture": "edgetune.tune.models.picture_encoder:PictureEncoder"}


@dataclass(frozen=True)
class Encoder:
    """A tokenizer with the longest input that a model takes, and the task whose inputs they are.

    `named_codec` is how inputs become arrays where it is not the task's own way.
    """

    tokenizer: Any
    max_tokens: int
    task: Task
    named_codec: str = field(default="", kw_only=True)

    reads_text: ClassVar[bool] = True

    @classmethod
    def of(cls, tuned: TunedModel) -> Encoder:
        """The encoder of a tuned model, from its folder."""
        return cls.of_folder(tuned.model_folder, tuned.max_tokens, TASKS[tuned.task], tuned.codec)

    @staticmethod
    def of_folder(folder: Path, max_tokens: int, task: Task, codec: str = "") -> Encoder:
        """The encoder that `save` wrote into a folder; `codec` where it is not the task's own."""
        if task.codec in ENCODERS:
            module, _, name = ENCODERS[task.codec].partition(":")
            opened: Encoder = getattr(importlib.import_module(module), name).opened(folder, task)
            return opened
        from transformers import AutoTokenizer

        return Encoder(AutoTokenizer.from_pretrained(folder), max_tokens, task, named_codec=codec)

    @property
    def codec(self) -> str:
        """How inputs become arrays, of `edgetune.serve.codecs`."""
        return self.named_codec or self.task.codec

    def by(self, codec: str) -> Encoder:
        """The same with another codec."""
        return replace(self, named_codec=codec)

    def save(self, folder: Path) -> None:
        """Write what `of_folder` opens."""
        self.tokenizer.save_pretrained(folder)

    def size(self, row: EncodedRow) -> int:
        """Of an encoded row, in tokens: what batches are sorted and bounded by."""
        return len(row["input_ids"])

    def training_rows(self, inputs: Sequence[Input]) -> list[EncodedRow]:
        """As `rows`, of inputs that are learnt from."""
        return self.rows(inputs)

    def begin_epoch(self, epoch: int) -> None:
        """What comes next is of this epoch."""
        return

    def collator(self) -> Callable[[list[EncodedRow]], Any]:
        """What makes a batch of labelled rows for the Trainer; where tokens are learnt their labels are padded too."""
        from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding

        kind = DataCollatorForTokenClassification if self.task.per_token else DataCollatorWithPadding
        collator: Callable[[list[EncodedRow]], Any] = kind(self.tokenizer)
        return collator

    def split(self, batch: EncodedRow, most_tokens: int) -> list[EncodedRow]:
        """Parts of a padded batch of at most so many tokens."""
        from edgetune.tune.training.batches import split_by_tokens

        return split_by_tokens(batch, most_tokens)

    def lengths(self, inputs: Sequence[Input]) -> tuple[NDArray[np.int64], int]:
        """Tokens of each input as if nothing were cut, (inputs,) int64, and how many of all are unknown."""
        encoded = self.task.encode(self.tokenizer, inputs, 1 << 30)["input_ids"]
        unknown = getattr(self.tokenizer, "unk_token_id", None)
        unknowns = sum(ids.count(unknown) for ids in encoded) if unknown is not None else 0
        return np.asarray([len(ids) for ids in encoded], dtype=np.int64), unknowns

    def example(self, inputs: Sequence[Input]) -> EncodedRow:
        """A batch to trace a model with: two rows of unlike length, since a dimension of one, or rows of equal length,
        would be frozen into the graph."""
        by_length = sorted(inputs, key=length)
        longer = each_text(lambda text: f"{text} and more", by_length[-1])
        return dict(self.pad(self.rows([by_length[len(by_length) // 4], longer])))

    def probes(self, inputs: Sequence[Input], most: int) -> list[Input]:
        """At most so many unlike inputs, spread evenly over the lengths, the shortest and the longest among them."""
        by_length = sorted(set(inputs), key=lambda text: (length(text), text))
        return spread_evenly(by_length, most)

    def rows(self, inputs: Sequence[Input]) -> list[EncodedRow]:
        """Each input by itself: input_ids, attention_mask [, token_type_ids], unpadded."""
        encoded = self.task.encode(self.tokenizer, inputs, self.max_tokens)
        names = [name for name in self.tokenizer.model_input_names if name in encoded]
        empty = {"input_ids": [self.tokenizer.pad_token_id], "attention_mask": [1], "token_type_ids": [0]}
        # Where a tokenizer adds no special tokens, a text without a token is read as one of padding, as at run time.
        return [{name: encoded[name][row] or empty[name] for name in names} for row in range(len(inputs))]

    def pad(self, rows: Sequence[Mapping[str, object]], tensors: str = "pt") -> BatchEncoding:
        """Rows as one batch, padded to the longest of them: arrays (rows, tokens) int64 by name."""
        return self.tokenizer.pad(list(rows), return_tensors=tensors)

    def blank(self, rows: int, tokens: int) -> BatchEncoding:
        """A batch of so many rows of so many tokens, to time a pass with."""
        import torch
        from transformers import BatchEncoding

        ones = torch.ones((rows, tokens), dtype=torch.int64)
        return BatchEncoding({"input_ids": ones, "attention_mask": ones})

    def library_batch(self, inputs: Sequence[Input]) -> BatchEncoding:
        """As `batch`, as a user of transformers makes it."""
        return self.batch(inputs)

    def batch(self, inputs: Sequence[Input]) -> BatchEncoding:
        """Inputs as one padded batch of torch tensors, by a single call of the tokenizer."""
        return self.task.encode(self.tokenizer, inputs, self.max_tokens, padding=True, tensors="pt")
