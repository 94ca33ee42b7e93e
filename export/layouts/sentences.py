"""sentence-transformers: the merged model as its library opens it, and as every server that is built on its files does.

It runs weights and no graphs, so the folder is made from the work folder of the build: the tuned trunk in floating
point, with its pooling, its scaling to length one, and its prompts beside it. Sources: sentence-transformers 6.2's
base/model.py (modules.json), sentence_transformer/modules (Transformer, Pooling, Normalize). Needs the floor only.
"""

from __future__ import annotations

import json
from pathlib import Path

from edgetune.export.layouts import copy_files
from edgetune.export.layouts.embedded import read_json, write_json
from edgetune.export.stepwise.weights import WEIGHTS, Weight, merged_folder, weights
from edgetune.serve.bundle import CONFIG_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.errors import WorkError
from edgetune.serve.json_types import JsonObject

HELP = "sentence-transformers: the merged weights with their pooling, from the build's work folder."
RUN = "python -c \"from sentence_transformers import SentenceTransformer; SentenceTransformer('FOLDER').encode(['a'])\""

_MODULES, _POOLING = "modules.json", "1_Pooling/config.json"
_LENGTH, _SETTINGS = "sentence_bert_config.json", "config_sentence_transformers.json"
_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json")
_TRUNK = "trunk."
_TYPE = "sentence_transformers.models."
# Its names of poolings by ours.
_FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "last": "pooling_mode_lasttoken",
}

_README = """\
# The tuned sentence encoder

    python -c "from sentence_transformers import SentenceTransformer; SentenceTransformer('.').encode(['a text'])"

The tuned model with its adapters merged, in floating point: what the bundle's graph was made from, before any
quantization. PROMPTS
"""


def write(bundle: Bundle, folder: Path) -> None:
    """Fill an empty folder from the work folder beside the bundle.

    Raises:
        WorkError: there is no work folder beside it, or it is another model's.
    """
    write_model(bundle, merged_folder(bundle), folder)


def write_model(bundle: Bundle, model_folder: Path, folder: Path) -> None:
    """Fill an empty folder from a merged model: weights, tokenizer, pooling, scaling, longest input and prompts."""
    faults: list[str] = []
    config = read_json(model_folder / CONFIG_NAME, faults)
    packed = read_json(bundle.folder / CONFIG_NAME, faults)
    if faults:
        raise WorkError(f"{model_folder} is no merged model: {'; '.join(faults)}.")
    head = bundle.manifest.answer_heads[0]
    copy_files(bundle, [TOKENIZER_NAME, *(name for name in _TOKENIZER_FILES if name in bundle.manifest.files)], folder)
    _write_trunk(weights(model_folder), folder / WEIGHTS)
    plain = {name: value for name, value in config.items() if not name.startswith("edgetune_")}
    write_json(folder / CONFIG_NAME, {**plain, "architectures": packed.get("architectures")})
    kinds = (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    modules = [
        {"idx": place, "name": str(place), "path": path, "type": _TYPE + kind}
        for place, (path, kind) in enumerate(kinds)
    ]
    (folder / _MODULES).write_text(json.dumps(modules, indent=2) + "\n", encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    poolings = str(config.get("edgetune_pooling")).split("+")
    flags = {flag: name in poolings for name, flag in _FLAGS.items()}
    write_json(folder / _POOLING, {"word_embedding_dimension": head.width // len(poolings), **flags})
    (folder / "2_Normalize").mkdir()
    (folder / "2_Normalize" / ".keep").write_text("", encoding="utf-8")
    write_json(folder / _LENGTH, {"max_seq_length": bundle.manifest.max_tokens, "do_lower_case": False})
    write_json(
        folder / _SETTINGS, {"prompts": head.prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    )
    said = f"It knows the prompts {', '.join(head.prompts)}: encode(..., prompt_name=...)." if head.prompts else ""
    (folder / "README.md").write_text(_README.replace("PROMPTS", said), encoding="utf-8")


def _write_trunk(tensors: dict[str, Weight], path: Path) -> None:
    """One safetensors file of float32 weights, under the names that the trunk's own class has for them."""
    header: JsonObject = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, weight in tensors.items():
        size = 4
        for extent in weight.shape:
            size *= extent
        header[name.removeprefix(_TRUNK)] = {
            "dtype": "F32",
            "shape": list(weight.shape),
            "data_offsets": [place, place + size],
        }
        place += size
    content = json.dumps(header).encode("utf-8")
    content += b" " * (-len(content) % 8)
    with path.open("wb") as stream:
        stream.write(len(content).to_bytes(8, "little") + content)
        for weight in tensors.values():
            stream.write(weight.read().astype("<f4").tobytes())


def check(folder: Path) -> list[str]:
    """The faults of a folder, by what sentence-transformers reads of it."""
    faults: list[str] = []
    try:
        modules = json.loads((folder / _MODULES).read_text(encoding="utf-8"))
        kinds = [str(module["type"]).rpartition(".")[2] for module in modules]
        if kinds != ["Transformer", "Pooling", "Normalize"]:
            faults.append(f"{_MODULES} lists {', '.join(kinds)}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        faults.append(f"{_MODULES} cannot be read: {error}")
    config = read_json(folder / CONFIG_NAME, faults)
    if config and not isinstance(config.get("model_type"), str):
        faults.append(f"{CONFIG_NAME} names no model_type")
    pooling = read_json(folder / _POOLING, faults)
    if pooling and not any(pooling.get(flag) is True for flag in _FLAGS.values()):
        faults.append(f"{_POOLING} names no pooling")
    length = read_json(folder / _LENGTH, faults).get("max_seq_length")
    if not (isinstance(length, int) and length >= 1):
        faults.append(f"{_LENGTH}: max_seq_length is {length!r}")
    read_json(folder / _SETTINGS, faults)
    read_json(folder / TOKENIZER_NAME, faults)
    if not (folder / WEIGHTS).is_file():
        faults.append(f"{WEIGHTS} is missing")
    elif strangers := [name for name in weights(folder) if name.startswith(_TRUNK)]:
        faults.append(f"the weight {strangers[0]} has a name that no class of transformers knows")
    return faults
