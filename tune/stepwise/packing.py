"""Several short rows in one sequence, none of which sees another.

transformers (5.23, `masking_utils`) tells packed rows apart by positions that start again at 0, and only where neither
an attention mask nor a cache is given. Whether a model's attention honours that is shown on the model itself.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch

from edgetune.serve.errors import ModelError
from edgetune.tune.stepwise.batches import IGNORED, pad_rows
from edgetune.tune.stepwise.traces import EncodedRow

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model

# Of the largest logit. What orders of summing leave is far less, what another row's tokens do far more.
PACKING_TOLERANCE = 1e-3
ROUNDINGS = 8  # in a dtype whose own rounding is coarser, so many of those


# Rows one after another: input_ids, labels and position_ids, which start again at 0 with each; a value a token.
PackedRow = dict[str, list[int]]


def pack(rows: Sequence[EncodedRow], max_tokens: int) -> list[PackedRow]:
    """Rows in as few sequences of at most `max_tokens` as best fit decreasing finds; the same rows give the same.

    The longest rows are placed first, each into the fullest sequence that has room for it (Johnson 1974: at most 11/9
    of the fewest possible). A row keeps its order and wholeness.

    Raises:
        ValueError: a row is longer than `max_tokens`.
    """
    bins: list[list[EncodedRow]] = []
    room: list[tuple[int, int]] = []  # (tokens left, bin), ascending
    for row in sorted(rows, key=lambda row: -len(row["input_ids"])):
        tokens = len(row["input_ids"])
        if tokens > max_tokens:
            raise ValueError(f"a row of {tokens} tokens does not fit into {max_tokens}")
        place = bisect_left(room, (tokens, -1))
        if place == len(room):
            bins.append([row])
            insort(room, (max_tokens - tokens, len(bins) - 1))
        else:
            left, number = room.pop(place)
            bins[number].append(row)
            insort(room, (left - tokens, number))
    return [_packed(chosen) for chosen in bins]


def _packed(rows: Sequence[EncodedRow]) -> PackedRow:
    # The last token of one row must not learn the first of the next.
    labels = [label for row in rows for label in (IGNORED, *row["labels"][1:])]
    ids = [token for row in rows for token in row["input_ids"]]
    positions = [place for row in rows for place in range(len(row["input_ids"]))]
    return {"input_ids": ids, "labels": labels, "position_ids": positions}


def check_packing(model: Model, rows: Sequence[EncodedRow]) -> float:
    """The largest difference of the logits of packed rows from those of the same rows alone.

    Args:
        model: a causal transformers model; it is left in the mode that it was in.
        rows: two at least, of any length; a few are enough.

    Raises:
        ModelError: rows see each other when packed.
        ValueError: there are fewer than two rows.
    """
    if len(rows) < 2:
        raise ValueError("packing needs two rows to show that they do not see each other")
    together = _packed(rows)
    # A shorter second sequence, so that the batch has padding too.
    batch = pad_rows([together, _packed(rows[1:])])
    trains = model.training
    model.eval()
    try:
        with torch.inference_mode():
            packed = _logits(model, batch)
            alone = [_logits(model, pad_rows([row]))[0] for row in rows]
    finally:
        model.train(trains)
    borders = list(pairwise(accumulate((len(row["input_ids"]) for row in rows), initial=0)))
    pieces = [packed[0, start:end] for start, end in borders]
    pieces += [packed[1, start - borders[0][1] : end - borders[0][1]] for start, end in borders[1:]]
    differences = [
        float((piece - other).abs().max()) for piece, other in zip(pieces, [*alone, *alone[1:]], strict=True)
    ]
    worst, scale = max(differences), max(float(one.abs().max()) for one in alone)
    tolerance = max(PACKING_TOLERANCE, ROUNDINGS * torch.finfo(model.dtype).eps)
    if not worst <= tolerance * max(scale, 1.0):
        raise ModelError(
            f"Packed rows of this model see each other: the logits of a packed row differ by {worst:.2g} from those "
            f"of the row alone, with the attention {model.config._attn_implementation!r}.",
            expected=f"at most {tolerance:.2g} of the largest logit, {scale:.2g}.",
            action="set data.packing to false, or open the model with the attention 'sdpa'.",
        )
    return worst


def _logits(model: Model, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    device = next(model.parameters()).device
    inputs = {name: values.to(device) for name, values in batch.items() if name != "labels"}
    # With a cache transformers would no longer look for packed rows.
    logits: torch.Tensor = model(**inputs, use_cache=False).logits.float().cpu()
    return logits
