"""The merged model as one GGUF file, in floats or in the bits of the bundle: what llama.cpp, Ollama and others open.

Like the hf layout it is made from the work folder of the build. Which models llama.cpp computes as transformers does
is told in gguf_families.py, which tokenizers in gguf_tokenizers.py; others are refused. Source: the GGUF specification
(ggml/docs/gguf.md). Needs the floor and the package `gguf`.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgetune.export.layouts import model_name
from edgetune.export.layouts.genai import decoder_of
from edgetune.export.layouts.gguf_blocks import Part, encoded, quantized_parts, readers, type_name
from edgetune.export.layouts.gguf_families import FAMILIES, Family, Sizes, family_of, rope_of, sizes_of
from edgetune.export.layouts.gguf_tensors import Renamed, renamed_tensors, rope_factors
from edgetune.export.layouts.gguf_vocabulary import Vocabulary, read_vocabulary
from edgetune.export.stepwise.weights import merged_folder, weights
from edgetune.serve.bundle import CONFIG_NAME, GRAPH_NAME, TOKENIZER_NAME, Bundle
from edgetune.serve.errors import BundleError, MissingDependency
from edgetune.serve.json_types import JsonObject
from edgetune.serve.stepwise.spec import GenerationSpec
from edgetune.serve.stepwise.template import TEMPLATE_NAME

HELP = "llama.cpp, Ollama, LM Studio: the merged model as one GGUF file, from the build's work folder."
RUN = "llama-server -m FOLDER/model.gguf --alias NAME"

FILE = "model.gguf"
_ROPE_FACTORS = "rope_freqs.weight"
# llama.cpp gives tokens other rules where the model's name has one of these in it (src/llama-vocab.cpp).
_RULING_NAMES = ("phi-3", "phi3", "modern-bert")

_README = """\
# For llama.cpp

    llama-server -m model.gguf
    llama-quantize model.gguf model-q4.gguf Q4_K_M

The tuned model with its adapters merged, in floating point (F32): quantize it with llama.cpp's own tools.
"""
_QUANTIZED_README = """\
# For llama.cpp and Ollama

    llama-server -m model.gguf
    ollama create {name} -f Modelfile

The weights of the bundle as its gate has judged them (scheme {scheme}): {counts}. Norms and biases are F32.
"""
_MODELFILE = "FROM ./model.gguf\nPARAMETER num_ctx {context}\n"
_WINDOW_NOTE = (
    "Its context is {window} tokens, not {whole}: its layers see the last {window} alone, and llama.cpp's graph of "
    "this family lets them see all. Do not ask for more (`--ctx-size`)."
)


def write(bundle: Bundle, folder: Path) -> None:
    """Fill an empty folder from the work folder beside the bundle.

    Raises:
        BundleError: the bundle holds no language model, or one that llama.cpp would compute otherwise.
        WorkError: there is no work folder beside it, or it is another model's.
        MissingDependency: the package `gguf` is not installed.
    """
    write_model(bundle, merged_folder(bundle), folder)


def write_model(bundle: Bundle, model_folder: Path, folder: Path, weights_of: str = "float") -> None:
    """Fill an empty folder with model.gguf, made from a merged model, and how to run it.

    Args:
        bundle: an opened bundle.
        model_folder: its merged model.
        folder: to fill.
        weights_of: "float" for the merged weights, "bundle" for the bits of the bundle's graph.

    Raises:
        BundleError: the graph's bits were asked for, and it has no quantized matrix of the model's.
        MissingDependency: `gguf`, or `onnx_ir` for the graph's bits, is not installed.
    """
    spec, gguf = decoder_of(bundle), _package()
    if not spec.eos_ids:
        raise BundleError(
            f"No token ends an answer of {bundle.folder}, and llama.cpp takes one by a number of its own.",
            expected="an eos_token_id in the model's generation_config.json",
        )
    config = json.loads((model_folder / CONFIG_NAME).read_text(encoding="utf-8"))
    family = family_of(config)
    tensors = renamed_tensors(config, weights(model_folder), gguf)
    sizes = sizes_of(config, family, spec.context_tokens)
    vocabulary = read_vocabulary(model_folder / TOKENIZER_NAME, sizes.vocabulary, spec.bos_id, spec.eos_ids)
    factors = rope_factors(config, sizes.rotated)
    parts = _bundle_parts(bundle, tensors) if weights_of == "bundle" else {}
    kinds = {name: type_name(part.blocks) for name, part in parts.items()}
    writer = gguf.GGUFWriter(folder / FILE, family.architecture)
    _write_sizes(writer, config, family, sizes)
    _write_file_type(writer, kinds, gguf)
    _write_vocabulary(writer, vocabulary, spec, bundle)
    if factors is not None:
        writer.add_tensor_info(_ROPE_FACTORS, factors.shape, factors.dtype, factors.nbytes)
    for one in tensors:
        kind = gguf.GGMLQuantizationType[kinds.get(one.name, "F32")]
        block, size = gguf.GGML_QUANT_SIZES[kind]
        nbytes = math.prod(one.shape) // block * size
        writer.add_tensor_info(one.name, one.shape, np.dtype(np.float32), nbytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    if factors is not None:
        writer.write_tensor_data(factors)
    for one in tensors:
        part = parts.get(one.name)
        # One at a time: the model need not fit in memory twice.
        writer.write_tensor_data(one.read() if part is None else encoded(part.taken(), one.ordered, gguf))
    writer.close()
    readme = _README
    if parts:
        readme = _QUANTIZED_README.format(
            name=model_name(bundle), scheme=bundle.manifest.scheme, counts=_counts(kinds, tensors)
        )
        (folder / "Modelfile").write_text(_MODELFILE.format(context=sizes.context), encoding="utf-8")
    notes = list(vocabulary.rules.notes)
    if sizes.context < spec.context_tokens:
        notes.append(_WINDOW_NOTE.format(window=sizes.context, whole=spec.context_tokens))
    (folder / "README.md").write_text("\n- ".join([readme, *notes]).rstrip() + "\n", encoding="utf-8")


def _package() -> Any:
    try:
        import gguf
    except ModuleNotFoundError as error:
        raise MissingDependency(
            "The package gguf, which writes this layout, is not installed.", action="pip install gguf"
        ) from error
    return gguf


def _write_sizes(writer: Any, config: JsonObject, family: Family, sizes: Sizes) -> None:
    writer.add_context_length(sizes.context)
    writer.add_embedding_length(sizes.width)
    writer.add_block_count(sizes.layers)
    writer.add_feed_forward_length(sizes.inner)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.kv_heads)
    writer.add_key_length(sizes.head_dim)
    writer.add_value_length(sizes.head_dim)
    if family.layer_norms:
        writer.add_layer_norm_eps(config.get("layer_norm_eps") or config["layer_norm_epsilon"])
    else:
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    if family.positions == "rotary":
        writer.add_rope_dimension_count(sizes.rotated)
        writer.add_rope_freq_base(float(rope_of(config)["rope_theta"]))
    if sizes.window is not None:
        writer.add_sliding_window(sizes.window)
        writer.add_sliding_window_pattern(list(sizes.windowed))
        writer.add_rope_freq_base_swa(float(rope_of(config, "sliding_attention")["rope_theta"]))
    if config.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(float(config["attn_logit_softcapping"]))
    if config.get("final_logit_softcapping"):
        writer.add_final_logit_softcapping(float(config["final_logit_softcapping"]))
    writer.add_vocab_size(sizes.vocabulary)


def _bundle_parts(bundle: Bundle, tensors: Sequence[Renamed]) -> dict[str, Part]:
    """The tensors that the bundle's graph quantizes, by their name in the file."""
    reads = readers((one.name, one.weight, one.transposed) for one in tensors if not one.offset)
    parts = quantized_parts(bundle.folder / GRAPH_NAME, reads)
    if not parts:
        raise BundleError(
            f"The graph of {bundle.folder} (scheme {bundle.manifest.scheme}) has no quantized matrix of its model.",
            expected="a bundle in 4 or 8 bits, and the work folder of its build",
            action="pack the floats: --weights float",
        )
    return parts


def _write_file_type(writer: Any, kinds: Mapping[str, str], gguf: Any) -> None:
    if not kinds:
        writer.add_file_type(gguf.LlamaFileType.ALL_F32)
        return
    mostly, _ = Counter(kinds.values()).most_common(1)[0]
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if mostly == "F32" else gguf.LlamaFileType[f"MOSTLY_{mostly}"])


def _counts(kinds: Mapping[str, str], tensors: Sequence[Renamed]) -> str:
    """How many matrices there are of each type, and those that stay floats."""
    matrices = [one.name for one in tensors if len(one.shape) == 2]
    counts = Counter(kinds.get(name, "F32") for name in matrices)
    return ", ".join(f"{count} matrices in {kind}" for kind, count in sorted(counts.items()))


def _write_vocabulary(writer: Any, vocabulary: Vocabulary, spec: GenerationSpec, bundle: Bundle) -> None:
    ruled = any(name in bundle.manifest.name.lower() for name in _RULING_NAMES)
    if vocabulary.rules.strips_behind:
        writer.add_name(bundle.manifest.name if ruled else f"{bundle.manifest.name} (phi-3)")
    elif not ruled:
        writer.add_name(bundle.manifest.name)
    writer.add_tokenizer_model(vocabulary.rules.kind)
    writer.add_tokenizer_pre(vocabulary.rules.split)
    writer.add_token_list(vocabulary.pieces)
    writer.add_token_types(vocabulary.kinds)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    # One end of a text, one of a chat's turn, one of a message; further ones go by their names.
    adders = (writer.add_eos_token_id, writer.add_eot_token_id, writer.add_eom_token_id)
    for add, end in zip(adders, _ends(vocabulary, spec, bundle), strict=False):
        add(end)
    if spec.bos_id is not None:
        writer.add_bos_token_id(spec.bos_id)
    if spec.pad_id is not None:
        writer.add_pad_token_id(spec.pad_id)
    if vocabulary.unknown_id is not None:
        writer.add_unk_token_id(vocabulary.unknown_id)
    writer.add_add_bos_token(vocabulary.adds_bos)
    writer.add_add_eos_token(vocabulary.adds_eos)
    writer.add_add_space_prefix(vocabulary.rules.adds_space)
    template = bundle.folder / TEMPLATE_NAME
    if template.is_file():
        writer.add_chat_template(template.read_text(encoding="utf-8"))


def _ends(vocabulary: Vocabulary, spec: GenerationSpec, bundle: Bundle) -> list[int]:
    """The ids that end an answer, first the one that the tokenizer calls its end."""
    path = bundle.folder / "tokenizer_config.json"
    token = json.loads(path.read_text(encoding="utf-8")).get("eos_token") if path.is_file() else None
    text = token.get("content") if isinstance(token, dict) else token
    return sorted(spec.eos_ids, key=lambda one: vocabulary.pieces[one] != text)


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
    architecture = _value(reader, "general.architecture")
    family = next((one for one in FAMILIES.values() if one.architecture == architecture), None)
    if family is None:
        return [f"{FILE}: its architecture is {architecture!r}"]
    return _tensor_faults(reader, family)


def _tensor_faults(reader: Any, family: Family) -> list[str]:
    sizes = _told_sizes(reader, family)
    pieces = reader.get_field("tokenizer.ggml.tokens")
    # The format lists the innermost axis first.
    expected = {
        "token_embd.weight": [sizes.width, len(pieces.data) if pieces else 0],
        "output_norm.weight": [sizes.width],
    }
    if family.positions == "learnt":
        expected["position_embd.weight"] = [sizes.width, sizes.context]
    if family.head == "apart":
        expected["output.weight"] = expected["token_embd.weight"]
    for layer in range(sizes.layers):
        for part, axes in family.layer.items():
            expected[f"blk.{layer}.{part}.weight"] = [sizes.axis(axis) for axis in axes]
    shapes = {tensor.name: [int(axis) for axis in tensor.shape] for tensor in reader.tensors}
    faults = [f"{FILE} has no tensor {name}" for name in expected if name not in shapes]
    unlike_wanted = [name for name, shape in expected.items() if shapes.get(name, shape) != shape]
    return faults + [f"{FILE}: {name} is {shapes[name]}, not {expected[name]}" for name in unlike_wanted]


def _told_sizes(reader: Any, family: Family) -> Sizes:
    """The sizes that a file tells of itself, 0 where it is silent."""

    def size(name: str) -> int:
        value = _value(reader, f"{family.architecture}.{name}")
        return value if isinstance(value, int) else 0

    return Sizes(
        width=size("embedding_length"),
        inner=size("feed_forward_length"),
        layers=size("block_count"),
        heads=size("attention.head_count"),
        kv_heads=size("attention.head_count_kv"),
        head_dim=size("attention.key_length"),
        rotated=size("rope.dimension_count"),
        context=size("context_length"),
        vocabulary=size("vocab_size"),
        window=None,
        windowed=(),
    )


def _value(reader: Any, name: str) -> object:
    field = reader.get_field(name)
    return None if field is None else field.contents()
