"""The compression schemes: one file a scheme, one row in `SCHEMES`. Must not import onnx: the recipe reads it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from edgetune.compress.candidate import Candidate

Compress = Callable[[Path, Path], str]


@dataclass(frozen=True)
class Scheme:
    """A way to make a graph smaller or faster.

    Attributes:
        name: as recipes name it, and the module in this folder that holds its `compress(graph, target)`,
            which writes the new graph to `target` and returns a line saying how it was made.
        summary: what it does, one sentence.
        when: when it helps.
        cost: what it may cost.
        tolerance: largest logit difference allowed when a bundle's golden answers are replayed elsewhere,
            as a share of the spread of the logits.
    """

    name: str
    summary: str
    when: str
    cost: str
    tolerance: float

    def compress(self, graph: Path, folder: Path) -> Candidate:
        """Make the candidate of this scheme from `graph` in `folder`.

        Raises:
            CompressError: the scheme failed on this graph.
        """
        module = importlib.import_module(f"edgetune.compress.schemes.{self.name}")
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "model.onnx"
        return Candidate.of(self.name, target, cast(Compress, module.compress)(graph, target))


# In order of promise: the gate tries them from the top, and the first that passes is packed.
SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "int8_dynamic",
            "Weights in int8 per output channel, activations quantized to uint8 as they come.",
            "on processors with VNNI, AMX or dot-product instructions; a quarter of the size everywhere",
            "usually a few tenths of a point; nothing to calibrate",
            tolerance=0.05,
        ),
        Scheme(
            "fp32",
            "The graph as it was exported.",
            "when no other scheme keeps the answers",
            "nothing",
            tolerance=0.001,
        ),
    )
}


def chosen_schemes(names: list[str] | str) -> list[Scheme]:
    """The schemes a recipe names, or all in order of promise for "auto"; fp32 always stands last, to fall back on."""
    if isinstance(names, str):
        return list(SCHEMES.values())
    picked = [SCHEMES[name] for name in names]
    return picked if SCHEMES["fp32"] in picked else [*picked, SCHEMES["fp32"]]
