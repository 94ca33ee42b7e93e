"""The export stage: tokenizer proven, graph made, graph proven; nothing is kept of a model that fails."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from edgetune.export.once.encoding import check_encoding
from edgetune.export.once.graph import Graph, count_nodes, export_graph
from edgetune.export.once.parity import check_graph
from edgetune.serve.errors import BundleDamaged, ExportError
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.data.rows import Input, filling, length
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.model import TunedModel, open_model
from edgetune.tune.training.progress import Progress

PARITY_ROWS = 128


def export(tuned: TunedModel, dataset: Dataset, provider: str, folder: Path, progress: Progress) -> Graph:
    """Export the merged model into `folder` and prove graph and tokenizer on the test part.

    Raises:
        ExportError: the architecture has no graph.
        ParityError: graph or tokenizer answer differently.
    """
    encoder = Encoder.of(tuned)
    texts = dataset.test.texts
    progress.say(check_encoding(tuned.model_folder, encoder, texts))
    picked = spread_texts(texts, encoder.max_tokens) if encoder.reads_text else encoder.probes(texts, PARITY_ROWS)
    model = open_model(tuned.model_folder)

    def proven(*, fused: bool) -> Graph:
        path = export_graph(tuned, texts, provider, folder, fused=fused)
        difference = check_graph(path, model, encoder, picked, provider)
        return Graph(path, count_nodes(path), difference, fused)

    try:
        graph = proven(fused=True)
    except (ExportError, BundleDamaged) as error:  # the latter: ONNX Runtime does not open the graph
        progress.say(f"graph: {error.found} It is made again without fusions, which answers slower.")
        graph = proven(fused=False)
    graph.save(folder)
    progress.say(f"graph: logits within {graph.max_abs_diff:.1e} of the model's on {len(picked)} texts")
    return graph


def spread_texts(texts: tuple[Input, ...], tokens: int) -> list[Input]:
    """Texts for parity: every length from shortest to longest, in an order that leaves batches ragged."""
    by_length = sorted(texts, key=length)
    places = np.linspace(0, len(by_length) - 1, min(PARITY_ROWS, len(by_length))).round().astype(int)
    picked = [by_length[place] for place in dict.fromkeys(places.tolist())]
    # The longest text the model takes, so that the last position is proven too.
    return [*picked[::2], *picked[1::2], filling(by_length[-40:] * 8, tokens)]
