"""The compression schemes: one file a scheme, one row in `SCHEMES`. Must not import onnx: the recipe reads it.

A scheme works on one of three levels. A weight-level scheme makes another model folder (fewer layers, fewer tokens),
which is exported anew; a graph-level scheme makes another graph of the same model; an artefact is a small model of its
own, learnt from the tuned one. A candidate comes by a *route*: any weight-level steps, then one graph-level scheme, as
in `student3+trimmed+int8_dynamic`; or an artefact alone, or before another route in a cascade.
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
    from edgetune.serve.engines.tables import StaticTables
    from edgetune.tune.models.model import TunedModel


@dataclass(frozen=True)
class Scheme:
    """A way to make a model smaller or faster.

    The scheme's module in this folder, of the same name, holds

    - `unsuitable(material) -> str`: why the scheme does not apply to this model, data and machine, in a sentence that
      starts with a small letter; empty where it applies. Cheap: `edgetune compress --plan` asks all of them.
    - graph level: `compress(graph, target, material) -> str` writes the new graph to `target` (a path) and returns a
      line saying how it was made. `graph` is the fused graph where fusing succeeded, else the exported one.
    - artefact level: `learn(material, folder)` learns a whole small model of its own and returns a value with its
      `tables` and `made_by`, that line; what other trials may use is kept beside `folder`. One with a tokenizer of its
      own writes `folder/model` (config and tokenizer), and is then no part of a cascade.
    - weight level: `strengths(material) -> Sequence[int]`, from gentle to harsh ((0,) where there is but one), and
      `compress(material, folder, strength) -> str`, which writes `folder/model/` (weights, config, tokenizer as tuning
      writes them) and returns that line.

    Attributes:
        name: as recipes name it, and its module.
        level: "weights", "graph" or "artefact".
        summary: what it does, one sentence.
        when: when it helps.
        cost: what it may cost.
        tolerance: largest logit difference allowed when a bundle's golden answers are replayed elsewhere,
            as a share of the spread of the logits.
        structural: whether it takes parts of the model away; the gate then rejects what it cannot prove.
        needs: instruction sets, as /proc/cpuinfo names them, of which a processor must have one to run the graph fast;
            none where any will do.
        neighbours: whether an answer may depend on what else is answered in the same batch.
        taught: whether the tuned model teaches it, by its answers to all texts.
        pictures: whether it applies to graphs of pictures too.
        turned: share of the answers that it is expected to turn, read off runs (docs/log.md); with it the search knows
            before minutes are spent whether the rows at hand could prove the candidate at all.
    """

    name: str
    level: Literal["weights", "graph", "artefact"]
    summary: str
    when: str
    cost: str
    tolerance: float = 0.001
    structural: bool = False
    turned: float = 0.0
    needs: tuple[str, ...] = ()
    neighbours: bool = False
    taught: bool = False
    pictures: bool = False

    def unsuitable(self, material: Material) -> str:
        """Why this scheme does not apply here; empty where it does."""
        if not material.reads_text and not self.pictures:
            return PICTURES_HAVE_NONE.get(self.name, "it works on tokens, and pictures have none")
        if material.several and self.level != "graph":
            return SEVERAL_HAVE_NONE[self.level]
        return str(self._module().unsuitable(material))

    def compress(self, graph: Path, folder: Path, material: Material, *, route: str = "") -> Candidate:
        """Graph level: make the candidate of this scheme from `graph` in `folder`; `route` names it where it is longer.

        Raises:
            CompressError: the scheme failed on this graph.
        """
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / "model.onnx"
        return Candidate.of(route or self.name, target, str(self._module().compress(graph, target, material)))

    def learn(self, material: Material, folder: Path) -> tuple[StaticTables, str]:
        """Artefact level: the tables of a small model, and a line saying how it was made.

        Raises:
            CompressError: the scheme failed on this data.
        """
        learnt = self._module().learn(material, folder)
        return learnt.tables, learnt.made_by

    def strengths(self, material: Material) -> Sequence[int]:
        """Weight level: the settings to try, from gentle to harsh."""
        strengths: Sequence[int] = self._module().strengths(material)
        return strengths

    def reshape(self, material: Material, folder: Path, strength: int) -> TunedModel:
        """Weight level: make another model in `folder`, described as a tuned model that has only `model/`.

        Raises:
            CompressError: the scheme failed on this model.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._module().compress(material, folder, strength)
        model = replace(material.model, folder=folder)
        model.save(folder)
        return model

    def _module(self) -> Any:
        return importlib.import_module(f"edgetune.compress.schemes.{self.name}")


# Why schemes do not apply to pictures that have another reason than tokens.
PICTURES_HAVE_NONE = {
    "int8_dynamic": "scales taken at run time destroy depthwise convolutions, and are slower than fixed ones",
    "weight_int8": "models of pictures are small, and not bound by reading their weights",
    "weight_int4": "models of pictures are small, and not bound by reading their weights",
    "student": "students of pictures are not learnt yet",
    "pruned": "models of pictures are not pruned yet",
}

# Why no scheme but those on graphs applies to several tasks on one encoder, by its level.
SEVERAL_HAVE_NONE = {
    "weights": "it makes another model of one task, and here several tasks share one",
    "artefact": "its small model answers one task, and here one pass answers several",
}

# What makes a product of int8 numbers cheaper than one of floats: VNNI and AMX, and the dot products of Arm.
_INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm")

# In order of promise, on each level.
SCHEMES: dict[str, Scheme] = {
    scheme.name: scheme
    for scheme in (
        Scheme(
            "fused",
            "graph",
            "The float graph in ONNX Runtime's fused operators: embedding with layer norm, attention, skip layer norm, "
            "bias with activation; what is constant is folded.",
            "always; every other scheme starts from it",
            "nothing: its logits are proven within 1e-4 of the exported graph's",
            pictures=True,
        ),
        Scheme(
            "int8_dynamic",
            "graph",
            "Weights in int8 per output channel, activations quantized to uint8 as they come.",
            "on processors with VNNI, AMX or dot-product instructions; a quarter of the size everywhere",
            "usually a few tenths of a point, and answers that depend on their neighbours in a batch",
            tolerance=0.05,
            turned=0.015,
            needs=_INT8_INSTRUCTIONS,
            neighbours=True,
        ),
        Scheme(
            "int8_static",
            "graph",
            "Weights in int8 per output channel, activations in uint8 with ranges fixed on training texts; inputs with "
            "outliers are balanced, sensitive layers stay in float.",
            "where int8_dynamic helps: as fast, often nearer to the float answers, and no answer depends on neighbours "
            "in a batch",
            "a calibration run; texts unlike the training ones may leave the ranges",
            pictures=True,
            tolerance=0.05,
            turned=0.015,
            needs=_INT8_INSTRUCTIONS,
        ),
        Scheme(
            "weight_int8",
            "graph",
            "Weights in 8 bits by blocks of 32, activations in float.",
            "for models that are bound by reading their weights, from 200 million parameters",
            "slower than int8_dynamic on small encoders",
            tolerance=0.05,
            turned=0.005,
        ),
        Scheme(
            "weight_int4",
            "graph",
            "Weights and tables in 4 bits by blocks of 32, activations in float.",
            "for models that are bound by reading their weights, from 200 million parameters",
            "up to a point; slower than int8_dynamic on small encoders",
            tolerance=0.1,
            turned=0.02,
        ),
        Scheme(
            "fp16",
            "graph",
            "Half precision; nodes that overflow on training texts stay in fp32.",
            "on a GPU",
            "hardly anything there; slower than fp32 on a CPU",
            tolerance=0.02,
            turned=0.002,
        ),
        Scheme(
            "bf16",
            "graph",
            "bfloat16: the range of fp32 with 8 bits of precision.",
            "on a GPU that has it, for models whose activations overflow fp16",
            "more rounding than fp16",
            tolerance=0.05,
            turned=0.005,
        ),
        Scheme(
            "fp32",
            "graph",
            "The graph as it was exported.",
            "when no other scheme keeps the answers",
            "nothing",
            pictures=True,
        ),
        Scheme(
            "trimmed",
            "weights",
            "The vocabulary cut to the tokens of the domain's texts, the special ones, and every single character.",
            "where the embedding table is a large part of the model: half of MiniLM, more of multilingual bases",
            "words never seen are split into shorter pieces; no text gets a new unknown token",
            turned=0.01,
        ),
        Scheme(
            "student",
            "weights",
            "Fewer layers: a student of some of the layers, taught by the tuned model on its texts and any without "
            "labels; fewer and fewer while the gate holds.",
            "on models of four layers and more; time for a text falls with every layer left out",
            "minutes of training a student; a few in a hundred answers turn",
            structural=True,
            turned=0.06,
            taught=True,
        ),
        Scheme(
            "pruned",
            "weights",
            "Fewer feed-forward columns: those that the loss feels least go, and the tuned model teaches what is left.",
            "where all layers are needed, so tried where no student passed; the feed-forward blocks are two thirds of "
            "a layer's products",
            "minutes of training; a few in a hundred answers turn",
            structural=True,
            turned=0.04,
            taught=True,
        ),
        Scheme(
            "static",
            "artefact",
            "A small model of its own instead of a graph: vectors of tokens and of neighbouring pairs, summed, and a "
            "linear head, taught by the tuned model on its texts, any without labels, and recombinations of them.",
            "where words tell the answer, as of intents and topics: tens of microseconds a text, without ONNX Runtime",
            "a point of 77 intents, several where word order or negation decides; the teacher answers all texts once",
            tolerance=0.001,
            structural=True,
            turned=0.08,
            taught=True,
        ),
        Scheme(
            "linear",
            "artefact",
            "A linear model of the tokens and neighbouring pairs of a text instead of a graph, learnt from the labels "
            "alone: a support vector machine a label, of numbers a ridge regression.",
            "where the report's linear model is as good as the bundle, and before a graph in a cascade",
            "several points where meaning decides; the pretrained model is not used at all",
            tolerance=0.001,
            structural=True,
            turned=0.1,
        ),
    )
}
