"""Perplexity and token accuracy on encoded rows, over the answers' tokens alone, kept row by row.

The sums of each row are kept because two models are compared by pairs of them: the mean difference of paired rows has
a far narrower interval than the difference of two perplexities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from edgetune.serve.errors import DataError, ModelError
from edgetune.tune.models.forward import length_batches
from edgetune.tune.stepwise.batches import IGNORED, pad_rows
from edgetune.tune.training.progress import Progress, Silent

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model

# Floats of the logits of one pass: 512 MB, whatever the vocabulary.
_MOST_LOGITS = 1 << 27


@dataclass(frozen=True)
class Perplexity:
    """What a model thinks of rows, one entry a row.

    Attributes:
        losses: summed cross-entropy of the row's answer tokens in nats, (rows,) float64.
        tokens: answer tokens of the row, (rows,) int64.
        hits: answer tokens that were the model's first choice, (rows,) int64.
    """

    losses: NDArray[np.float64]
    tokens: NDArray[np.int64]
    hits: NDArray[np.int64]

    @property
    def loss(self) -> float:
        """Mean cross-entropy of a token in nats."""
        return float(self.losses.sum() / self.tokens.sum())

    @property
    def value(self) -> float:
        """The perplexity: e to the power of the loss."""
        return math.exp(min(self.loss, 700.0))  # the largest that a float holds is about e to the 709

    @property
    def token_accuracy(self) -> float:
        """Share of answer tokens that were the model's first choice."""
        return float(self.hits.sum() / self.tokens.sum())

    def save(self, path: Path) -> None:
        """Write the sums of each row as .npz."""
        np.savez(path, losses=self.losses, tokens=self.tokens, hits=self.hits)

    @classmethod
    def load(cls, path: Path) -> Perplexity:
        """Read what `save` wrote."""
        with np.load(path) as stored:
            return cls(stored["losses"], stored["tokens"], stored["hits"])


def measure_perplexity(
    model: Model, rows: Sequence[dict[str, list[int]]], *, progress: Progress | None = None
) -> Perplexity:
    """Run a causal language model over encoded rows, in evaluation mode, on the device where it is.

    Args:
        model: maps input_ids (batch, tokens) int64 to logits (batch, tokens, vocabulary).
        rows: `input_ids`, `labels` (-100 where no loss is wanted) and, if packed, `position_ids`.

    Raises:
        DataError: the rows hold no answer token.
        ModelError: a loss is no number.
    """
    progress = progress or Silent()
    losses, tokens, hits = np.zeros(len(rows)), np.zeros(len(rows), np.int64), np.zeros(len(rows), np.int64)
    most = max(1, _MOST_LOGITS // int(model.config.get_text_config().vocab_size))
    done = 0
    model.eval()
    with torch.inference_mode():
        for indices in length_batches([len(row["input_ids"]) for row in rows], 32, most):
            batch = pad_rows([rows[index] for index in indices])
            losses[indices], tokens[indices], hits[indices] = _sums(model, batch)
            done += len(indices)
            progress.advance(done, len(rows), "perplexity")
    if tokens.sum() == 0:
        raise DataError(
            f"None of the {len(rows)} rows has an answer token to measure.",
            expected="labels other than -100",
            action="raise max_tokens, or look at rows whose answers are empty or cut away",
        )
    if not np.isfinite(losses).all():
        bad = np.flatnonzero(~np.isfinite(losses))
        raise ModelError(
            f"The model answers with logits that are no numbers: {len(bad)} of {len(rows)} rows, first row {bad[0]}.",
            expected="finite logits",
        )
    return Perplexity(losses, tokens, hits)


def _sums(
    model: Model, batch: dict[str, torch.Tensor]
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    labels = batch.pop("labels")[:, 1:]
    logits = model(**{name: values.to(model.device) for name, values in batch.items()}, use_cache=False).logits
    known = labels != IGNORED
    targets = labels[known].to(model.device)
    chosen = logits[:, :-1][known.to(model.device)].float()  # (answer tokens, vocabulary)
    rows = known.nonzero()[:, 0].to(model.device)
    losses = torch.nn.functional.cross_entropy(chosen, targets, reduction="none").double()
    hits = (chosen.argmax(dim=-1) == targets).long()
    zero = torch.zeros(len(labels), device=model.device)
    return (
        zero.double().index_add(0, rows, losses).cpu().numpy(),
        known.sum(dim=1).numpy(),
        zero.long().index_add(0, rows, hits).cpu().numpy(),
    )
