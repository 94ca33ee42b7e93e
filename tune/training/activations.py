"""The frozen trunk's activations, computed once and reused over the epochs.

Layers below the first trained one give the same states for a row in every epoch. They are computed once; while
training runs, the last of those layers answers with the stored states, and the others pass on what they get. All else
of the architecture (masks, relative positions, rotations) runs as it is, so nothing here knows an architecture.
Whether the answers stay the same is not assumed but measured, on the longest rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgetune.serve.cores import usable_memory_bytes
from edgetune.serve.errors import ModelError
from edgetune.tune.methods.freeze import after_layers, encoder_layers
from edgetune.tune.models.classifier import head_names
from edgetune.tune.models.forward import length_batches
from edgetune.tune.training.batches import FORWARD_FACTOR
from edgetune.tune.training.processes import process_count
from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edgetune.tune.models.types import Model

ROW = "row"  # the column that tells a batch's row numbers
MOST_SHARE = 0.125  # of the memory that this process may use
_FAITHFUL = {torch.float32: 1e-4, torch.bfloat16: 0.05}  # of the largest logit
_CHECKED_ROWS = 4


def frozen_layers(model: Model) -> list[nn.Module]:
    """The encoder's layers, from the bottom, in which and below which nothing is trained."""
    inside = model.get_base_model() if hasattr(model, "get_base_model") else model
    try:
        layers = encoder_layers(inside)
    except ModelError:
        return []
    above = [*map(inside.get_submodule, head_names(inside)), *after_layers(inside, layers[-1])]
    known = {id(weight) for module in (*layers, *above) for weight in module.parameters()}
    if any(weight.requires_grad and id(weight) not in known for weight in model.parameters()):
        return []  # embeddings are trained, or a projection behind them
    trained = [any(weight.requires_grad for weight in layer.parameters()) for layer in layers]
    return layers[: trained.index(True)] if any(trained) else layers


class StoredStates:
    """The states above the last frozen layer: all rows in one array without padding, (tokens, width)."""

    def __init__(self, lengths: Sequence[int], width: int, dtype: torch.dtype) -> None:
        self.starts = [0]
        for length in lengths:
            self.starts.append(self.starts[-1] + length)
        self.states = torch.empty(self.starts[-1], width, dtype=dtype)
        self._current: torch.Tensor | None = None

    def of(self, row: int) -> torch.Tensor:
        """A view of one row's states (tokens, width)."""
        return self.states[self.starts[row] : self.starts[row + 1]]

    def enter(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Make the batch's states the current ones; returns the batch without its row numbers."""
        mask = batch["attention_mask"].bool()
        # Padded positions are masked in every later layer; zeros keep them finite.
        states = torch.zeros(*mask.shape, self.states.shape[1])
        states[mask.cpu()] = torch.cat([self.of(row) for row in batch[ROW].tolist()]).float()
        self._current = states.to(mask.device)
        return {name: values for name, values in batch.items() if name != ROW}

    def current(self) -> torch.Tensor:
        """The states (rows, tokens, width) float32 of the batch that was entered last."""
        assert self._current is not None, "a batch is entered before it goes through the model"
        return self._current


@contextmanager
def stored_activations(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[dict[str, Any]],
    *,
    bf16: bool,
    pass_tokens: int,
    progress: Progress,
) -> Iterator[StoredStates | None]:
    """Compute what the frozen layers give for each row, and let them answer with it inside the block.

    Gives None, and leaves the model as it is, where no layer is frozen, where the states would take too much memory,
    where several processes train, and where the model does not answer the same with them; says so for all but the
    first. Batches inside the block go through `enter` first; their rows are numbered as in `rows`.
    """
    layers = frozen_layers(model)
    stored = _Store(model, tokenizer, bf16).fill(layers, rows, pass_tokens, progress) if layers else None
    if stored is None:
        yield None
        return
    with _answering(layers, *stored):
        yield stored[0]


class _Store:
    """Fills the states by one pass over the rows, if they may be stored and are faithful."""

    def __init__(self, model: Model, tokenizer: PreTrainedTokenizerBase, bf16: bool) -> None:
        self._model, self._tokenizer, self._bf16 = model, tokenizer, bf16
        self._dtype = torch.bfloat16 if bf16 else torch.float32

    def fill(
        self, layers: list[nn.Module], rows: Sequence[dict[str, Any]], pass_tokens: int, progress: Progress
    ) -> tuple[StoredStates, int] | None:
        """The states and the size of the tuple that a layer gives (0 for a bare tensor), or None with a word why."""
        lengths = [len(row["input_ids"]) for row in rows]
        refusal = self._refusal(sum(lengths))
        if refusal:
            progress.say(f"the frozen layers are run anew in each epoch: {refusal}")
            return None
        stored, seen = StoredStates(lengths, self._model.config.hidden_size, self._dtype), []
        hook = layers[-1].register_forward_hook(lambda _, __, output: seen.append(output))
        done = 0
        try:
            for batch in length_batches(lengths, 64, FORWARD_FACTOR * pass_tokens):
                seen.clear()
                inputs, _ = self._logits([rows[row] for row in batch])
                states = seen[-1][0] if isinstance(seen[-1], tuple) else seen[-1]
                if states.shape[:2] != inputs["attention_mask"].shape:  # XLNet's are (tokens, rows, width)
                    progress.say("the frozen layers are run anew in each epoch: their states are not row by row")
                    return None
                for place, row in enumerate(batch):
                    stored.of(row).copy_(states[place][inputs["attention_mask"][place].bool()])
                done += len(batch)
                progress.advance(done, len(rows), "frozen layers")
        finally:
            hook.remove()
        size = len(seen[-1]) if isinstance(seen[-1], tuple) else 0
        difference = self._difference(layers, stored, size, rows)
        if not difference <= _FAITHFUL[self._dtype]:
            progress.say(f"the frozen layers are run anew in each epoch: stored, logits are off by {difference:.1%}")
            return None
        return stored, size

    def _refusal(self, tokens: int) -> str | None:
        if process_count() > 1:
            return "several processes train"
        memory = usable_memory_bytes()
        needed = tokens * self._model.config.hidden_size * self._dtype.itemsize
        if memory is not None and needed > MOST_SHARE * memory:
            return f"their states would take {needed / 1e9:.1f} of {memory / 1e9:.1f} GB of memory"
        return None

    def _difference(
        self, layers: list[nn.Module], stored: StoredStates, size: int, rows: Sequence[dict[str, Any]]
    ) -> float:
        """The largest logit difference that the stored states make, relative to the largest logit."""
        checked = sorted(range(len(rows)), key=lambda row: len(rows[row]["input_ids"]))
        # The longest and the shortest together: padding is where stored states could go wrong.
        checked = [*checked[: _CHECKED_ROWS // 2], *checked[-_CHECKED_ROWS // 2 :]]
        _, expected = self._logits([rows[row] for row in checked])
        with _answering(layers, stored, size):
            _, logits = self._logits([{**rows[row], ROW: row} for row in checked], stored)
        return float((logits - expected).abs().max() / expected.abs().max().clamp(min=1e-6))

    def _logits(
        self, rows: Sequence[dict[str, Any]], stored: StoredStates | None = None
    ) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        """The padded batch, and its logits in evaluation mode."""
        device = next(self._model.parameters()).device
        unknown = (
            {"labels"} if stored else {"labels", ROW}
        )  # `enter` takes the row's number out, a model has no use for it
        kept = [{name: value for name, value in row.items() if name not in unknown} for row in rows]
        batch = dict(self._tokenizer.pad(kept, return_tensors="pt").to(device))
        batch = batch if stored is None else stored.enter(batch)
        self._model.eval()
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=self._bf16):
            return batch, self._model(**batch).logits.float()


@contextmanager
def _answering(layers: list[nn.Module], stored: StoredStates, tuple_size: int) -> Iterator[None]:
    """Let the last of the layers give the stored states and the others pass on, in the shape that each gave."""

    def shaped(states: torch.Tensor) -> Any:
        return states if tuple_size == 0 else (states, *[None] * (tuple_size - 1))

    for layer in layers:
        # Each takes arguments of its own behind the states; on the instance, so that weights and names stay.
        layer.forward = lambda states, *_, **__: shaped(states)
    layers[-1].forward = lambda *_, **__: shaped(stored.current())
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
