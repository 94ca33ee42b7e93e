"""The compression schemes: one file a scheme, one row in `SCHEMES`. Must not import onnx: the recipe reads it.

A scheme works on one of two levels. A weight-level scheme makes another model folder (fewer layers, fewer tokens),
which is exported anew; a graph-level scheme makes another graph of the same model. A candidate comes by a *route*:
any weight-level steps, then one graph-level scheme, such as `student3+trimmed+int8_dynamic`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgetune.compress.candidate import Candidate

if TYPE_CHECKING:
    from edgetune.compress.material import Material
    from edgetune.tune.model import TunedModel


@dataclass(frozen=True)
class Scheme:
    """A way to make a model smaller or faster.

    The scheme's module in this folder, of the same name, holds

    - `unsuitable(material) -> str`: why the scheme does not apply to this model, data and machine, in a sentence that
      starts with a small letter; empty where it applies. Cheap: `edgetune compress --plan` asks all of them.
    - graph level: `compress(graph, target, material) -> str` writes the new graph to `target` (a path) and returns a
      line saying how it was made. `graph` is the fused graph where fusing succeeded, else the exported one.
    - weight level: `strengths(material) -> Sequence[int]`, from gentle to harsh ((0,) where there is but one), and
      `compress(material, folder, strength) -> str`, which writes `folder/model/` (weights, config, tokenizer as tuning
      writes them) and returns that line.

    Attributes:
        name: as recipes name it, and its module.
        level: "weights" or "graph".
        summary: what it does, one sentence.
        when: when it helps.
        cost: what it may cost.
        tolerance: largest logit difference allowed when a bundle's golden answers are replayed elsewhere,
            as a share of the spread of the logits.
        structural: whether it takes parts of the model away; the gate then rejects what it cannot prove.
    """

    name: str
    level: Literal["weights", "graph"]
    summary: str
    when: str
    cost: str
    tolerance: float = 0.001
    structural: bool = False

    def unsuitable(self, material: Material) -> str:
        """Why this scheme does not apply here; empty where it does."""
        return str(self._module().unsuitable(material))

    def compress(self, graph: Path, folder: Path, material: Material) -> Candidate:
        """Graph level: make the candidate of this scheme from `graph` in `folder`.

        Raises:
            CompressError: the scheme failed on this graph.
        """
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "model.onnx"
        return Candidate.of(self.name, target, str(self._module().compress(graph, target, material)))

    def strengths(self, material: Material) -> Sequence[int]:
        """Weight level: the settings to try, from gentle to harsh."""
        found: Sequence[int] = self._module().strengths(material)
        return found

    def reshape(self, material: Material, folder: Path, strength: int) -> TunedModel:
        """Weight level: make another model in `folder`, described as a tuned model that has only `model/`.

        Raises:
            CompressError: the scheme failed on this model.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._module().compress(material, folder, strength)
        model = replace(material.model, folder=folder)
        model.save()
        return model

    def _module(self) -> Any:
        return importlib.import_module(f"edgetune.compress.schemes.{self.name}")


# In order of promise.
SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "int8_dynamic",
            "graph",
            "Weights in int8 per output channel, activations quantized to uint8 as they come.",
            "on processors with VNNI, AMX or dot-product instructions; a quarter of the size everywhere",
            "usually a few tenths of a point; nothing to calibrate",
            tolerance=0.05,
        ),
        Scheme(
            "fp32",
            "graph",
            "The graph as it was exported.",
            "when no other scheme keeps the answers",
            "nothing",
        ),
    )
}


def chosen_schemes(names: list[str] | str) -> list[Scheme]:
    """The schemes a recipe names, or all in order of promise for "auto"; fp32 always stands last, to fall back on."""
    if isinstance(names, str):
        return list(SCHEMES.values())
    picked = [SCHEMES[name] for name in names]
    return picked if SCHEMES["fp32"] in picked else [*picked, SCHEMES["fp32"]]
