"""The folder that transformers.js opens, in Node and in browsers: the tokenizer beside `onnx/model_quantized.onnx`.

By transformers.js 4: the file's suffix is its dtype's (packages/transformers/src/utils/dtypes.js), and the dtype said
in config.json under `transformers.js_config` is taken where the caller names none, so that `pipeline(task, folder)` is
enough on every device.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from edgetune.export.layouts import copy_files, graph_files
from edgetune.export.layouts.embedded import read_json, write_json
from edgetune.serve.bundle import CONFIG_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.errors import BundleError

HELP = "Folder for the npm package @huggingface/transformers, in Node and in browsers."
RUN = (
    'npm install --ignore-scripts @huggingface/transformers && node --input-type=module -e "import { pipeline } from '
    "'@huggingface/transformers'; const classify = await pipeline('text-classification', process.argv[1]); "
    'console.log(await classify(process.argv[2]))" "$PWD/FOLDER" "some text"'
)

SUFFIXES = {
    "fp32": "",
    "fp16": "_fp16",
    "q8": "_quantized",
    "int8": "_int8",
    "uint8": "_uint8",
    "q4": "_q4",
    "q4f16": "_q4f16",
    "bnb4": "_bnb4",
}
OWN_KEY = "transformers.js_config"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_COPIED = (TOKENIZER_NAME, _TOKENIZER_CONFIG, "special_tokens_map.json")
# From this share of the weights' bytes on a graph is named after the smaller type: an int8 graph keeps fp32 norms.
_SHARE = 0.25
_SIGMOIDS = "multi_label_classification"


def write(bundle: Bundle, folder: Path) -> None:
    """Fill `folder` with config.json, the tokenizer's files and onnx/model*.onnx, one a variant of the bundle.

    Raises:
        BundleError: the graph's weights lie in files of their own, which the graph names and a renamed graph loses.
    """
    if len(graph_files(bundle)) > 1:
        raise BundleError(
            f"The graph of {bundle.folder} has its weights in {', '.join(graph_files(bundle)[1:])}.",
            expected="a graph in one file, since this layout renames it",
            action="build with a scheme that makes it smaller than 1.5 GB",
        )
    config = json.loads((bundle.folder / CONFIG_NAME).read_text(encoding="utf-8"))
    _refuse_other_scores(bundle, config)
    graphs: dict[str, str] = {}
    for variant in bundle.manifest.graphs:  # the main one first, which keeps its dtype's name
        if variant.provider == bundle.manifest.provider:
            graphs.setdefault(dtype_of(variant.dtypes), variant.graph)
    (folder / "onnx").mkdir()
    for dtype, graph in graphs.items():
        shutil.copyfile(bundle.folder / graph, folder / "onnx" / f"model{SUFFIXES[dtype]}.onnx")
    copy_files(bundle, [name for name in _COPIED if name in bundle.manifest.files], folder)
    write_json(folder / CONFIG_NAME, {**config, OWN_KEY: {"dtype": next(iter(graphs))}})


def _refuse_other_scores(bundle: Bundle, config: dict[str, object]) -> None:
    """The library chooses between softmax and sigmoids by the configuration's problem_type."""
    independent = config.get("problem_type") == _SIGMOIDS
    if independent is not (bundle.manifest.answer_heads[0].kind == "labels"):
        raise BundleError(
            f"The problem_type of {bundle.folder / CONFIG_NAME} is {config.get('problem_type')!r}.",
            expected=f"{_SIGMOIDS!r} for a bundle that gives several labels at once, and for no other",
        )


def check(folder: Path) -> list[str]:
    """The faults of a folder: files, a known dtype and its graph, the classifier's labels, the tokenizer's limit."""
    faults: list[str] = []
    config = read_json(folder / CONFIG_NAME, faults)
    tokenizer = read_json(folder / TOKENIZER_NAME, faults)
    limits = read_json(folder / _TOKENIZER_CONFIG, faults)
    if config:
        faults += _config_faults(config) + _graph_faults(folder / "onnx", config.get(OWN_KEY))
    if tokenizer and not isinstance(tokenizer.get("model"), dict):
        faults.append(f"{TOKENIZER_NAME} has no model")
    if tokenizer and tokenizer.get("padding") is not None:
        faults.append(f"{TOKENIZER_NAME} pads by itself, which lengthens every text")
    if limits and not isinstance(limits.get("tokenizer_class"), str):
        faults.append(f"{_TOKENIZER_CONFIG} names no tokenizer_class, by which the tokenizer is opened")
    limit = limits.get("model_max_length")
    if limits and not (isinstance(limit, int) and 0 < limit < 1_000_000):
        faults.append(f"{_TOKENIZER_CONFIG}: model_max_length is {limit}, at which nothing is truncated")
    return faults


def dtype_of(dtypes: dict[str, float]) -> str:
    """The library's dtype for a graph whose weights' bytes are shared among ONNX types as `dtypes` says."""
    if sum(dtypes.get(name, 0) for name in ("INT4", "UINT4")) >= _SHARE:
        return "q4"
    if sum(dtypes.get(name, 0) for name in ("INT8", "UINT8")) >= _SHARE:
        return "q8"
    return "fp16" if dtypes.get("FLOAT16", 0) >= 2 * _SHARE else "fp32"


def _config_faults(config: dict[str, object]) -> list[str]:
    faults = []
    if not isinstance(config.get("model_type"), str):
        faults.append(f"{CONFIG_NAME} names no model_type, by which the model's class is chosen")
    architectures = config.get("architectures")
    if not isinstance(architectures, list) or not str(architectures[:1]).endswith("ForSequenceClassification']"):
        faults.append(f"{CONFIG_NAME}: architectures is {architectures}, no sequence classifier")
    labels = config.get("id2label")
    if not isinstance(labels, dict) or sorted(labels) != sorted(map(str, range(len(labels)))):
        faults.append(f"{CONFIG_NAME}: id2label does not number the labels from 0 on")
    return faults


def _graph_faults(folder: Path, settings: object) -> list[str]:
    dtype = settings.get("dtype") if isinstance(settings, dict) else None
    if dtype not in SUFFIXES:
        return [f"{CONFIG_NAME}: {OWN_KEY}.dtype is {dtype}, not one of {', '.join(SUFFIXES)}"]
    name = f"model{SUFFIXES[str(dtype)]}.onnx"
    graphs = sorted(path.name for path in folder.glob("*")) if folder.is_dir() else []
    known = {f"model{suffix}.onnx" for suffix in SUFFIXES.values()}
    faults = [f"onnx/{one} has the name of no dtype, so that nobody opens it" for one in graphs if one not in known]
    if name not in graphs:
        faults.append(f"onnx/ holds {', '.join(graphs) or 'nothing'} and not {name}, the {dtype} graph")
    return faults
