"""The floor: opens a bundle and answers, with numpy, onnxruntime and tokenizers alone.

>>> from edgetune.serve import load
>>> load("bundles/banking77").predict(["card still has not arrived"])

and in an async server, where concurrent calls are joined into runs:

>>> predictor = load("bundles/banking77")  # once, at the start
>>> answer = await predictor.predict_one_async("card still has not arrived")  # in each request
>>> predictor.close()  # at the end

A bundle of a language model:

>>> from edgetune.serve import Generator
>>> for piece in Generator.open("bundles/stories").stream("Once upon a time"):
...     print(piece.text, end="")

Must never import torch, transformers, onnx or another folder of edgetune.
"""

from typing import TYPE_CHECKING

from edgetune.serve.bundle import Bundle, Manifest
from edgetune.serve.errors import EdgetuneError

if TYPE_CHECKING:
    from edgetune.serve.heads.embedding import EmbeddingPrediction
    from edgetune.serve.heads.entities import EntitiesPrediction, Entity
    from edgetune.serve.heads.label import Prediction
    from edgetune.serve.heads.labels import LabelsPrediction
    from edgetune.serve.heads.number import NumberPrediction
    from edgetune.serve.loading import load
    from edgetune.serve.predictor import Predictor
    from edgetune.serve.stepwise.generator import Generator
    from edgetune.serve.stepwise.sampling import Sampling

__all__ = [
    "Bundle",
    "EdgetuneError",
    "EmbeddingPrediction",
    "EntitiesPrediction",
    "Entity",
    "Generator",
    "LabelsPrediction",
    "Manifest",
    "NumberPrediction",
    "Prediction",
    "Predictor",
    "Sampling",
    "load",
]

_LAZY = {
    "EmbeddingPrediction": "heads.embedding",
    "EntitiesPrediction": "heads.entities",
    "Entity": "heads.entities",
    "Generator": "stepwise.generator",
    "LabelsPrediction": "heads.labels",
    "NumberPrediction": "heads.number",
    "Prediction": "heads.label",
    "Predictor": "predictor",
    "Sampling": "stepwise.sampling",
    "load": "loading",
}


def __getattr__(name: str) -> object:
    # The errors and the format must open without numpy and ONNX Runtime: `edgetune --help` and `inspect` do.
    if name not in _LAZY:
        raise AttributeError(f"module 'edgetune.serve' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"edgetune.serve.{_LAZY[name]}"), name)
