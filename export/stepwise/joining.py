"""Several bundles of virtual tokens over one graph become one bundle, in which each request chooses by name.

Their weights are the base's own, so that they differ in the first cache alone, if one took the graph of the other
(`compress.graph_of`). What was proven of each holds for the whole: its graph is the very file, and its golden answers
are replayed with each first cache.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from edgetune.export.once.pack import check_place, finish_bundle, pretty_json, write_manifest
from edgetune.export.stepwise.weights import model_digest
from edgetune.serve.bundle import CONFIG_NAME, GOLDEN_NAME, GRAPH_NAME, REPORT_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.digest import value_sha256
from edgetune.serve.errors import BundleError, CompressError, InputError
from edgetune.serve.http.names import check_name
from edgetune.serve.stepwise.defaults import GENERATION_CONFIG_NAME
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.golden import GenerationGolden, read_golden, replay
from edgetune.serve.stepwise.spec import FirstCacheSpec, GenerationSpec
from edgetune.serve.stepwise.template import TEMPLATE_NAME

# What all of them must have alike beside the graph, where they have it.
_SHARED = (TOKENIZER_NAME, CONFIG_NAME, GENERATION_CONFIG_NAME, TEMPLATE_NAME, "tokenizer_config.json")


def join_bundles(named: Mapping[str, Path], out: Path) -> Bundle:
    """Write bundles that share a graph as one, whole or not at all; an older bundle at `out` is replaced.

    Args:
        named: bundles by the name that requests will choose each by; the first answers where they choose none.
        out: a folder to write.

    Raises:
        InputError: fewer than two, or a name that is none.
        BundleError: one of them has no virtual tokens of its own, or they do not share their graph.
        BundleDamaged: the joined bundle does not give the golden answers of each.
        WorkError: `out` is something else, or the disk is full.
    """
    if len(named) < 2:
        raise InputError(f"{len(named)} bundle is named.", expected="two or more, each as NAME=BUNDLE")
    for name in named:
        check_name(name)
    check_place(out)
    bundles = {name: Bundle.open(path) for name, path in named.items()}
    specs = {name: _spec(bundle) for name, bundle in bundles.items()}
    _refuse_unlike(bundles, specs)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        folder = Path(scratch)
        _fill(bundles, specs, folder, out.name)
        with Generator.open(folder) as generator:
            replay(generator, read_golden(Bundle.open(folder)))
        return finish_bundle(Bundle.open(folder), out, {})


def copy_graph(source: Path, folder: Path) -> None:
    """Copy a bundle's graph, with its weights where they lie in a file of their own."""
    for part in source.glob(f"{GRAPH_NAME}*"):
        shutil.copyfile(part, folder / part.name)


def graph_sha256(bundle: Bundle) -> str:
    """The digest of a bundle's graph and its weights."""
    files = bundle.manifest.files
    return value_sha256({name: files[name].sha256 for name in sorted(files) if name.startswith(GRAPH_NAME)})


def bundle_of_weights(folder: Path, model_folder: Path, spec: GenerationSpec) -> Bundle:
    """The bundle in `folder`, whose graph was made of the weights in `model_folder`.

    Raises:
        BundleError: there is none.
        CompressError: it was made of others, or its graph is fed otherwise.
    """
    bundle = Bundle.open(folder)
    generation = bundle.manifest.generation
    if bundle.manifest.model_digest != model_digest(model_folder) or generation is None:
        raise CompressError(
            f"compress.graph_of names {folder}, whose graph was made of other weights.",
            expected="a bundle of the same base, by the method prompt, p-tuning or prefix as this one",
            action="leave compress.graph_of out",
        )
    if _fed(generation) != _fed(spec):
        raise CompressError(
            f"compress.graph_of names {folder}, whose graph is fed otherwise than that of this build.",
            expected="a bundle that this release built, with the same export.batch",
            action="build it again, or leave compress.graph_of out",
        )
    return bundle


def _fed(spec: GenerationSpec) -> GenerationSpec:
    """A spec without what virtual tokens and a chat template change."""
    return msgspec.structs.replace(spec, first_caches=[], context_tokens=1, eos_ids=[])


def _spec(bundle: Bundle) -> GenerationSpec:
    spec = bundle.manifest.generation
    if spec is None or len(spec.first_caches) != 1 or spec.first_caches[0].name:
        what = "several adapters" if spec and spec.first_caches else "no virtual tokens"
        raise BundleError(
            f"The bundle {bundle.folder} has {what}.",
            expected="bundles of language models that were tuned by the method prompt, p-tuning or prefix, one by one",
        )
    return spec


def _refuse_unlike(bundles: Mapping[str, Bundle], specs: Mapping[str, GenerationSpec]) -> None:
    (first, one), *others = bundles.items()
    for name, other in others:
        files = (one.manifest.files, other.manifest.files)
        unlike = [file for file in _SHARED if files[0].get(file) != files[1].get(file)]
        ends = specs[name].eos_ids == specs[first].eos_ids
        if graph_sha256(one) != graph_sha256(other) or _fed(specs[name]) != _fed(specs[first]):
            raise BundleError(
                f"The bundles {one.folder} and {other.folder} have graphs that differ.",
                expected="one graph, of which each was proven with its own virtual tokens",
                action=f"build the second again with --set compress.graph_of={one.folder}",
            )
        if unlike or not ends or one.manifest.strip_inputs != other.manifest.strip_inputs:
            raise BundleError(
                f"The bundles {one.folder} and {other.folder} differ in {', '.join(unlike) or 'what ends an answer'}.",
                expected="the same tokenizer, template and settings",
                action="build both with the same data.template and data.clean",
            )


def _fill(bundles: Mapping[str, Bundle], specs: Mapping[str, GenerationSpec], folder: Path, name: str) -> None:
    """Write all but the manifest's last digests: graph and tokenizer once, of each bundle cache, report and answers."""
    first = next(iter(bundles.values()))
    copy_graph(first.folder, folder)
    for file in _SHARED:
        if source := first.path(file):
            shutil.copyfile(source, folder / file)
    caches, cases, tolerance = [], [], 0.0
    for adapter, bundle in bundles.items():
        cache = specs[adapter].first_caches[0]
        file = f"first-cache-{adapter}.bin"
        shutil.copyfile(bundle.folder / cache.file, folder / file)
        caches.append(FirstCacheSpec(name=adapter, file=file, tokens=cache.tokens))
        golden = read_golden(bundle)
        tolerance = max(tolerance, golden.tolerance)
        cases += [msgspec.structs.replace(case, adapter=adapter) for case in golden.cases]
        if report := bundle.path(REPORT_NAME):
            shutil.copyfile(report, folder / f"report-{adapter}.json")
    (folder / GOLDEN_NAME).write_bytes(pretty_json(GenerationGolden(tolerance, cases)))
    context = min(spec.context_tokens for spec in specs.values())
    manifest = msgspec.structs.replace(
        first.manifest,
        name=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        generation=msgspec.structs.replace(next(iter(specs.values())), first_caches=caches, context_tokens=context),
        max_tokens=context,
        data_digest="sha256:" + value_sha256([bundle.manifest.data_digest for bundle in bundles.values()]),
    )
    write_manifest(folder, manifest)
