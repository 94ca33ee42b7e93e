"""A task, a method and a scheme as CONTRIBUTING tells how to add them: a file each and a row in a table."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import onnx
import pytest

from edgetune import tasks as roof
from edgetune.compress.schemes import SCHEMES, Scheme
from edgetune.serve.codecs import CODECS, CodecKind
from edgetune.serve.codecs.text import EncodedText, TextCodec
from edgetune.tune.methods import METHODS, Method
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.text_classification import TextClassification

MARK = "passphrase"  # split into pieces that stand in no toy sentence


def marked(text: Any) -> str:
    return f"{MARK} {text}"


class MarkedCodec(TextCodec):
    """Encodes at run time as the toy task does in training."""

    def encode(self, inputs: Sequence[Any]) -> list[EncodedText]:
        return super().encode([marked(text) for text in inputs])


class MarkedTexts(TextClassification):
    """One label for a text with a mark before it; knows whether it is encoding, and counts what it encoded."""

    name: ClassVar[str] = "marked-texts"
    summary: ClassVar[str] = "One label for a marked text."
    codec: ClassVar[str] = "marked-text"

    def __init__(self) -> None:
        self.is_encoding = False
        self.encoded = 0

    def encode(self, tokenizer: Any, inputs: Sequence[Any], max_tokens: int, **options: Any) -> Any:
        self.is_encoding = True
        try:
            return super().encode(tokenizer, [marked(text) for text in inputs], max_tokens, **options)
        finally:
            self.is_encoding = False
            self.encoded += len(inputs)


class MisfitTexts(MarkedTexts):
    """As `MarkedTexts`, with a codec that sets no marks."""

    name: ClassVar[str] = "misfit-texts"
    codec: ClassVar[str] = "text"


@dataclass
class BiasMethod:
    """A method that trains the biases and the head (BitFit, Ben Zaken et al. 2022); sees the model that it prepared."""

    name: ClassVar[str] = "bias"
    model: Any = None
    before: dict[str, Any] = field(default_factory=dict)

    def prepare(self, model: Any, recipe: Any) -> Any:
        for name, weight in model.named_parameters():
            weight.requires_grad_(name.endswith("bias") or name.startswith("classifier"))
        self.model = model
        self.before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        return model

    def moved(self) -> set[str]:
        """The names of the weights that training changed."""
        return {name for name, weight in self.model.named_parameters() if not weight.cpu().equal(self.before[name])}


class RoundedScheme:
    """A graph scheme that keeps three decimals of every weight."""

    name: ClassVar[str] = "rounded"

    def unsuitable(self, material: Any) -> str:
        return ""

    def compress(self, graph: Path, target: Path, material: Any) -> str:
        model = onnx.load(graph)
        for tensor in model.graph.initializer:
            if tensor.data_type == onnx.TensorProto.FLOAT:
                rounded = onnx.numpy_helper.to_array(tensor).round(3)
                tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, tensor.name))
        onnx.save(model, target)
        return "rounded by numpy"


@contextmanager
def registered(*tasks: MarkedTexts) -> Iterator[tuple[BiasMethod, RoundedScheme]]:
    """Rows for the toy kinds in the tables, and modules where the tables look for them."""
    # Their descriptions list the tables as they are at the first import: not with the toys, for tests to come.
    for recipes in ("edgetune.once.recipe", "edgetune.stepwise.recipe"):
        importlib.import_module(recipes)
    method, scheme = BiasMethod(), RoundedScheme()
    with pytest.MonkeyPatch.context() as patch:
        for task in tasks:
            patch.setitem(TASKS, task.name, task)
            patch.setitem(roof.TASKS, task.name, roof.Task(task.name, task.summary, task.family))
        patch.setitem(CODECS, MarkedTexts.codec, CodecKind("tests.toy_kinds:MarkedCodec", ("text",), "a marked text"))
        patch.setitem(METHODS, method.name, Method(method.name, "Biases and the head.", 1e-2, 1e-2))
        patch.setitem(SCHEMES, scheme.name, Scheme(scheme.name, "graph", "Three decimals.", "in tests", "a little"))
        for package, kind in (("tune.methods", method), ("compress.schemes", scheme)):
            module = ModuleType(f"edgetune.{package}.{kind.name}")
            for part in ("prepare", "unsuitable", "compress"):
                if hasattr(kind, part):
                    setattr(module, part, getattr(kind, part))
            patch.setitem(sys.modules, module.__name__, module)
        yield method, scheme
