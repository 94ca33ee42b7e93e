"""A merged language model becomes one graph with its key-value cache, which does prefill and decoding alike.

The exporter's decode part, traced over several tokens, is a prefill where the cache is empty: its prefill part would
hold every weight a second time. Stands beside export/once/graph.py as the one other file that knows the exporter.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from edgetune.export.once.graph import count_nodes
from edgetune.export.stepwise.attention_inputs import pack_inputs, rotate_inside
from edgetune.export.stepwise.cache_in_place import read_lengths_from_mask
from edgetune.export.stepwise.experts import part_experts
from edgetune.export.stepwise.first_cache import write_first_cache
from edgetune.export.stepwise.grouped_attention import group_attentions
from edgetune.export.stepwise.last_logits import free_last_logits
from edgetune.export.stepwise.rewrite import rewrite_decoder
from edgetune.export.stepwise.rotation_tables import tabulate_rotations
from edgetune.export.stepwise.sizes import decoder_spec
from edgetune.serve.bundle import GRAPH_NAME
from edgetune.serve.errors import BundleDamaged, ExportError, ModelError
from edgetune.serve.session import open_session
from edgetune.serve.stepwise.spec import GenerationSpec
from edgetune.tune.models.stored import Stored
from edgetune.tune.stepwise.context import with_constant_rotations

if TYPE_CHECKING:
    import onnx_ir
    from transformers import PreTrainedModel

# Weights beyond this lie in a file of their own: a protobuf ends at 2 GB.
LARGEST_GRAPH_BYTES = 1_500_000_000


@dataclass(frozen=True)
class DecoderGraph(Stored):
    """An exported decoder.

    Attributes:
        path: its file; its weights lie beside it in `<path>.data` where they are larger than 1.5 GB.
        spec: cache, limits and special tokens.
        nodes: how many nodes it has.
        fused: whether the exporter's fusions were kept.
        full_logits: whether the logits are of every token given, for measuring, and not of the last one alone.
        max_abs_diff: largest difference of the first step's logits from the model's; None until it is proven.
    """

    file_name: ClassVar[str] = "decoder.json"
    noun: ClassVar[str] = "decoder graph"
    command: ClassVar[str] = "export"

    path: Path
    spec: GenerationSpec
    nodes: int
    fused: bool = True
    full_logits: bool = False
    max_abs_diff: float | None = None


def open_decoder(model_folder: Path, *, attention: str | None = None, traceable: bool = False) -> PreTrainedModel:
    """Open a merged causal language model in fp32 and evaluation mode.

    Args:
        model_folder: a Hugging Face folder.
        attention: "eager" for export, which leaves fewer nodes; None takes what transformers takes.
        traceable: as it is exported: without its first cache, and dynamic NTK scaling written as what it is within the
            context, none.

    Raises:
        ModelError: its weights cannot be opened, or its architecture generates no text.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM

    from edgetune.tune.stepwise.first_cache import FirstCache, put_before

    extra: dict[str, Any] = {"attn_implementation": attention} if attention else {}
    try:
        if traceable:
            extra["config"] = AutoConfig.from_pretrained(model_folder)
            with_constant_rotations(extra["config"].get_text_config())
        model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32, **extra)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"The language model in {model_folder} cannot be opened: {str(error).splitlines()[0]}",
            expected="a merged model of a decoder such as Llama, Qwen, Gemma, Phi or GPT-2",
        ) from error
    return model.eval() if traceable else put_before(model.eval(), FirstCache.open(model_folder))


def export_decoder(
    model_folder: Path,
    folder: Path,
    *,
    batch_one: bool = False,
    full_logits: bool = False,
    fused: bool = True,
    grouped: bool = True,
) -> DecoderGraph:
    """Export a merged model as one graph with its cache.

    Args:
        model_folder: a Hugging Face folder; a tokenizer in it tells of special tokens and the longest input.
        folder: where model.onnx is written.
        batch_one: fix the batch to one, which is when the exporter fuses attention and rotation into one node: faster,
            and right because a batch of one needs no padding.
        full_logits: give the logits of every token and not of the last alone, to measure perplexity and divergence.
        fused: keep the exporter's fusions for the CPU.
        grouped: fuse attention into GroupQueryAttention too, which takes float32 on the CPU alone.

    Raises:
        ModelError: the folder holds no causal language model.
        ExportError: the architecture has no such graph.
        BundleDamaged: ONNX Runtime does not open the graph.
    """

    def exported(attention: str | None) -> DecoderGraph:
        model = open_decoder(model_folder, attention=attention, traceable=True)
        program = _program(model, batch_one=batch_one, full_logits=full_logits, fused=fused)
        in_place = fused and grouped and bool(group_attentions(program)) and read_lengths_from_mask(program)
        rewrite_decoder(program)
        part_experts(program)
        spec = decoder_spec(program, model, model_folder, batch_one=batch_one)
        rotating = _attend_raw(program, spec.context_tokens) if fused and grouped else 0
        spec = msgspec.structs.replace(
            spec, in_place=in_place and not full_logits, begins_apart=rotating > 0 and not batch_one
        )
        if spec.in_place:
            free_last_logits(program)
        path = _save(program, folder)
        first = write_first_cache(model_folder, folder)
        spec = msgspec.structs.replace(
            spec, first_caches=first, context_tokens=spec.context_tokens - sum(one.tokens for one in first)
        )
        open_session(path, provider="cpu", threads=1)
        return DecoderGraph(path, spec, count_nodes(path), fused, full_logits)

    try:
        return exported("eager")
    except BundleDamaged:
        # Plain products leave fewer nodes; GPT-2's, fused by transformers 5.23, are a graph that does not open.
        return exported(None)


def _attend_raw(program: onnx_ir.Model, context_tokens: int) -> int:
    """Let attention take its inputs as their product gave them; how many nodes rotate them themselves."""
    tabulate_rotations(program, context_tokens)
    rotating = rotate_inside(program)
    pack_inputs(program)
    return rotating


def _program(model: PreTrainedModel, *, batch_one: bool, full_logits: bool, fused: bool) -> onnx_ir.Model:
    """The exporter's `onnx_ir.Model` of one decoding step over any number of tokens."""
    from transformers import GenerationConfig
    from transformers.exporters import OnnxConfig, OnnxExporter
    from transformers.exporters.utils import decompose_for_generation

    settings = OnnxConfig(dynamic=True, ort_fusions="cpu" if fused else None)
    plain = GenerationConfig(do_sample=False, num_beams=1, pad_token_id=0)
    try:
        parts = decompose_for_generation(
            model, _example(model, batch_one=batch_one), generation_config=plain, multi_token_decode=True
        )
        step, inputs = parts["decode"]
        if not full_logits:
            inputs["logits_to_keep"] = 1  # the exporter takes it away: all logits of a prompt are vocabulary x tokens
        program = OnnxExporter().export(step, inputs, config=settings).program
    except Exception as error:
        # torch.export and onnxscript raise dozens of unrelated types; each means that this model has no graph.
        message = str(error.__cause__ or error).strip()
        raise ExportError(
            f"transformers' exporter cannot make a decoder graph of a {model.config.model_type} model: "
            f"{type(error).__name__}: {message.splitlines()[0] if message else ''}",
            action="see docs/language-models.md for the architectures that were proven",
        ) from error
    if not batch_one:
        refuse_grouped_attention(program)
    return program


def refuse_grouped_attention(program: onnx_ir.Model) -> None:
    """Refuse a batched `onnx_ir.Model` that was fused into GroupQueryAttention with rotation inside.

    ONNX Runtime's CPU kernel rotates every row of a first step by the first row's positions, and here no `begins_apart`
    says so: left-padded rows would be answered wrongly, without a word.

    Raises:
        ExportError: there is such a node.
    """
    nodes = [node.name for node in program.graph if node.op_type == "GroupQueryAttention"]
    if nodes:
        raise ExportError(
            f"The exporter fused {len(nodes)} attentions into GroupQueryAttention in a graph for batches ({nodes[0]}).",
            expected="attention that reads the positions of each row",
            action="export without fusions, or with a batch of one",
        )


def _example(model: PreTrainedModel, *, batch_one: bool) -> dict[str, Any]:
    """Rows of unlike length, left-padded: sizes of one, or rows of equal length, would be frozen into the graph."""
    import torch

    rows, tokens = (1 if batch_one else 3), 11
    ids = torch.arange(rows * tokens).reshape(rows, tokens) % model.config.get_text_config().vocab_size
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, : 2 * row] = 0
    return {"input_ids": ids, "attention_mask": mask}


def _save(program: onnx_ir.Model, folder: Path) -> Path:
    import onnx_ir

    folder.mkdir(parents=True, exist_ok=True)
    path = folder / GRAPH_NAME
    weights = (value.const_value for value in program.graph.initializers.values())
    size = sum(weight.nbytes for weight in weights if weight is not None)
    onnx_ir.save(program, path, external_data=f"{GRAPH_NAME}.data" if size > LARGEST_GRAPH_BYTES else None)
    return path
