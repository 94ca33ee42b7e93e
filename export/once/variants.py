"""Further graphs of one model in its bundle: each with golden answers of its own, under names of its own.

The main graph stays `model.onnx`, so that readers that know of no variants open the folder as they always did. All take
the same inputs: a fusion drops one that is nought for every single text, and its graph gets it back here, unread.
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

# For single texts, where a fusion dropped it; in a pair it tells the texts apart.
_ALWAYS_ZERO, _SINGLE = "token_type_ids", "text"


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
        _copy_graph(one.draft, main, folder / graph)
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
    """Refuse a variant that takes or gives something else: one tokenizer, codec and head serve all."""
    names = ("task", "labels", "max_tokens", "base", "data_digest", "codec", "heads")
    faults = [name for name in names if getattr(main.manifest, name) != getattr(other.manifest, name)]
    zero = {_ALWAYS_ZERO} if main.manifest.codec == _SINGLE else set()
    faults += ["inputs"] if (_inputs(main) ^ _inputs(other)) - zero else []
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


def _inputs(draft: Bundle) -> set[str]:
    return {spec.name for spec in draft.manifest.inputs}


def _copy_graph(draft: Bundle, main: Bundle, target: Path) -> None:
    """Copy a variant's graph, which then takes the inputs that the main one takes."""
    source = draft.folder / GRAPH_NAME
    if _inputs(draft) == _inputs(main):
        shutil.copyfile(source, target)
        return
    import onnx_ir

    model = onnx_ir.load(source)
    ids = next(value for value in model.graph.inputs if value.name == "input_ids")
    if _ALWAYS_ZERO in _inputs(main):
        model.graph.inputs.append(onnx_ir.Value(name=_ALWAYS_ZERO, type=ids.type, shape=ids.shape))
    else:
        kinds = next(value for value in model.graph.inputs if value.name == _ALWAYS_ZERO)
        zeros = onnx_ir.node("Sub", [ids, ids])
        kinds.replace_all_uses_with(zeros.outputs[0])
        model.graph.inputs.remove(kinds)
        model.graph.insert_before(model.graph[0], zeros)
    onnx_ir.save(model, target)
