"""Parity: does the graph answer as the model, and the saved tokenizer as the training one? A gate, never a warning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs import open_codec
from edgetune.serve.errors import ParityError
from edgetune.serve.session import open_session
from edgetune.tune.data.rows import Input, length, shortened
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import length_batches

if TYPE_CHECKING:
    import onnxruntime
    from transformers import PreTrainedModel

# fp32 sums in another order; relative to the largest logit.
TOLERANCE = 1e-3


def check_graph(graph: Path, model: PreTrainedModel, encoder: Encoder, texts: Sequence[Input], provider: str) -> float:
    """Compare graph and model over ragged batches: names, then shapes, then values.

    Returns:
        The largest absolute logit difference.

    Raises:
        ParityError: listing all offenders with their largest difference.
    """
    import torch

    session = open_session(graph, provider=provider)
    names = [value.name for value in session.get_inputs()]
    rows = encoder.rows(texts)
    _check_names(session, set(rows[0]))
    expected, actual = [], []
    # Unsorted batches of 8 on purpose: ragged rows are where a mask that was lost shows.
    for start in range(0, len(rows), 8):
        batch = encoder.pad(rows[start : start + 8])
        with torch.inference_mode():
            expected.append(model(**batch).logits.float().numpy())
        actual.append(session.run(["logits"], {name: batch[name].numpy() for name in names})[0])
    return _check_values(np.concatenate(expected), np.concatenate(actual), texts)


def _check_names(session: onnxruntime.InferenceSession, given: set[str]) -> None:
    inputs = {value.name for value in session.get_inputs()}
    outputs = [(value.name, value.type) for value in session.get_outputs()]
    if not inputs <= given:
        raise ParityError(f"The graph wants inputs {sorted(inputs - given)}.", expected=f"only {sorted(given)}")
    if outputs != [("logits", "tensor(float)")]:
        raise ParityError(f"The graph's outputs are {outputs}.", expected="one, logits, float32")


def _check_values(expected: NDArray[np.float32], actual: NDArray[np.float32], texts: Sequence[Input]) -> float:
    if expected.shape != actual.shape:
        raise ParityError(f"The graph's logits have shape {actual.shape}.", expected=f"{expected.shape}")
    differences = np.abs(expected - actual).max(axis=1)
    allowed = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    offenders = np.flatnonzero(~(differences <= allowed))
    if len(offenders):
        worst = offenders[np.argsort(-differences[offenders])][:5]
        listed = "; ".join(f"{shortened(texts[row])[:40]!r}: {differences[row]:.4g}" for row in worst)
        raise ParityError(
            f"The graph answers {len(offenders)} of {len(texts)} texts differently from the model. Largest: {listed}.",
            expected=f"logits within {allowed:.4g}",
            action="report this with the base model's name; nothing was written to the output",
        )
    return float(differences.max())


def check_tokenizer(saved: Path, encoder: Encoder, texts: Sequence[Input]) -> None:
    """Compare the ids and type ids that the `tokenizers` library gives at run time with those of training.

    Raises:
        ParityError: naming the first texts that differ.
    """
    runtime = open_codec(encoder.task.codec, saved.parent, encoder.max_tokens)
    faults = []
    for indices in length_batches([length(text) for text in texts], 512):
        part = [texts[index] for index in indices]
        expected = encoder.rows(part)
        got = runtime.encode(part)
        faults += [
            text
            for text, row, encoded in zip(part, expected, got, strict=True)
            if row["input_ids"] != encoded.ids or row.get("token_type_ids", encoded.type_ids) != encoded.type_ids
        ]
    if faults:
        raise ParityError(
            f"The saved tokenizer gives other ids for {len(faults)} of {len(texts)} texts, such as "
            f"{shortened(faults[0])!r}.",
            expected="the ids of the training tokenizer",
        )
