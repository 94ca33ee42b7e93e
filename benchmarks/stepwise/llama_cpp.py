"""llama.cpp beside the bundle, on the bundle's own levels as a GGUF file, where llama-cpp-python is installed.

Which engine is faster differs with the processor and the bits, so the report says it of the machine that built. Must
not import torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from edgetune.benchmarks.stepwise.race import weight_bytes
from edgetune.benchmarks.stepwise.side import GenerationSide, Runtime
from edgetune.export.layouts import gguf
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import EdgetuneError
from edgetune.serve.stepwise.report import OtherEngine
from edgetune.tune.training.progress import Progress

NAME: Runtime = "llama.cpp"


def llama_cpp_side(
    draft: Bundle, model_folder: Path, folder: Path, threads: int, progress: Progress
) -> GenerationSide | None:
    """The side that answers by llama.cpp, its file written into `folder`.

    Args:
        draft: the bundle whose levels the file has.
        model_folder: its merged model.
        folder: empty.
        threads: of the side.
        progress: told why there is none, unless llama-cpp-python is not installed.
    """
    if importlib.util.find_spec("llama_cpp") is None or draft.manifest.scheme == "fp32":
        return None
    if draft.manifest.generation is not None and draft.manifest.generation.first_caches:
        progress.say(f"{NAME} is not raced: it starts from an empty cache, without the virtual tokens of this model.")
        return None
    try:
        gguf.write_model(draft, model_folder, folder, "bundle")
    except EdgetuneError as error:
        progress.say(f"{NAME} is not raced: {error.found}")
        return None
    return GenerationSide(
        "bundle", folder, threads, runtime=NAME, size_bytes=weight_bytes(folder, ("*.gguf",)), most_batch=1
    )


def engine_notes(engines: Sequence[OtherEngine]) -> list[str]:
    """Which engine is faster here, a sentence for each."""
    notes = []
    for engine in engines:
        if engine.reason:
            notes.append(f"{engine.name} was not timed: {engine.reason}")
            continue
        if engine.tokens_per_second is None or engine.bundle_speedup is None:
            continue
        faster = "the bundle" if engine.bundle_speedup >= 1 else engine.name
        notes.append(
            f"On the same levels {engine.name} decodes {engine.tokens_per_second:,.0f} tokens a second, and the bundle "
            f"{engine.bundle_speedup:.2f} times as many: here {faster} is faster. "
            "`edgetune pack --layout gguf --weights bundle` writes its file."
        )
    return notes
