"""Packing a language model: a decoder graph, its tokenizer, template and golden answers become a bundle's draft.

A draft is a whole bundle without its report, as for classifiers (export/once/pack.py, which also finishes it): what is
measured is what is shipped.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from edgetune import __version__
from edgetune.export.once.pack import package_versions, pretty_json, write_manifest
from edgetune.export.stepwise.first_cache import write_first_cache
from edgetune.export.stepwise.tokenizer_files import write_tokenizer
from edgetune.export.stepwise.weights import model_digest
from edgetune.serve.bundle import (
    BUNDLE_FORMAT,
    CONFIG_NAME,
    FIRST_CACHE_FORMAT,
    GOLDEN_NAME,
    GRAPH_NAME,
    BaseIdentity,
    Bundle,
    Manifest,
    TensorSpec,
)
from edgetune.serve.session import open_session
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.golden import record
from edgetune.serve.stepwise.spec import GenerationSpec

# Shares of the logits' spread. Products of int8 activations round otherwise with other instructions.
TOLERANCE = {"fp32": 1e-3, "quantized": 2e-2}
_DTYPES = {"tensor(int64)": "int64", "tensor(float)": "float32"}
# What a Hugging Face folder of a language model may hold beside its weights; other servers read them too.
_COPIED = (CONFIG_NAME, "generation_config.json")


@dataclass(frozen=True)
class LanguagePacking:
    """What a draft needs beside its graph: names, digests, the merged model, and prompts for golden answers.

    `template` is that of chats; None for a model that was tuned on texts or completions. `columns` is the column of the
    training data that holds prompts and nothing else does; `strip_inputs` whether what is said was stripped.
    """

    name: str
    task: str
    model_folder: Path
    base: BaseIdentity
    data_digest: str
    spec: GenerationSpec
    golden_prompts: tuple[str, ...]
    template: str | None = None
    columns: tuple[str, ...] = ()
    strip_inputs: bool = False


def draft_language_bundle(
    graph: Path, scheme: str, dtypes: Mapping[str, float], packing: LanguagePacking, folder: Path
) -> Bundle:
    """Write a whole bundle without a report into `folder`; its golden answers are computed by its own runtime.

    Raises:
        BundleDamaged: what was written cannot be opened again.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for part in graph.parent.glob(f"{GRAPH_NAME}*"):
        shutil.copyfile(part, folder / part.name)
    write_tokenizer(packing.model_folder, packing.template, folder)
    write_first_cache(packing.model_folder, folder)
    _write_settings(packing.model_folder, folder)
    manifest = _manifest(scheme, dtypes, packing, folder)
    write_manifest(folder, manifest)
    generator = Generator.open(folder)
    golden = record(generator, packing.golden_prompts, tolerance=_tolerance(generator, scheme, packing))
    (folder / GOLDEN_NAME).write_bytes(pretty_json(golden))
    write_manifest(folder, manifest)
    return Bundle.open(folder)


def _tolerance(generator: Generator, scheme: str, packing: LanguagePacking) -> float:
    """The largest difference of a logit that another machine may show: a share of their spread."""
    logits, _ = generator.decoder.prefill([generator.encode(packing.golden_prompts[0])])
    return max(1e-4, TOLERANCE["fp32" if scheme == "fp32" else "quantized"] * float(np.ptp(logits)))


def _write_settings(source: Path, folder: Path) -> None:
    for name in _COPIED:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)
    config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    config.pop("_name_or_path", None)
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _manifest(scheme: str, dtypes: Mapping[str, float], packing: LanguagePacking, folder: Path) -> Manifest:
    session = open_session(folder / GRAPH_NAME, provider="cpu", threads=1)
    return Manifest(
        format=FIRST_CACHE_FORMAT if packing.spec.first_caches else BUNDLE_FORMAT,
        name=packing.name,
        task=packing.task,
        labels=[],
        inputs=[TensorSpec(value.name, _DTYPES[value.type], list(value.shape)) for value in session.get_inputs()],
        outputs=[TensorSpec(value.name, _DTYPES[value.type], list(value.shape)) for value in session.get_outputs()],
        max_tokens=packing.spec.context_tokens,
        scheme=scheme,
        provider="cpu",
        dtypes=dict(dtypes),
        base=packing.base,
        data_digest=packing.data_digest,
        versions={"edgetune": __version__, **package_versions()},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        files={},
        generation=packing.spec,
        model_digest=model_digest(packing.model_folder),
        columns=list(packing.columns),
        strip_inputs=packing.strip_inputs,
    )
