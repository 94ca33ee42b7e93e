"""One side of a race of language models: what its process is told. Needs the floor only."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from typing import Literal

import msgspec

from edgetune.benchmarks.timing.side import Side
from edgetune.serve.stepwise.spec import GenerationSpec
from edgetune.tune.data.rows import Input

Runtime = Literal["torch", "torch-static", "graph", "bundle", "genai", "llama.cpp"]


@dataclass(frozen=True)
class GenerationSide(Side):
    """A side that generates.

    Attributes:
        runtime: "torch" and "torch-static" run a Hugging Face folder eagerly in fp32, with a growing and with a
            preallocated cache; "graph" a decoder's folder in our own loop, "bundle" a bundle's as it is served; "genai"
            a folder with a genai_config.json, "llama.cpp" one with a model.gguf.
        spec: of a "graph".
        size_bytes: of the weights' files.
        most_batch: the largest batch it takes; None for any.
        tokenizes: whether its process opens the tokenizer too, as the other side's does.
    """

    runtime: Runtime = "graph"
    spec: GenerationSpec | None = None
    size_bytes: int | None = None
    most_batch: int | None = None
    tokenizes: bool = False

    def command(self, first: Input) -> list[str]:
        """The command line of its process, which answers the token ids `first` (JSON) with one token."""
        settings = {
            "runtime": self.runtime,
            "folder": str(self.folder),
            "spec": msgspec.to_builtins(self.spec),
            "threads": self.threads,
            "device": self.device,
            "tokenizes": self.tokenizes,
            "first": json.loads(str(first)),
        }
        return [sys.executable, "-m", "edgetune.benchmarks.stepwise.contestant", json.dumps(settings)]
