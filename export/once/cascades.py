"""A cascade as a bundle: the strong model's own, with the small one's tables and golden answers beside it."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from edgetune.export.once.pack import write_manifest
from edgetune.serve.bundle import GOLDEN_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.engines.spec import CascadeSpec
from edgetune.serve.errors import WorkError


def draft_cascade(strong: Bundle, small: Bundle, threshold: float, folder: Path) -> Bundle:
    """Write the bundle in which `small` answers where its margin is at least `threshold`, and `strong` the rest.

    Args:
        strong: a bundle that answers by a graph.
        small: a bundle that answers by an engine, of the same tokenizer, codec and head.
        threshold: best minus second probability, from 0 to 1.
        folder: where to; what is there goes.

    Raises:
        WorkError: the two answer something else, or read texts otherwise.
        BundleDamaged: they have no head of one label a text.
    """
    engine, scheme = small.manifest.engine, small.manifest.scheme.split("+")[-1]
    names = ("task", "labels", "max_tokens", "codec", "heads")
    faults = [name for name in names if getattr(strong.manifest, name) != getattr(small.manifest, name)]
    if (strong.folder / TOKENIZER_NAME).read_bytes() != (small.folder / TOKENIZER_NAME).read_bytes():
        faults.append(TOKENIZER_NAME)
    if engine is None or strong.manifest.engine is not None or faults:
        raise WorkError(
            f"{scheme} and {strong.manifest.scheme} make no cascade: they differ in {', '.join(faults) or 'nothing'}.",
            expected="an artefact without a graph before a graph, both of one task, tokenizer and head",
        )
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(strong.folder, folder)
    name, golden = f"{scheme}.onnx", f"golden_{scheme}.json"
    shutil.copyfile(small.folder / engine.file, folder / name)
    shutil.copyfile(small.folder / GOLDEN_NAME, folder / golden)
    cascade = CascadeSpec(
        scheme=scheme, engine=msgspec.structs.replace(engine, file=name), threshold=threshold, golden=golden
    )
    write_manifest(folder, msgspec.structs.replace(strong.manifest, cascade=cascade))
    return Bundle.open(folder)
