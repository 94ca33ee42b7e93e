"""Layouts: a bundle as other people's servers want it. One file a layout, one row here.

Each module has `write(bundle, folder)`, which fills an empty folder, and `check(folder)`, which returns the faults of a
folder by the layout's own documents, none where it is right. `HELP` is its line in `edgetune pack --list`, `RUN` the
command that serves or opens the folder: in it `FOLDER` stands for the folder as it was named, `$PWD/FOLDER` for its
absolute path, and `NAME` for what the model is called. Needs the floor only.
"""

from __future__ import annotations

import importlib
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from edgetune.export.stepwise.weights import merged_folder
from edgetune.serve.bundle import GRAPH_NAME, Bundle
from edgetune.serve.errors import BundleError, WorkError

if TYPE_CHECKING:
    from edgetune.export.layouts.edge import EdgeTarget


class Layout(Protocol):
    """What the module of a layout has."""

    HELP: str
    RUN: str

    def write(self, bundle: Bundle, folder: Path) -> None:
        """Fill an empty folder."""

    def check(self, folder: Path) -> list[str]:
        """The faults of a folder, each a clause that says where; empty where it follows the layout's rules."""


class ModelLayout(Layout, Protocol):
    """What the module of a layout has that is made of the merged model, not of the graph."""

    def write_model(self, bundle: Bundle, model_folder: Path, folder: Path) -> None:
        """Fill an empty folder from a merged model."""


class WeightsLayout(Layout, Protocol):
    """What the module of a layout has that takes the merged weights as they are or as the bundle's graph has them."""

    def write_model(self, bundle: Bundle, model_folder: Path, folder: Path, weights_of: str = "float") -> None:
        """Fill an empty folder from a merged model; `weights_of` is one of WEIGHTS below."""


class TargetLayout(Layout, Protocol):
    """What the module of a layout has that holds the packages of another machine."""

    def write_for(self, bundle: Bundle, folder: Path, target: EdgeTarget) -> None:
        """Fill an empty folder for that machine."""


# name: module. Loaded when asked for.
LAYOUTS = {
    "triton": "edgetune.export.layouts.triton",
    "mlserver": "edgetune.export.layouts.mlserver",
    "tei": "edgetune.export.layouts.tei",
    "fastembed": "edgetune.export.layouts.fastembed",
    "mlflow": "edgetune.export.layouts.mlflow",
    "litserve": "edgetune.export.layouts.litserve",
    "bentoml": "edgetune.export.layouts.bentoml",
    "transformersjs": "edgetune.export.layouts.transformersjs",
    "docker": "edgetune.export.layouts.docker",
    "oci": "edgetune.export.layouts.oci",
    "edge": "edgetune.export.layouts.edge",
    "sentence-transformers": "edgetune.export.layouts.sentences",
    "tasks": "edgetune.export.layouts.tasks",
    "genai": "edgetune.export.layouts.genai",
    "hf": "edgetune.export.layouts.hf",
    "gguf": "edgetune.export.layouts.gguf",
}
_NO_FIRST_CACHE = "it starts every sequence from an empty cache, without the virtual tokens that were trained"
_NO_VECTORS = "the service that it writes gives labels and numbers; docker serves vectors by /v1/embeddings"
FIRST_CACHE = "first cache"
# Why a server cannot answer as a bundle with a head of this kind, or with this codec, does; all others are carried.
CANNOT = {
    "tei": {
        "labels": "its /predict gives a softmax over the labels, where the bundle's are independent of each other",
        "number": "it takes a graph with one output for a reranker and squeezes the number through a sigmoid",
        "entities": "its /predict gives a text one label, and none of its words",
        "picture": "it takes texts",
    },
    "triton": {
        "entities": "the places of entities in a text are known to the tokenizer alone, which stays outside",
        "picture": "its graph takes numbers, and nothing there turns pictures into them",
    },
    "fastembed": {
        "text-pair": "its TextEmbedding takes single texts",
        "entities": "its TextEmbedding gives a text one vector",
        "picture": "its TextEmbedding takes texts",
    },
    "transformersjs": {
        "entities": "its token-classification pipeline gives words without their places in the text",
        "number": "its text-classification pipeline gives a softmax or sigmoids, never the output itself",
        "text-pair": "its text-classification pipeline takes single texts",
        "embedding": "its feature-extraction pipeline pools token states, which the graph has pooled already",
        "picture": "its image processors are not proven to give the numbers that the graph was trained on",
    },
    "mlserver": {"embedding": _NO_VECTORS},
    "mlflow": {"embedding": _NO_VECTORS},
    "bentoml": {"embedding": _NO_VECTORS},
    "genai": {FIRST_CACHE: _NO_FIRST_CACHE},
    "hf": {FIRST_CACHE: _NO_FIRST_CACHE},
    "gguf": {FIRST_CACHE: _NO_FIRST_CACHE},
}
# Layouts that carry bundles of several tasks: all others speak of one answer to a text.
OF_SEVERAL = ("tasks", "docker")
_SEVERAL = "several tasks"
# Layouts that carry bundles of one kind alone.
ONLY = {
    "sentence-transformers": ("embedding", "it is for models that give vectors"),
    "tasks": (_SEVERAL, "it is for bundles of several tasks"),
}
# Of language models; the others are of bundles that answer in one run.
LANGUAGE_LAYOUTS = ("genai", "hf", "gguf")
# Of bundles of every task; they hold the packages of another machine, which pip fetches.
TARGET_LAYOUTS = ("edge",)
# Made of the merged model in the build's work folder.
MODEL_LAYOUTS = ("hf", "gguf", "sentence-transformers")
# Of these, those whose weights may be those of the graph too; how `--weights` names them.
WEIGHTS_LAYOUTS = ("gguf",)
WEIGHTS = ("float", "bundle")


def layout_named(name: str) -> Layout:
    """The layout of that name, which must be one of LAYOUTS."""
    return cast(Layout, importlib.import_module(LAYOUTS[name]))


def model_name(bundle: Bundle) -> str:
    """The bundle's name as folders, URLs and images can carry it: letters, digits, dots, dashes, underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", bundle.manifest.name).strip("-.") or "model"


def graph_files(bundle: Bundle) -> list[str]:
    """The graph, first, and the files of its external data, which are named after it (`model.onnx.data` and such)."""
    return sorted(name for name in bundle.manifest.files if name.startswith(GRAPH_NAME))


def copy_files(bundle: Bundle, names: list[str], folder: Path) -> None:
    """Copy the named files of a bundle into `folder`, which is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copyfile(bundle.folder / name, folder / name)


def command_to_run(layout: Layout, bundle: Bundle, folder: Path) -> str:
    """The layout's RUN with the folder and the model's name put in."""
    run = layout.RUN.replace("$PWD/FOLDER", str(folder.resolve())).replace("FOLDER", str(folder))
    return run.replace("NAME", model_name(bundle))


def write_layout(
    bundle: Bundle,
    name: str,
    out: Path,
    *,
    replace: bool = False,
    work: Path | None = None,
    weights: str = "float",
    target: EdgeTarget | None = None,
) -> list[str]:
    """Write a layout beside its place, check it, and rename it: `out` is whole or as it was.

    Args:
        bundle: a verified bundle.
        name: one of LAYOUTS.
        out: the folder to make; with `replace` an older one of this layout gives way to the new one.
        work: for one of MODEL_LAYOUTS the work folder of the build; None looks where a build leaves it.
        target: for one of TARGET_LAYOUTS the machine that it is for; None is one like this.
        weights: for one of WEIGHTS_LAYOUTS one of WEIGHTS: the merged weights, or what the bundle's graph made of them.

    Returns:
        The files written, relative to `out`, sorted.

    Raises:
        WorkError: `out` exists, lies in the bundle or around it, or cannot be written; or the bundle cannot be carried
            by this layout: what was written breaks its rules; or the work folder is missing or of another build.
        BundleError: the layout is for models of another task, or its server cannot do what the head or codec asks.
    """
    _check_task(bundle, name)
    _check_place(bundle, out, replace)
    part, old = out.with_name(f".{out.name}.part"), out.with_name(f".{out.name}.old")
    layout = layout_named(name)
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        if name in WEIGHTS_LAYOUTS:
            cast(WeightsLayout, layout).write_model(bundle, merged_folder(bundle, work), part, weights)
        elif target is not None and name in TARGET_LAYOUTS:
            cast(TargetLayout, layout).write_for(bundle, part, target)
        elif name in MODEL_LAYOUTS:
            cast(ModelLayout, layout).write_model(bundle, merged_folder(bundle, work), part)
        else:
            layout.write(bundle, part)
        _refuse_faults(name, layout.check(part))
        _refuse_strangers(out, part)
        shutil.rmtree(old, ignore_errors=True)
        if out.exists():
            out.rename(old)
        part.rename(out)
    except OSError as error:
        if old.is_dir() and not out.exists():
            old.rename(out)
        raise WorkError(
            f"The layout {out} cannot be written: {error.strerror or error}.",
            expected="a disk with room that this user may write to",
            action="free space or choose another --out",
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())


def fitting_layouts(generates: bool) -> list[str]:
    """The layouts of language models, or those of all other bundles."""
    return [name for name in LAYOUTS if name in TARGET_LAYOUTS or (name in LANGUAGE_LAYOUTS) is generates]


def _check_task(bundle: Bundle, name: str) -> None:
    generates = bundle.manifest.generation is not None
    first = bundle.manifest.generation.first_caches if bundle.manifest.generation else []
    heads = bundle.manifest.answer_heads
    kinds = {bundle.manifest.codec, *(head.kind for head in heads), *([_SEVERAL] if len(heads) > 1 else [])}
    kinds |= {FIRST_CACHE} if first else set()
    fitting = [one for one in fitting_layouts(generates) if one not in ONLY or ONLY[one][0] in kinds]
    if name not in fitting_layouts(generates):
        raise BundleError(
            f"The bundle {bundle.folder} is for the task {bundle.manifest.task!r}, which {name} does not carry.",
            expected=f"a layout of its task: {', '.join(fitting)}",
        )
    if len(heads) > 1 and name not in OF_SEVERAL:
        raise BundleError(
            f"The bundle {bundle.folder} answers {len(heads)} tasks, and {name} carries one.",
            expected=f"a layout of several tasks: {', '.join(OF_SEVERAL)}",
            action=f"pack it as tasks, and then the bundle of each task as {name}",
        )
    only, why = ONLY.get(name, ("", ""))
    if only and only not in kinds:
        raise BundleError(
            f"The bundle {bundle.folder} is for the task {bundle.manifest.task!r}, which {name} does not carry: {why}.",
            expected=f"a layout of its task: {', '.join(fitting)}",
        )
    for kind, reason in CANNOT.get(name, {}).items():
        if kind in kinds:
            fitting = [one for one in fitting if kind not in CANNOT.get(one, {})]
            raise BundleError(
                f"The bundle {bundle.folder} is of the kind {kind!r}, which {name} does not carry: {reason}.",
                expected=f"a layout that does: {', '.join(fitting)}",
            )


def _check_place(bundle: Bundle, out: Path, replace: bool) -> None:
    place, source = out.resolve(), bundle.folder.resolve()
    if place.is_relative_to(source) or source.is_relative_to(place):
        raise WorkError(
            f"The output {out} and the bundle {bundle.folder} lie in each other.",
            expected="a folder apart from the bundle",
            action="choose another --out",
        )
    if out.is_symlink() or (out.exists() and not (replace and out.is_dir())):
        raise WorkError(
            f"The output {out} exists.",
            expected="a folder to create",
            action="choose another --out" + (", or replace it: --force" if out.is_dir() else ""),
        )


def _refuse_faults(name: str, faults: list[str]) -> None:
    if faults:
        raise WorkError(
            f"This bundle as {name} breaks that layout's rules: {'; '.join(faults)}.",
            expected="a folder that the layout's documents allow",
            action="choose another --layout",
        )


def _refuse_strangers(out: Path, part: Path) -> None:
    """Replace only what a pack has written: a folder that holds anything else was named by mistake."""
    if not out.is_dir():
        return
    written = {path.name for path in part.iterdir()} | {"__pycache__"}
    strangers = sorted(path.name for path in out.iterdir() if path.name not in written)
    if strangers:
        raise WorkError(
            f"The output {out} holds what this layout does not write: {', '.join(strangers[:5])}.",
            expected="an older folder of the same layout and model to replace",
            action="choose another --out, or move that folder away",
        )
