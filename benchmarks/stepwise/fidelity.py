"""How far the decoder graph in fp32 lies from the tuned model in PyTorch: what export alone changed.

Apart from divergence.py, which holds graphs against graphs and must not import torch; scored alike, text by text.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from edgetune.benchmarks.stepwise.divergence import UNSCORED, Divergence, TextScore, text_score
from edgetune.benchmarks.stepwise.judged_rows import JudgedRows
from edgetune.compress.gptq.head import write_all_positions
from edgetune.compress.gptq.prefill import prefill_feed, starting_past
from edgetune.serve.errors import GateError
from edgetune.serve.session import open_session
from edgetune.serve.stepwise.spec import GenerationSpec
from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The two differ by rounding, on every row alike: more rows would cost a pass of PyTorch over them and say no more.
FIDELITY_ROWS = 100


def graph_fidelity(
    open_model: Callable[[], PreTrainedModel],
    graph: Path,
    rows: JudgedRows,
    *,
    spec: GenerationSpec,
    threads: int | None = None,
    seed: int = 0,
    progress: Progress,
) -> Divergence:
    """The graph beside the model that it was exported from, on at most `FIDELITY_ROWS` rows.

    Args:
        open_model: opens the tuned model in PyTorch, fp32.
        graph: its decoder graph in fp32.
        rows: that judge; each cut to the context.
        spec: how the graph is fed.
        threads: of a run of the graph; None takes the cores that this process may use.
        seed: draws the rows where there are more.
        progress: told how many rows were run.

    Raises:
        GateError: the graph gives logits that are not finite.
    """
    model = open_model().eval()
    drawn = rows.drawn(FIDELITY_ROWS, seed)
    pairs = list(zip(drawn.ids, drawn.labels, strict=True))
    scores: list[TextScore] = []
    with tempfile.TemporaryDirectory(prefix="edgetune-fidelity-") as scratch:
        opened = Path(scratch, "graph.onnx")
        write_all_positions(graph, opened)
        session = open_session(opened, provider="cpu", threads=threads, spinning=False)
        past = starting_past(graph, spec)
        for ids, labels in pairs:
            cut = ids[: spec.context_tokens]
            scored = np.asarray(labels[: spec.context_tokens]) != UNSCORED
            logits: NDArray[np.float32] = session.run(["logits"], prefill_feed(session, cut, spec, past))[0][0]
            if not np.isfinite(logits).all():
                raise GateError(f"The decoder graph gives logits that are not finite on a text of {len(cut)} tokens.")
            scores.append(text_score(_model_logits(model, cut), logits, np.asarray(cut), scored))
            progress.advance(len(scores), len(pairs), "graph against tuned model")
    return Divergence(tuple(scores))


def _model_logits(model: PreTrainedModel, ids: tuple[int, ...]) -> NDArray[np.float32]:
    """Logits (tokens, vocabulary) float32."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits
    values: NDArray[np.float32] = logits[0].float().numpy()
    return values
