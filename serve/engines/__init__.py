"""Engines: what gives the outputs of encoded inputs. ONNX Runtime on a graph, or numpy on tables, one row here.

Must not import numpy at the top: the manifest is read without it.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from edgetune.serve.engines.spec import EngineSpec
from edgetune.serve.errors import BundleFormatError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgetune.serve.codecs.text import EncodedText

# Kind in the manifest: where its class is. A manifest without an engine is answered by ONNX Runtime.
ENGINES = {
    "static": "edgetune.serve.engines.static:StaticEngine",
}


class Engine(Protocol):
    """What gives outputs, from any thread at any time."""

    def logits(self, rows: Sequence[EncodedText]) -> NDArray[np.float32]:
        """Outputs of encoded inputs: (rows, width) float32, each as if it were alone.

        Raises:
            RunError: an id is none of the vocabulary's.
        """

    def known_tokens(self, row: EncodedText) -> int:
        """How many tokens of an input say anything to it, special ones not among them."""

    def contributions(self, row: EncodedText) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """What each token adds to the outputs, (tokens, width) float32, and each pair of neighbours, one row less."""

    def run(self, feed: Mapping[str, NDArray[np.int64]]) -> NDArray[np.float32]:
        """The same of padded inputs by name, each (rows, tokens) int64.

        Raises:
            RunError: as `logits`.
        """


def open_engine(spec: EngineSpec, folder: Path, width: int) -> Engine:
    """The engine that a manifest describes, on a bundle's folder; `width` is the number of outputs.

    Raises:
        BundleFormatError: this release has no such engine.
        BundleDamaged: its tensors do not lie in its file, or do not fit each other.
    """
    if spec.kind not in ENGINES:
        raise BundleFormatError(
            f"The bundle is answered by an engine of the kind {spec.kind!r}.",
            expected=f"one of {', '.join(ENGINES)}, or ONNX Runtime, which this edgetune has",
            action="install a newer edgetune",
        )
    module, _, kind = ENGINES[spec.kind].partition(":")
    return cast(Engine, getattr(importlib.import_module(module), kind)(spec, folder, width))
