"""Parity of two graphs of one model: the same logits over ragged batches, the shortest and the longest texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.serve.codecs.padding import unpadded
from edgetune.serve.errors import CompressError
from edgetune.serve.session import open_session
from edgetune.tune.data.rows import Input, each_text, filling, length
from edgetune.tune.models.encoder import Encoder

# Of the largest logit, or of 1 where all are smaller: fp32 sums in another order.
TOLERANCE = 1e-4
_TEXTS = 48
_BATCH_ROWS = 8


def check_parity(given: Path, made: Path, encoder: Encoder, texts: Sequence[Input], *, provider: str = "cpu") -> float:
    """Compare the logits of two graphs.

    Args:
        given: the graph that is right.
        made: the graph that was made of it; it may take fewer inputs.
        encoder: as training used it.
        texts: some are picked, from the shortest to the longest, and one as long as the model takes is made of them.

    Returns:
        The largest difference, as a share of the largest logit or of 1, whichever is larger.

    Raises:
        CompressError: it is above `TOLERANCE`, or a logit is no number.
    """
    picked = _picked(texts, encoder.max_tokens) if encoder.reads_text else encoder.probes(texts, _TEXTS)
    rows = encoder.rows(picked)
    sessions = [open_session(path, provider=provider) for path in (given, made)]
    expected: list[NDArray[np.float32]] = []
    actual: list[NDArray[np.float32]] = []
    for start in range(0, len(rows), _BATCH_ROWS):
        batch = encoder.pad(rows[start : start + _BATCH_ROWS], "np")
        for session, logits in zip(sessions, (expected, actual), strict=True):
            names = [value.name for value in session.get_inputs()]
            # Of several tasks all outputs.
            for outputs in session.run(None, {name: _exact(batch[name]) for name in names}):
                logits += [row.ravel() for row in unpadded(outputs, batch.get("attention_mask"))]
    difference = relative_difference(np.concatenate(expected), np.concatenate(actual))
    if not difference <= TOLERANCE:
        raise CompressError(
            f"The fused graph's logits differ from the given graph's by {difference:.1e} of the largest logit.",
            expected=f"at most {TOLERANCE:g}",
            action="leave the scheme out: the graph as it was exported answers right",
        )
    return difference


def _exact(values: NDArray[Any]) -> NDArray[Any]:
    """Ids as int64; what pictures are made of as it is."""
    return values if np.issubdtype(values.dtype, np.floating) else values.astype(np.int64)


def relative_difference(expected: NDArray[np.float32], actual: NDArray[np.float32]) -> float:
    """Largest difference of two arrays of logits, as a share of max(1, largest logit); nan where one is no number."""
    return float(np.abs(expected - actual).max() / max(1.0, float(np.abs(expected).max())))


def _picked(texts: Sequence[Input], tokens: int) -> list[Input]:
    """Every length from shortest to longest in an order that leaves batches ragged, an empty text, and the longest."""
    by_length = sorted(texts, key=length)
    places = np.linspace(0, len(by_length) - 1, min(_TEXTS, len(by_length))).round().astype(int)
    picked = [by_length[place] for place in dict.fromkeys(places.tolist())]
    empty = each_text(lambda _: "", picked[0])
    return [*picked[::2], empty, *picked[1::2], filling(by_length[-40:] * 16, tokens)]
