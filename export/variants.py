"""Further graphs of one model in its bundle: each with golden answers of its own, under names of its own.

The main graph stays `model.onnx`, so that readers that know of no variants open the folder as they always did.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from edgetune.serve.bundle import (
    CONFIG_NAME,
    GOLDEN_NAME,
    GRAPH_NAME,
    TOKENIZER_NAME,
    Bundle,
    RuntimeSettings,
    Variant,
)
from edgetune.serve.errors import WorkError


@dataclass(frozen=True)
class VariantDraft:
    """One graph of several that a bundle will hold.

    Attributes:
        draft: the whole bundle that it is a draft of, alone.
        needs: instruction sets of which a processor must have one to run it fast; none where any will do.
        runtime: how it is best run; None where that was not measured.
        p50_ms: its median with these settings; None where it was not timed.
    """

    draft: Bundle
    needs: tuple[str, ...]
    runtime: RuntimeSettings | None
    p50_ms: float | None


def copy_variant(main: Bundle, one: VariantDraft, folder: Path) -> Variant:
    """Copy a variant's own files into `folder`, unless it is the main one, and tell of it.

    Raises:
        WorkError: it is no graph of the same model, tokenizer and inputs.
    """
    theirs, scheme = one.draft.manifest, one.draft.manifest.scheme
    graph, golden = GRAPH_NAME, GOLDEN_NAME
    if one.draft.folder != main.folder:
        _check_alike(main, one.draft)
        graph, golden = f"model_{scheme}.onnx", f"golden_{scheme}.json"
        shutil.copyfile(one.draft.folder / GRAPH_NAME, folder / graph)
        shutil.copyfile(one.draft.folder / GOLDEN_NAME, folder / golden)
    return Variant(
        scheme=scheme,
        graph=graph,
        golden=golden,
        provider=theirs.provider,
        dtypes=theirs.dtypes,
        needs=list(one.needs),
        runtime=one.runtime,
        p50_ms=one.p50_ms,
    )


def _check_alike(main: Bundle, other: Bundle) -> None:
    """Refuse a variant that takes or gives something else: one tokenizer and one list of labels serve all."""
    names = ("task", "labels", "max_tokens", "base", "data_digest")
    faults = [name for name in names if getattr(main.manifest, name) != getattr(other.manifest, name)]
    taken = [{spec.name for spec in one.manifest.inputs} for one in (main, other)]
    faults += ["inputs"] if taken[0] != taken[1] else []
    faults += [
        name
        for name in (TOKENIZER_NAME, CONFIG_NAME)
        if (main.folder / name).read_bytes() != (other.folder / name).read_bytes()
    ]
    if faults:
        raise WorkError(
            f"{other.manifest.scheme} is no variant of {main.manifest.scheme}: they differ in {', '.join(faults)}.",
            expected="graphs of one model",
        )
