"""Running a torch model over many texts: batches sorted by length, results in the order of the inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from edgetune.serve.codecs.padding import unpadded
from edgetune.serve.errors import ModelError
from edgetune.tune.data.rows import Input
from edgetune.tune.models.classifier import head_linear
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.token_rows import assembled, token_texts, window_rows
from edgetune.tune.training.batches import FORWARD_FACTOR, PASS_TOKENS
from edgetune.tune.training.progress import Progress, Silent

if TYPE_CHECKING:
    from transformers import BatchEncoding

    from edgetune.tune.models.types import Model


def model_logits(
    model: Model,
    encoder: Encoder,
    inputs: Sequence[Input],
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """Logits (inputs, outputs) float32 of a model in evaluation mode.

    Of a task on tokens they are (inputs, tokens, 2 + outputs), as `edgetune.serve.token_outputs` has them.
    """
    if not encoder.task.per_token:
        return np.stack(row_logits(model, encoder, encoder.rows(inputs), batch_size=batch_size, progress=progress))
    texts = token_texts(encoder, inputs)
    rows = window_rows(encoder, texts)
    return assembled(texts, row_logits(model, encoder, rows, batch_size=batch_size, progress=progress))


def row_logits(
    model: Model,
    encoder: Encoder,
    rows: Sequence[dict[str, list[int]]],
    *,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> list[NDArray[np.float32]]:
    """Logits of encoded rows in order, each (outputs,), or (tokens, outputs) of a task on tokens."""

    def run(batch: BatchEncoding) -> torch.Tensor:
        return model(**batch).logits.float()

    return _run_sorted(run, model, encoder, rows, batch_size, progress or Silent())


def head_features(
    model: Model,
    encoder: Encoder,
    inputs: Sequence[Input],
    *,
    bf16: bool,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """What the last linear layer sees: (inputs, features) float32, whatever the architecture's head looks like.

    Raises:
        ModelError: it sees each token by itself.
    """
    return row_features(model, encoder, encoder.rows(inputs), bf16=bf16, batch_size=batch_size, progress=progress)


def row_features(
    model: Model,
    encoder: Encoder,
    rows: Sequence[dict[str, list[int]]],
    *,
    bf16: bool,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> NDArray[np.float32]:
    """As `head_features`, of inputs that are encoded already: input_ids, attention_mask [, token_type_ids], unpadded.

    Raises:
        ModelError: the last linear layer sees each token by itself.
    """
    return np.stack(seen_by_head(model, encoder, rows, bf16=bf16, batch_size=batch_size, progress=progress))


def seen_by_head(
    model: Model,
    encoder: Encoder,
    rows: Sequence[dict[str, list[int]]],
    *,
    bf16: bool,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[NDArray[np.float32]]:
    """As `row_features`, one array a row: (features,), or (tokens, features) of a task on tokens.

    Raises:
        ModelError: the last linear layer sees each token by itself, and the task is on none.
    """
    seen: list[torch.Tensor] = []
    _, linear = head_linear(model)
    hook = linear.register_forward_pre_hook(lambda _, given: seen.append(given[0].float()))

    def run(batch: BatchEncoding) -> torch.Tensor:
        seen.clear()
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            model(**batch)
        if seen[-1].ndim != (3 if encoder.task.per_token else 2):
            raise ModelError(
                f"The head of a {model.config.model_type!r} model gives logits to each token, of shape "
                f"{tuple(seen[-1].shape)} here, and not to the text.",
                expected="one vector a text before the last layer",
                action="choose how token states become one: --set tune.pooling=mean, last or cls",
            )
        return seen[-1]

    try:
        return _run_sorted(run, model, encoder, rows, batch_size, progress or Silent())
    finally:
        hook.remove()


def _run_sorted(
    run: Callable[[BatchEncoding], torch.Tensor],
    model: Model,
    encoder: Encoder,
    rows: Sequence[dict[str, list[int]]],
    batch_size: int,
    progress: Progress,
) -> list[NDArray[np.float32]]:
    results: dict[int, NDArray[np.float32]] = {}
    model.eval()
    with torch.inference_mode():
        most = FORWARD_FACTOR * PASS_TOKENS.get(model.device.type, PASS_TOKENS["cpu"])
        for indices in length_batches([encoder.size(row) for row in rows], batch_size, most):
            batch = encoder.pad([rows[index] for index in indices]).to(model.device)
            mask = batch.get("attention_mask")
            output = unpadded(run(batch).cpu().numpy(), None if mask is None else mask.cpu())
            results.update(zip(indices, output, strict=True))
            progress.advance(len(results), len(rows))
    return [results[index] for index in range(len(rows))]


def length_batches(lengths: Sequence[int], batch_size: int, most_tokens: int | None = None) -> Iterator[list[int]]:
    """Indices of batches of like lengths, shortest first, none with more than `most_tokens` unless it is one row."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    batch: list[int] = []
    for index in order:
        too_many = most_tokens is not None and (len(batch) + 1) * lengths[index] > most_tokens
        if batch and (len(batch) == batch_size or too_many):
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
