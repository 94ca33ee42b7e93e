"""The merged model as a Hugging Face folder: what vLLM, text-generation-inference and transformers open.

These engines run weights and no graphs, so the folder is made from the work folder of the build; the bundle says
which model it must be, and how chats are put to it. Its JSON files speak the words of transformers 4 beside those of 5:
text-generation-inference and vLLM before 2026 read the older ones. Needs the floor only.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from edgetune.export.layouts.embedded import read_json, write_json
from edgetune.export.layouts.genai import decoder_of
from edgetune.export.stepwise.weights import INDEX, WEIGHTS, merged_folder, weight_files, weights
from edgetune.serve.bundle import CONFIG_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.errors import WorkError
from edgetune.serve.json_types import JsonObject
from edgetune.serve.stepwise.template import TEMPLATE_NAME

HELP = "vLLM, text-generation-inference, transformers: the merged weights, from the build's work folder."
RUN = "vllm serve $PWD/FOLDER --served-model-name NAME"

_TOKENIZER_CONFIG = "tokenizer_config.json"
_GENERATION_CONFIG = "generation_config.json"
_CARRIED = (
    _GENERATION_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_FOREIGN = ("base_model.", "lora_", ".absmax", ".quant_state", ".SCB")
# What is told anew, and how the tokenizer was once opened.
_DROPPED = {"chat_template", "is_local", "local_files_only"}
# A class that transformers 4 does not know, and the name that both ages have for it.
_NEW_CLASS, _OLD_CLASS = "TokenizersBackend", "PreTrainedTokenizerFast"

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
    for name in [*carried, *weight_files(model_folder)]:
        shutil.copyfile(model_folder / name, folder / name)
    # The bundle's is without the cutting and padding that the training left in the merged model's.
    shutil.copyfile(bundle.folder / TOKENIZER_NAME, folder / TOKENIZER_NAME)
    template = bundle.folder / TEMPLATE_NAME
    text = template.read_text(encoding="utf-8") if template.is_file() else None
    if text is not None:
        (folder / TEMPLATE_NAME).write_text(text, encoding="utf-8", newline="\n")
    faults: list[str] = []
    config = read_json(model_folder / CONFIG_NAME, faults)
    tokenizer = read_json(model_folder / _TOKENIZER_CONFIG, faults)
    if faults:
        raise WorkError(f"{model_folder} is no merged model: {'; '.join(faults)}.")
    write_json(folder / CONFIG_NAME, with_older_words(config))
    write_json(folder / _TOKENIZER_CONFIG, with_older_tokenizer_words(tokenizer, text))
    (folder / "README.md").write_text(_README.replace("NAME", bundle.manifest.name), encoding="utf-8")


def with_older_words(config: JsonObject) -> JsonObject:
    """A config.json's value with what transformers 4 reads too: without them it takes other positions, unseen.

    Source: `convert_rope_params_to_dict` of transformers 5, which reads both.
    """
    older: dict[str, Any] = {}
    if "dtype" in config:
        older["torch_dtype"] = config["dtype"]
    rope: JsonObject = config.get("rope_parameters") or {}
    if "sliding_attention" in rope:  # Gemma 3: of the layers that see all, then of the others
        older["rope_local_base_freq"] = rope["sliding_attention"].get("rope_theta")
    rope = rope.get("full_attention", rope)
    older |= {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope}
    if rope.get("rope_type", "default") != "default":
        older["rope_scaling"] = {name: value for name, value in rope.items() if name not in older}
    return {**older, **config}


def with_older_tokenizer_words(config: JsonObject, template: str | None) -> JsonObject:
    """A tokenizer_config.json's value in words of both ages, with the chat template that the model was tuned with.

    text-generation-inference reads no other file for the template. None leaves none: a model that was tuned to go on
    with texts would be asked by one that it never saw.
    """
    kept = {name: value for name, value in config.items() if name not in _DROPPED}
    if kept.get("tokenizer_class") in (None, _NEW_CLASS):
        kept["tokenizer_class"] = _OLD_CLASS
    if isinstance(kept.get("extra_special_tokens"), list):
        kept["additional_special_tokens"] = kept.pop("extra_special_tokens")
    return kept if template is None else {**kept, "chat_template": template}


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
        missing = [name for name in with_older_words(config) if name not in config]
        if missing:
            faults.append(f"{CONFIG_NAME} has no {' and no '.join(missing)}, which transformers 4 reads")
    tokenizer = read_json(folder / TOKENIZER_NAME, faults)
    if tokenizer and not isinstance(tokenizer.get("model"), dict):
        faults.append(f"{TOKENIZER_NAME} holds no fast tokenizer")
    faults += _tokenizer_config_faults(folder)
    ends = config.get("eos_token_id")
    if (folder / _GENERATION_CONFIG).is_file():  # where servers look first for what ends an answer
        ends = read_json(folder / _GENERATION_CONFIG, faults).get("eos_token_id", ends)
    if config and ends in (None, []):
        faults.append(f"neither {_GENERATION_CONFIG} nor {CONFIG_NAME} has an eos_token_id")
    return faults + _weight_faults(folder, tied=config.get("tie_word_embeddings"))


def _tokenizer_config_faults(folder: Path) -> list[str]:
    faults: list[str] = []
    config = read_json(folder / _TOKENIZER_CONFIG, faults)
    if config.get("tokenizer_class") == _NEW_CLASS:
        faults.append(f"{_TOKENIZER_CONFIG}: its tokenizer_class {_NEW_CLASS} is none of transformers 4")
    if isinstance(config.get("extra_special_tokens"), list):
        faults.append(f"{_TOKENIZER_CONFIG}: extra_special_tokens is a list, which transformers 4 cannot read")
    template = folder / TEMPLATE_NAME
    if template.is_file() and config and config.get("chat_template") != template.read_text(encoding="utf-8"):
        faults.append(f"{_TOKENIZER_CONFIG}: its chat_template is not that of {TEMPLATE_NAME}")
    return faults


def _weight_faults(folder: Path, *, tied: object) -> list[str]:
    if not ((folder / WEIGHTS).is_file() or (folder / INDEX).is_file()):
        return [f"{WEIGHTS} is missing"]
    try:
        stored = weights(folder)
    except (WorkError, KeyError, ValueError) as error:
        return [f"the weights cannot be read: {error}"]
    faults = [
        f"the weight {name} is an adapter's or a quantizer's" for name in stored if any(one in name for one in _FOREIGN)
    ]
    if (folder / INDEX).is_file():
        placed = read_json(folder / INDEX, faults).get("weight_map")
        missing = sorted(set(placed) - set(stored)) if isinstance(placed, dict) else []
        faults += [f"{INDEX} names {name}, which no file holds" for name in missing]
    if tied is False and not any(name.endswith(("lm_head.weight", "embed_out.weight")) for name in stored):
        faults.append("the weights have no head, and config.json says that it is not the embedding")
    return faults
