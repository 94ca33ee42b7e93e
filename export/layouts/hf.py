"""The merged model as a Hugging Face folder: what vLLM, text-generation-inference and transformers open.

These engines run weights and no graphs, so the folder is made from the work folder of the build; the bundle says
which model it must be. Needs the floor only.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edgetune.export.generation.weights import INDEX, WEIGHTS, merged_folder, weight_files, weights
from edgetune.export.layouts.embedded import read_json
from edgetune.export.layouts.genai import decoder_of
from edgetune.serve.bundle import CONFIG_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.errors import WorkError

HELP = "vLLM, text-generation-inference, transformers: the merged weights, from the build's work folder."
RUN = "vllm serve $PWD/FOLDER --served-model-name NAME"

_TOKENIZER_CONFIG = "tokenizer_config.json"
_CARRIED = (
    "generation_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_FOREIGN = ("base_model.", "lora_", ".absmax", ".quant_state", ".SCB")

_README = """\
# The merged model

    vllm serve . --served-model-name NAME
    text-generation-launcher --model-id .
    python -c "from transformers import pipeline; print(pipeline('text-generation', '.')('Once upon a time'))"

The tuned model with its adapters merged, in floating point: what the bundle's graph was made from, before any
quantization. Neither vLLM nor text-generation-inference was run on this folder when it was written: its files were
checked against what they and transformers read.
"""


def write(bundle: Bundle, folder: Path) -> None:
    """Fill an empty folder from the work folder beside the bundle.

    Raises:
        BundleError: the bundle holds no language model.
        WorkError: there is no work folder beside it, or it is another model's.
    """
    write_model(bundle, merged_folder(bundle), folder)


def write_model(bundle: Bundle, model_folder: Path, folder: Path) -> None:
    """Fill an empty folder from a merged model: weights, configuration, tokenizer, and how to serve them."""
    decoder_of(bundle)
    carried = [name for name in _CARRIED if (model_folder / name).is_file()]
    for name in [CONFIG_NAME, TOKENIZER_NAME, _TOKENIZER_CONFIG, *carried, *weight_files(model_folder)]:
        shutil.copyfile(model_folder / name, folder / name)
    (folder / "README.md").write_text(_README.replace("NAME", bundle.manifest.name), encoding="utf-8")


def check(folder: Path) -> list[str]:
    """The faults of a folder, by what transformers and the servers built on its files read."""
    faults: list[str] = []
    config = read_json(folder / CONFIG_NAME, faults)
    if config:
        names = config.get("architectures")
        if not (isinstance(names, list) and any(str(name).endswith(("ForCausalLM", "LMHeadModel")) for name in names)):
            faults.append(f"{CONFIG_NAME}: architectures is {names!r}, no causal language model")
        if not isinstance(config.get("model_type"), str):
            faults.append(f"{CONFIG_NAME} names no model_type")
        if "quantization_config" in config:
            faults.append(f"{CONFIG_NAME} has a quantization_config, and merged weights are floating point")
    tokenizer = read_json(folder / TOKENIZER_NAME, faults)
    if tokenizer and not isinstance(tokenizer.get("model"), dict):
        faults.append(f"{TOKENIZER_NAME} holds no fast tokenizer")
    read_json(folder / _TOKENIZER_CONFIG, faults)
    return faults + _weight_faults(folder, tied=config.get("tie_word_embeddings"))


def _weight_faults(folder: Path, *, tied: object) -> list[str]:
    if not ((folder / WEIGHTS).is_file() or (folder / INDEX).is_file()):
        return [f"{WEIGHTS} is missing"]
    try:
        found = weights(folder)
    except (WorkError, KeyError, ValueError) as error:
        return [f"the weights cannot be read: {error}"]
    faults = [
        f"the weight {name} is an adapter's or a quantizer's" for name in found if any(one in name for one in _FOREIGN)
    ]
    if (folder / INDEX).is_file():
        placed = read_json(folder / INDEX, faults).get("weight_map")
        missing = sorted(set(placed) - set(found)) if isinstance(placed, dict) else []
        faults += [f"{INDEX} names {name}, which no file holds" for name in missing]
    if tied is False and not any(name.endswith(("lm_head.weight", "embed_out.weight")) for name in found):
        faults.append("the weights have no head, and config.json says that it is not the embedding")
    return faults
