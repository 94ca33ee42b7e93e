"""Training texts as food for a graph: which texts, how they are fed, what the graph answers and what flows inside it.

Texts of one length go together and none is padded, so no padding token enters a range that is measured here.
Imports onnxruntime and transformers when called.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.tune.data.rows import Input, length

if TYPE_CHECKING:
    from edgetune.compress.material import Material

MOST_CALIBRATION_TEXTS = 256
MOST_HELD_BACK_TEXTS = 128
# Of one feed: a text of 512 tokens goes alone, since all values between the nodes may be held at once.
_MOST_TOKENS, _MOST_PICTURES = 512, 8

Feed = dict[str, NDArray[np.int64]]
FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Calibration:
    """Feeds of a graph, made of training texts alone.

    Attributes:
        texts: what ranges are measured on; each feed holds texts of one length: (batch, tokens) int64.
        held_back: what choices between settings are made on; no text of it is in `texts` unless there is but one.
    """

    texts: tuple[Feed, ...]
    held_back: tuple[Feed, ...]


def pick_texts(texts: Sequence[Input], most: int) -> list[Input]:
    """At most `most` unlike texts, evenly spread over the lengths, the shortest and the longest among them."""
    by_length = sorted(set(texts), key=lambda text: (length(text), text))
    places = np.linspace(0, len(by_length) - 1, min(most, len(by_length))).round().astype(int)
    return [by_length[place] for place in dict.fromkeys(places.tolist())]


def calibration(material: Material, graph: Path) -> Calibration:
    """Feeds for `graph` from the training part: two of three picked texts to measure on, the third held back."""
    picked = material.encoder.probes(material.train.texts, MOST_CALIBRATION_TEXTS + MOST_HELD_BACK_TEXTS)
    held_back = picked[1::3] or picked
    # The longest and the shortest text stay where ranges are measured.
    texts = [text for place, text in enumerate(picked) if place % 3 != 1]
    names = input_names(graph)
    return Calibration(_feeds(material, texts, names), _feeds(material, held_back, names))


def input_names(graph: Path) -> list[str]:
    """Names of the inputs of a graph, in its order."""
    import onnx

    return [value.name for value in onnx.load(str(graph), load_external_data=False).graph.input]


def _feeds(material: Material, texts: Sequence[Input], names: Sequence[str]) -> tuple[Feed, ...]:
    encoder = material.encoder
    rows = encoder.rows(texts)
    if not encoder.reads_text:
        starts = range(0, len(rows), _MOST_PICTURES)
        batches = [encoder.pad(rows[start : start + _MOST_PICTURES], "np") for start in starts]
        return tuple({name: batch[name] for name in names} for batch in batches)
    by_length: dict[int, list[dict[str, list[int]]]] = {}
    for row in rows:
        by_length.setdefault(len(row["input_ids"]), []).append(row)
    feeds: list[Feed] = []
    for tokens, group in sorted(by_length.items()):
        size = max(1, _MOST_TOKENS // tokens)
        batches = [group[start : start + size] for start in range(0, len(group), size)]
        feeds += [{name: np.array([row[name] for row in batch], np.int64) for name in names} for batch in batches]
    return tuple(feeds)


def answers(graph: Path, feeds: Sequence[Feed]) -> tuple[FloatArray, ...]:
    """What the graph answers on the CPU, an array an output: logits (texts, labels) float32, in the order of the feeds;
    of a head on each token (tokens, labels), those of all texts."""
    from edgetune.serve.session import open_session

    session = open_session(graph, provider="cpu")
    runs = [session.run(None, feed) for feed in feeds]
    return tuple(
        np.concatenate([output.astype(np.float32).reshape(-1, output.shape[-1]) for output in of_all])
        for of_all in zip(*runs, strict=True)
    )


def distance(expected: Sequence[FloatArray], actual: Sequence[FloatArray]) -> float:
    """Mean squared logit difference as a share of the variance of the expected logits, on average over outputs;
    infinite where not finite."""
    return float(np.mean([_distance(mine, theirs) for mine, theirs in zip(expected, actual, strict=True)]))


def _distance(expected: FloatArray, actual: FloatArray) -> float:
    if not np.isfinite(actual).all():
        return float("inf")
    spread = float(np.var(expected.astype(np.float64))) or 1.0
    return float(np.mean((expected.astype(np.float64) - actual) ** 2)) / spread


def observe(
    graph: Path, names: Sequence[str], feeds: Sequence[Feed], scratch: Path
) -> Iterator[dict[str, NDArray[Any]]]:
    """The values that flow under `names` inside a graph, one dict a feed.

    Args:
        graph: the ONNX file.
        names: of values that its nodes make.
        feeds: what it is run on.
        scratch: where the graph that shows those values is written.
    """
    import onnx

    from edgetune.serve.session import open_session

    model = onnx.load(str(graph))
    shown = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in shown)
    onnx.save(model, str(scratch))
    del model
    session = open_session(scratch, provider="cpu")
    for feed in feeds:
        yield dict(zip(names, session.run(list(names), feed), strict=True))
