"""Tiny language models of every family with one tokenizer, a decoder graph, and a bundle of it with its work folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from edgetune.export.stepwise.graph import DecoderGraph
    from edgetune.serve.bundle import Bundle

CONTEXT_TOKENS = 160
PROMPTS = (
    "card",
    "the card has not arrived and nobody answers on the phone",
    "why was my transfer refused yesterday, please help me at once",
    "wann kommt die Karte? 卡还没到。 café 😀 naïve",
)

_WIDTH: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": CONTEXT_TOKENS,
    # Trained weights are larger than the usual 0.02: with it attention is flat and a lost mask goes unseen.
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# Heads of 16, which ONNX Runtime's fused attention rotates by itself.
_WIDER: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96, "initializer_range": 0.15}
_THETA = {"rope_theta": 10_000.0}
# By transformers' names of the configurations; what each says otherwise than _WIDTH.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {"tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", _WIDER),
    "qwen3": ("Qwen3Config", {**_WIDER, "head_dim": 16, "tie_word_embeddings": True}),
    "gemma": ("GemmaConfig", {**_WIDER, "head_dim": 16}),
    "gemma2": ("Gemma2Config", {**_WIDER, "head_dim": 16, "sliding_window": 24}),
    "gemma3": ("Gemma3TextConfig", {**_WIDER, "head_dim": 16, "sliding_window": 24, "sliding_window_pattern": 2}),
    "phi": ("PhiConfig", {**_WIDER, "hidden_size": 128}),  # heads of 32, half of each rotated
    "phi3": ("Phi3Config", _WIDER),
    "gpt2": ("GPT2Config", {}),
    "smollm3": ("SmolLM3Config", _WIDER),
    "mistral": ("MistralConfig", {**_WIDER, "sliding_window": 24}),
    "gpt_neox": ("GPTNeoXConfig", _WIDER),
    "multi_query": ("LlamaConfig", {**_WIDER, "num_key_value_heads": 1}),
    "gemma_mqa": ("GemmaConfig", {**_WIDER, "head_dim": 64, "num_key_value_heads": 1}),
    # Length-dependent rotations, exported for the lengths at which they do not change.
    "dynamic_ntk": ("LlamaConfig", {**_WIDER, "rope_parameters": {"rope_type": "dynamic", "factor": 2.0, **_THETA}}),
    "longrope": (
        "Phi3Config",
        {
            **_WIDER,
            "original_max_position_embeddings": CONTEXT_TOKENS // 2,
            "rope_parameters": {"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [4.0] * 8, **_THETA},
        },
    ),
}


@pytest.fixture(scope="session")
def prompts() -> tuple[str, ...]:
    """Four texts of unlike length, the first of them short."""
    return PROMPTS


@pytest.fixture(scope="session")
def tiny_decoder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`tiny_decoder("llama")` is a merged model's folder, made at the first call; the names are those of FAMILIES."""
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = _write(tmp_path_factory.mktemp(name), name)
        return made[name]

    return folder


@pytest.fixture(scope="session")
def decoder_graph(
    tiny_decoder: Callable[[str], Path], shared_folder: Callable[..., Path]
) -> Callable[..., DecoderGraph]:
    """`decoder_graph("llama", batch_one=False)` is a tiny model's graph, exported once for all tests that read it."""
    import dataclasses

    from edgetune.export.stepwise.graph import DecoderGraph, export_decoder

    def graph(family: str, *, batch_one: bool = False) -> DecoderGraph:
        def make(folder: Path) -> None:
            made = export_decoder(tiny_decoder(family), folder / "graph", batch_one=batch_one)
            (folder / "facts").mkdir()  # beside the graph, whose folder is as the exporter leaves it
            dataclasses.replace(made, path=folder / "facts" / made.path.name).save(folder / "facts")

        folder = shared_folder(f"graph-{family}-{'one' if batch_one else 'any'}", make)
        return dataclasses.replace(DecoderGraph.open(folder / "facts"), path=folder / "graph" / "model.onnx")

    return graph


@pytest.fixture(scope="session")
def llama_graph(decoder_graph: Callable[..., DecoderGraph]) -> DecoderGraph:
    """The decoder graph of the tiny llama, for batches: never to be changed in place."""
    return decoder_graph("llama")


@pytest.fixture(scope="session")
def language_bundle(
    tiny_decoder: Callable[[str], Path], llama_graph: DecoderGraph, tmp_path_factory: pytest.TempPathFactory
) -> Bundle:
    """A bundle of the tiny llama without golden answers and report, its work folder beside it; not to be changed."""
    return write_bundle(tiny_decoder("llama"), llama_graph, tmp_path_factory.mktemp("language") / "tiny")


@pytest.fixture(scope="session")
def write_language_bundle() -> Callable[[Path, DecoderGraph, Path], Bundle]:
    """Calling it with a model folder, its graph and a folder to make gives a bundle, its work folder beside it."""
    return write_bundle


def write_bundle(model: Path, graph: DecoderGraph, folder: Path) -> Bundle:
    """Write a bundle, and `<folder>.work` as a build leaves it."""
    from edgetune.export.once.pack import write_manifest
    from edgetune.serve.bundle import BaseIdentity, Bundle, Manifest, TensorSpec
    from edgetune.serve.session import open_session

    folder.mkdir(parents=True)
    shutil.copytree(model, folder.with_name(f"{folder.name}.work") / "tune" / "model")
    for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(model / name, folder / name)
    shutil.copyfile(graph.path, folder / "model.onnx")
    session = open_session(graph.path, provider="cpu", threads=1)
    manifest = Manifest(
        format=1,
        name=folder.name,
        task="text-generation",
        labels=[],
        inputs=[TensorSpec(one.name, "int64", list(one.shape)) for one in session.get_inputs()],
        outputs=[TensorSpec(one.name, "float32", list(one.shape)) for one in session.get_outputs()],
        max_tokens=graph.spec.context_tokens,
        scheme="fp32",
        provider="cpu",
        dtypes={"FLOAT": 1.0},
        base=BaseIdentity("tiny", "0" * 64),
        data_digest="0" * 64,
        versions={},
        created="2026-01-01T00:00:00+00:00",
        files={},
        generation=graph.spec,
    )
    write_manifest(folder, manifest)
    return Bundle.open(folder)


def _write(folder: Path, name: str) -> Path:
    import torch
    import transformers

    tokenizer = _tokenizer()
    kind, extra = FAMILIES[name]
    width = {**_WIDTH, **extra}
    if name == "gpt_neox":
        del width["num_key_value_heads"]
    if name == "gpt2":  # other words for width, layers, heads and positions
        special = {key: value for key, value in width.items() if key.endswith("_token_id")}
        width = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": CONTEXT_TOKENS, "initializer_range": 0.15}
        width |= special
    config = getattr(transformers, kind)(vocab_size=len(tokenizer), **width)
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=288,
        special_tokens=["<pad>", "<s>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(PROMPTS, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left",
        model_max_length=CONTEXT_TOKENS, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
