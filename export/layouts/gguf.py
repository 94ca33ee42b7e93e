"""The merged model as one GGUF file, in floating point: what llama.cpp and all that is built on it open and quantize.

Like the hf layout it is made from the work folder of the build. Families: Llama (SmolLM among them), Qwen2 and Qwen3,
whose tensors the `gguf` package names. Source: the GGUF specification (ggml/docs/gguf.md) and, for the order of rotated
rows, llama.cpp's convert_hf_to_gguf.py. Needs the floor and the package `gguf`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.export.generation.weights import Weight, merged_folder, weights
from edgetune.export.layouts.genai import decoder_of
from edgetune.export.layouts.gguf_vocabulary import read_vocabulary
from edgetune.serve.bundle import CONFIG_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.errors import BundleError, MissingDependency
from edgetune.serve.generation.spec import GenerationSpec

HELP = "llama.cpp, Ollama, LM Studio: the merged model as one GGUF file, from the build's work folder."
RUN = "llama-server -m FOLDER/model.gguf --alias NAME"

FILE = "model.gguf"
FAMILIES = ("llama", "qwen2", "qwen3")

_README = """\
# For llama.cpp

    llama-server -m model.gguf
    llama-quantize model.gguf model-q4.gguf Q4_K_M

The tuned model with its adapters merged, in floating point (F32): quantize it with llama.cpp's own tools.
"""


@dataclass(frozen=True)
class Renamed:
    """A tensor on its way into the file: its new name, its weight, and the heads whose rows change their order."""

    name: str
    weight: Weight
    heads: int | None

    def read(self) -> NDArray[np.float32]:
        """Its values as the file has them."""
        values = self.weight.read()
        return values if self.heads is None else interleaved(values, self.heads)


def write(bundle: Bundle, folder: Path) -> None:
    """Fill an empty folder from the work folder beside the bundle.

    Raises:
        BundleError: the bundle holds no language model, or none of these families.
        WorkError: there is no work folder beside it, or it is another model's.
        MissingDependency: the package `gguf` is not installed.
    """
    write_model(bundle, merged_folder(bundle), folder)


def write_model(bundle: Bundle, model_folder: Path, folder: Path) -> None:
    """Fill an empty folder with model.gguf, made from a merged model, and how to run it."""
    spec, gguf = decoder_of(bundle), _package()
    config = json.loads((model_folder / CONFIG_NAME).read_text(encoding="utf-8"))
    tensors = renamed_tensors(config, weights(model_folder), gguf)
    writer = gguf.GGUFWriter(folder / FILE, config["model_type"])
    writer.add_name(bundle.manifest.name)
    _write_sizes(writer, config, spec)
    _write_vocabulary(writer, model_folder, config, spec)
    for one in tensors:
        values = one.weight
        count = int(np.prod(values.shape))
        writer.add_tensor_info(one.name, values.shape, np.dtype(np.float32), 4 * count)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for one in tensors:
        writer.write_tensor_data(one.read())  # one at a time: the model need not fit in memory twice
    writer.close()
    (folder / "README.md").write_text(_README, encoding="utf-8")


def _package() -> Any:
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "The package gguf, which writes this layout, is not installed.", action="pip install gguf"
        ) from error
    return gguf


def renamed_tensors(config: dict[str, Any], found: dict[str, Weight], gguf: Any) -> list[Renamed]:
    """The tensors of a merged model under their names in the format.

    Raises:
        BundleError: the family is none of FAMILIES, its positions are scaled, or a tensor has no name in the format.
    """
    family = config.get("model_type")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if family not in FAMILIES or rope.get("rope_type", "default") != "default":
        raise BundleError(
            f"A {family} model with {rope.get('rope_type', 'default')} positions is not written as GGUF here.",
            expected=f"{', '.join(FAMILIES)} with plain rotary positions",
            action="convert the hf layout's folder with llama.cpp's convert_hf_to_gguf.py",
        )
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[family.upper()], config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    renamed = []
    for name, weight in found.items():
        if name == "lm_head.weight" and config.get("tie_word_embeddings"):
            continue
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if new is None:
            raise BundleError(f"The format has no name for the weight {name} of a {family} model.")
        part = name.split(".")[-2]
        renamed.append(Renamed(new, weight, heads.get(part) if family == "llama" else None))
    return renamed


def interleaved(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """The rows of a query or key projection, (heads x head_dim, ...), from halves to pairs.

    transformers rotates row i with row i + head_dim / 2 of a head, llama.cpp's Llama row 2i with row 2i + 1.
    """
    halves = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)


def _write_sizes(writer: Any, config: dict[str, Any], spec: GenerationSpec) -> None:
    rope = config.get("rope_parameters") or config
    writer.add_context_length(spec.context_tokens)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(spec.layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(spec.kv_heads)
    writer.add_key_length(spec.head_dim)
    writer.add_value_length(spec.head_dim)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(spec.head_dim)
    writer.add_rope_freq_base(float(rope.get("rope_theta", 10000.0)))
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(0)  # all F32


def _write_vocabulary(writer: Any, model_folder: Path, config: dict[str, Any], spec: GenerationSpec) -> None:
    vocabulary = read_vocabulary(model_folder / TOKENIZER_NAME, config["vocab_size"], spec.bos_id)
    writer.add_tokenizer_model(vocabulary.kind)
    writer.add_tokenizer_pre(vocabulary.split)
    writer.add_token_list(vocabulary.pieces)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    said = json.loads((model_folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    ends = sorted(spec.eos_ids, key=lambda one: vocabulary.pieces[one] != said.get("eos_token"))
    if ends:  # one end of a text; a chat's turn may end by another
        writer.add_eos_token_id(ends[0])
    if len(ends) > 1:
        writer.add_eot_token_id(ends[1])
    if spec.bos_id is not None:
        writer.add_bos_token_id(spec.bos_id)
    if spec.pad_id is not None:
        writer.add_pad_token_id(spec.pad_id)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_space_prefix(vocabulary.adds_space)
    template = model_folder / "chat_template.jinja"
    if template.is_file():
        writer.add_chat_template(template.read_text(encoding="utf-8"))


def check(folder: Path) -> list[str]:
    """The faults of a folder: a file that `gguf` cannot read, tensors that are missing or of another shape."""
    path = folder / FILE
    if not path.is_file():
        return [f"{FILE} is missing"]
    gguf = _package()
    try:
        reader = gguf.GGUFReader(path)
    except (ValueError, KeyError, IndexError, OSError) as error:
        return [f"{FILE} cannot be read: {error}"]
    family = _value(reader, "general.architecture")
    if family not in FAMILIES:
        return [f"{FILE}: its architecture is {family!r}"]
    return _tensor_faults(reader, str(family))


def _tensor_faults(reader: Any, family: str) -> list[str]:
    def size(name: str) -> int:
        found = _value(reader, f"{family}.{name}")
        return found if isinstance(found, int) else 0

    width, inner = size("embedding_length"), size("feed_forward_length")
    queries = size("attention.head_count") * size("attention.key_length")
    keys = size("attention.head_count_kv") * size("attention.key_length")
    pieces = reader.get_field("tokenizer.ggml.tokens")
    # The format lists the innermost axis first.
    wanted = {"token_embd.weight": [width, len(pieces.data) if pieces else 0], "output_norm.weight": [width]}
    shapes = {
        "attn_norm": [width],
        "attn_q": [width, queries],
        "attn_k": [width, keys],
        "attn_v": [width, keys],
        "attn_output": [queries, width],
        "ffn_norm": [width],
        "ffn_gate": [width, inner],
        "ffn_up": [width, inner],
        "ffn_down": [inner, width],
    }
    for layer in range(size("block_count")):
        wanted |= {f"blk.{layer}.{name}.weight": shape for name, shape in shapes.items()}
    found = {tensor.name: [int(axis) for axis in tensor.shape] for tensor in reader.tensors}
    faults = [f"{FILE} has no tensor {name}" for name in wanted if name not in found]
    unlike = [name for name, shape in wanted.items() if found.get(name, shape) != shape]
    return faults + [f"{FILE}: {name} is {found[name]}, not {wanted[name]}" for name in unlike]


def _value(reader: Any, name: str) -> object:
    field = reader.get_field(name)
    return None if field is None else field.contents()
