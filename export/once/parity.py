"""Parity: does the graph answer as the model, and a text alone as beside longer ones? A gate, never a warning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs.padding import unpadded
from edgetune.serve.errors import ExportError, ParityError
from edgetune.serve.session import open_session, session_errors
from edgetune.tune.data.rows import Input, shortened
from edgetune.tune.models.encoder import Encoder

if TYPE_CHECKING:
    import onnxruntime
    from transformers import BatchEncoding, PreTrainedModel

# fp32 sums in another order; relative to the largest logit.
TOLERANCE = 1e-3
# Rows whose answer beside longer ones is compared with that alone.
_ALONE_ROWS = 24


def check_graph(
    graph: Path,
    model: PreTrainedModel,
    encoder: Encoder,
    texts: Sequence[Input],
    provider: str,
    *,
    output: str = "",
) -> float:
    """Compare graph and model over ragged batches: names, then shapes, then values; then rows padded with rows alone.

    Args:
        output: of a graph with several outputs, that of this model; "" for one with `logits` alone.

    Returns:
        The largest absolute logit difference.

    Raises:
        ExportError: the graph fails.
        ParityError: listing all offenders with their largest difference.
    """
    import torch

    session = open_session(graph, provider=provider)
    names = [value.name for value in session.get_inputs()]
    rows = encoder.rows(texts)
    _check_names(session, set(encoder.pad(rows[:1])), output)

    def run(batch: BatchEncoding) -> NDArray[np.float32]:
        try:
            logits: NDArray[np.float32] = session.run(
                [output or "logits"], {name: batch[name].numpy() for name in names}
            )[0]
        except session_errors() as error:
            raise ExportError(
                f"The graph of a {model.config.model_type!r} model fails in ONNX Runtime: {str(error).splitlines()[0]}",
                action="choose another --base; docs/tuning.md has a table of architectures",
            ) from error
        return logits

    expected: list[NDArray[np.float32]] = []
    actual: list[NDArray[np.float32]] = []
    # Unsorted batches of 8 on purpose: ragged rows are where a mask that was lost shows.
    for start in range(0, len(rows), 8):
        batch = encoder.pad(rows[start : start + 8])
        mask = batch.get("attention_mask")
        with torch.inference_mode():
            expected += unpadded(model(**batch).logits.float().numpy(), mask)
        actual += unpadded(run(batch), mask)
    difference = _check_values(expected, actual, texts)
    alone = [run(encoder.pad([row]))[0] for row in rows[:_ALONE_ROWS]]
    _check_padding(actual[: len(alone)], alone, texts, model.config.model_type)
    return difference


def row_differences(rows: Sequence[NDArray[np.float32]], others: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """The largest difference of each row, of arrays of one shape each."""
    return np.array([np.abs(one - other).max() for one, other in zip(rows, others, strict=True)])


def _check_padding(
    padded: Sequence[NDArray[np.float32]],
    alone: Sequence[NDArray[np.float32]],
    texts: Sequence[Input],
    model_type: str,
) -> None:
    """Refuse a graph that answers a text otherwise beside longer ones than alone: of each (width,)
    or (tokens, width)."""
    differences = row_differences(padded, alone)
    allowed = padding_allowed(alone)
    if not bool((differences <= allowed).all()):
        worst = int(differences.argmax())
        raise padding_fault(model_type, shortened(texts[worst]), float(differences[worst]), allowed)


def padding_allowed(alone: Sequence[NDArray[np.float32]]) -> float:
    """The largest difference that padding may make to rows of any shape: a share of how far their values lie apart."""
    spread = max(float(row.max()) for row in alone) - min(float(row.min()) for row in alone)
    return TOLERANCE * max(1e-2, spread)


def padding_fault(model_type: str, text: str, difference: float, allowed: float) -> ParityError:
    """The error of a model that reads its padding."""
    return ParityError(
        f"A {model_type!r} model answers a text otherwise beside longer ones than alone: {text!r} is off by "
        f"{difference:.4g}, since its padding is read in spite of the attention mask.",
        expected=f"the same answer, within {allowed:.2g}",
        action="choose another --base: answers would hang on what else is asked at the time",
    )


def _check_names(session: onnxruntime.InferenceSession, given: set[str], output: str) -> None:
    inputs = {value.name for value in session.get_inputs()}
    outputs = [(value.name, value.type) for value in session.get_outputs()]
    if not inputs <= given:
        raise ParityError(f"The graph wants inputs {sorted(inputs - given)}.", expected=f"only {sorted(given)}")
    if (output, "tensor(float)") in outputs:
        return
    if outputs != [("logits", "tensor(float)")]:
        expected = f"one, {output}, float32" if output else "one, logits, float32"
        raise ParityError(f"The graph's outputs are {outputs}.", expected=expected)


def _check_values(
    expected: Sequence[NDArray[np.float32]], actual: Sequence[NDArray[np.float32]], texts: Sequence[Input]
) -> float:
    for mine, theirs in zip(expected, actual, strict=True):
        if mine.shape != theirs.shape:
            raise ParityError(f"The graph's logits of a text have shape {theirs.shape}.", expected=f"{mine.shape}")
    differences = row_differences(expected, actual)
    allowed = TOLERANCE * max(1.0, *(float(np.abs(row).max()) for row in expected))
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
