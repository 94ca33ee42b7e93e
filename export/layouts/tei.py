"""Hugging Face text-embeddings-inference: the folder that its ONNX Runtime backend serves.

Vectors are pooled by the graph. The server pools states by itself, so they are handed on as the states of a single
token, of which its pooling "cls" takes the first: so releases do that know no output `sentence_embedding`, too.

Sources: the server's README (CPU images, /predict) and its code: router/src/lib.rs (what is read of which file, how a
folder is known for a classifier), core/src/tokenization.rs, backends/ort/src/lib.rs.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from edgetune.export.layouts import copy_files, graph_files
from edgetune.export.layouts.embedded import read_json, write_json
from edgetune.serve.bundle import CONFIG_NAME, GRAPH_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.codecs import codec_parts
from edgetune.serve.errors import WorkError

HELP = "text-embeddings-inference: a folder for its CPU images, which answer POST /predict, or /embed."
RUN = (
    "docker run --rm -p 127.0.0.1:8080:80 -v $PWD/FOLDER:/model:ro "
    "ghcr.io/huggingface/text-embeddings-inference:cpu-1.9 --model-id /model"
)

_TOKENIZER_CONFIG = "tokenizer_config.json"
# Where the server looks for the longest input. Without this file it takes the model's positions, of which a bundle may
# use fewer: longer texts would then be answered from more tokens than edgetune reads.
_LENGTH = "sentence_bert_config.json"
_POOLING, _SETTINGS, _CLS = "1_Pooling/config.json", "config_sentence_transformers.json", "pooling_mode_cls_token"
_STATES = "last_hidden_state"
# The server's names, and those that some architectures have for them.
_SIZES = {
    "hidden_size": ("dim", "d_model"),
    "num_hidden_layers": ("n_layers",),
    "max_position_embeddings": ("max_trained_positions",),
}

_README = """\
# For text-embeddings-inference

    docker run --rm -p 127.0.0.1:8080:80 -v "$PWD":/model:ro \\
      ghcr.io/huggingface/text-embeddings-inference:cpu-1.9 --model-id /model
    curl 127.0.0.1:8080/ROUTE -H 'Content-Type: application/json' -d '{"inputs": GIVEN}'

The CPU images run the graph by their own ONNX Runtime; the GPU images read no ONNX. The server was not run on this
folder when it was written: its files were checked against what the server's code reads of them.
"""


def write(bundle: Bundle, folder: Path) -> None:
    """Fill an empty folder: config.json, tokenizer, model.onnx, the longest input, and of vectors their pooling."""
    embeds = bundle.manifest.answer_heads[0].kind == "embedding"
    copy_files(bundle, [*graph_files(bundle), TOKENIZER_NAME], folder)
    if _TOKENIZER_CONFIG in bundle.manifest.files:
        copy_files(bundle, [_TOKENIZER_CONFIG], folder)
    config = json.loads((bundle.folder / CONFIG_NAME).read_text(encoding="utf-8"))
    for name, others in _SIZES.items():
        size = next((config[other] for other in others if other in config), None)
        if name not in config and size is not None:
            config[name] = size
    write_json(folder / CONFIG_NAME, config)
    if embeds:
        _write_states(folder / GRAPH_NAME)
        (folder / "1_Pooling").mkdir()
        write_json(folder / _POOLING, {"word_embedding_dimension": config.get("hidden_size"), _CLS: True})
        write_json(folder / _SETTINGS, {"prompts": bundle.manifest.answer_heads[0].prompts})
    write_json(folder / _LENGTH, {"max_seq_length": bundle.manifest.max_tokens})
    given = '[["a text", "another"]]' if len(codec_parts(bundle.manifest.codec)) > 1 else '"a text"'
    readme = _README.replace("GIVEN", given).replace("ROUTE", "embed" if embeds else "predict")
    (folder / "README.md").write_text(readme, encoding="utf-8")


def _write_states(graph: Path) -> None:
    """Let the graph give its vectors (batch, width) as `last_hidden_state`, (batch, 1, width).

    Raises:
        WorkError: the packages that write graphs are not installed.
    """
    try:
        import onnx
        from onnx import helper, numpy_helper
    except ImportError as error:
        raise WorkError("The graph is written anew, and onnx is not installed.", action="pip install onnx") from error
    model = onnx.load(str(graph))
    output = model.graph.output[0]
    width = output.type.tensor_type.shape.dim[1].dim_value
    axis = numpy_helper.from_array(np.array([1], dtype=np.int64), "vectors.token_axis")
    model.graph.initializer.append(axis)
    model.graph.node.append(helper.make_node("Unsqueeze", [output.name, axis.name], [_STATES]))
    del model.graph.output[:]
    states = helper.make_tensor_value_info(_STATES, onnx.TensorProto.FLOAT, ["batch", 1, width or "width"])
    model.graph.output.append(states)
    onnx.save(model, str(graph))


def check(folder: Path) -> list[str]:
    """The faults of a folder, by what the server reads of it when it starts."""
    faults = [] if (folder / GRAPH_NAME).is_file() else [f"{GRAPH_NAME} is missing"]
    config = read_json(folder / CONFIG_NAME, faults)
    embeds = (folder / _POOLING).exists()
    faults += _config_faults(config, embeds=embeds) if config else []
    if embeds and read_json(folder / _POOLING, faults).get(_CLS) is not True:
        faults.append(f"{_POOLING} does not say {_CLS}")
    longest = read_json(folder / _LENGTH, faults).get("max_seq_length")
    positions = config.get("max_position_embeddings")
    if not (isinstance(longest, int) and longest >= 1):
        faults.append(f"{_LENGTH}: max_seq_length is {longest!r}")
    elif isinstance(positions, int) and longest > positions:
        faults.append(f"{_LENGTH}: max_seq_length is {longest}, past the model's {positions} positions")
    tokenizer = read_json(folder / TOKENIZER_NAME, faults)
    if tokenizer and not isinstance(tokenizer.get("model"), dict):
        faults.append(f"{TOKENIZER_NAME} holds no fast tokenizer")
    if (folder / _TOKENIZER_CONFIG).exists():
        side = read_json(folder / _TOKENIZER_CONFIG, faults).get("padding_side", "right")
        if side not in ("left", "right"):
            faults.append(f"{_TOKENIZER_CONFIG}: padding_side is {side!r}, not left or right")
    return faults


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


def _config_faults(config: dict[str, object], *, embeds: bool) -> list[str]:
    architectures = config.get("architectures")
    known = [one for one in architectures if isinstance(one, str)] if isinstance(architectures, list) else []
    faults = []
    if embeds is any(name.endswith("Classification") for name in known):
        word = "one" if embeds else "none"
        faults.append(f"{CONFIG_NAME}: {word} of the architectures {known} ends in Classification")
    if not isinstance(config.get("model_type"), str):
        faults.append(f"{CONFIG_NAME} names no model_type")
    faults += [f"{CONFIG_NAME} has no {name}" for name in _SIZES if not _is_count(config.get(name))]
    pad = config.get("pad_token_id")
    if pad is not None and not (isinstance(pad, int) and pad >= 0):
        faults.append(f"{CONFIG_NAME}: pad_token_id is {pad!r}")
    return faults if embeds else faults + _label_faults(config.get("id2label"), config.get("label2id"))


def _label_faults(names: object, numbers: object) -> list[str]:
    """`names` must give every place of the logits by its number as text, or the server stops at the first answer."""
    if not isinstance(names, dict) or not isinstance(numbers, dict):
        return [f"{CONFIG_NAME} lacks id2label or label2id"]
    if len(names) < 2:
        return [f"{CONFIG_NAME} has {len(names)} label: the server takes that for a reranker"]
    faults = []
    if set(names) != {str(place) for place in range(len(names))}:
        faults.append(f"{CONFIG_NAME}: id2label does not number its labels from 0")
    if not all(isinstance(name, str) for name in names.values()):
        faults.append(f"{CONFIG_NAME}: a label in id2label is no text")
    if {name: str(number) for name, number in numbers.items()} != {name: place for place, name in names.items()}:
        faults.append(f"{CONFIG_NAME}: label2id is not the inverse of id2label")
    return faults
