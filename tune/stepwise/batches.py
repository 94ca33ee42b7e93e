"""Encoded rows as padded tensors: the one place where a batch of a language model is made.

Rows are padded on the right, where causal attention never sees them. Packed rows bring their own positions, which start
again at every sequence, and come without a mask: from such positions transformers makes the attention that keeps the
sequences apart.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

IGNORED = -100  # the label of a token without loss


def pad_rows(rows: Sequence[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """Tensors (rows, tokens) int64 of rows with `input_ids`, `labels` and, if they are packed, `position_ids`.

    Packed rows, all or none, get no `attention_mask`, and no loss at the first token of each of their sequences, which
    would be predicted from the sequence before.
    """
    lengths = torch.tensor([len(row["input_ids"]) for row in rows])
    batch = {
        "input_ids": _padded([row["input_ids"] for row in rows], 0),
        "labels": _padded([row["labels"] for row in rows], IGNORED),
    }
    if "position_ids" in rows[0]:
        positions = _padded([row["position_ids"] for row in rows], 0)
        batch["labels"] = batch["labels"].masked_fill(positions == 0, IGNORED)
        return {**batch, "position_ids": positions}
    columns = torch.arange(batch["input_ids"].shape[1])
    return {**batch, "attention_mask": (columns[None, :] < lengths[:, None]).long()}


def _padded(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    tensors = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)
