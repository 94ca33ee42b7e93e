"""The tiny random llama with a tokenizer and a chat template, as a model of transformers and as a decoder graph."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edgetune.serve.stepwise.codec import TokenCodec
from edgetune.serve.stepwise.decoder import Decoder
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.spec import GenerationSpec
from edgetune.serve.stepwise.template import ChatTemplate

TEXTS = [
    "the card has not arrived and nobody answers on the phone",
    "why was my transfer refused yesterday, please help",
    "I can not see the password of my username any more",
    "wann kommt die Karte? 卡还没到。 café 😀 naïve",
]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' }}{{ message['content'] }}{{ eos_token }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


@dataclass(frozen=True)
class TinyLanguageModel:
    """A model of transformers, its tokenizer, and what the runtime needs of it in one folder."""

    folder: Path
    model: Any
    tokenizer: Any
    spec: GenerationSpec

    @property
    def graph(self) -> Path:
        return self.folder / "model.onnx"

    def generator(self, **settings: Any) -> Generator:
        """The runtime's view of it, with one thread."""
        decoder = Decoder(self.graph, self.spec, threads=1)
        return Generator(
            decoder, TokenCodec(self.folder / "tokenizer.json"), ChatTemplate.open(self.folder), **settings
        )

    def greedy(self, prompt: Sequence[int], tokens: int = 64, **settings: Any) -> list[int]:
        """What `generate` of transformers gives behind a prompt."""
        import torch

        ids = torch.tensor([list(prompt)])
        settings = {"do_sample": False, "eos_token_id": self.spec.eos_ids, "pad_token_id": 0, **settings}
        with torch.inference_mode():
            out = self.model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=tokens, **settings)
        return [int(token) for token in out[0, ids.shape[1] :]]


def _spec(model: Any, tokenizer: Any, *, batch_one: bool = False) -> GenerationSpec:
    config = model.config
    eos = model.generation_config.eos_token_id
    return GenerationSpec(
        layers=config.num_hidden_layers,
        kv_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        vocabulary=config.vocab_size,
        context_tokens=config.max_position_embeddings,
        eos_ids=eos if isinstance(eos, list) else [eos],
        bos_id=config.bos_token_id,
        pad_id=tokenizer.pad_token_id,
        batch_one=batch_one,
    )


def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<|system|>", "<|user|>", "<|assistant|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    bpe.train_from_iterator(TEXTS, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token="<s>", eos_token="</s>", pad_token="<pad>", padding_side="left",
        model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.fixture(scope="session")
def tiny_llama(
    random_llama: Any, random_llama_graph: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> TinyLanguageModel:
    """Two layers, 32 units, byte-level BPE; all batches."""
    folder = tmp_path_factory.mktemp("tiny-llama")
    tokenizer = _tokenizer(folder)
    shutil.copytree(random_llama_graph(), folder, dirs_exist_ok=True)
    return TinyLanguageModel(folder, random_llama, tokenizer, _spec(random_llama, tokenizer))


@pytest.fixture(scope="session", params=["plain", pytest.param("fused", marks=pytest.mark.long)])
def batch_one_llama(
    request: pytest.FixtureRequest,
    tiny_llama: TinyLanguageModel,
    random_llama_graph: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> TinyLanguageModel:
    """The same model for one row at a time: its specification alone says so, or its graph too, with fused attention."""
    folder = tmp_path_factory.mktemp("batch-one-llama")
    rows = 1 if request.param == "fused" else 2
    tiny_llama.tokenizer.save_pretrained(folder)
    shutil.copytree(random_llama_graph(rows), folder, dirs_exist_ok=True)
    spec = _spec(tiny_llama.model, tiny_llama.tokenizer, batch_one=True)
    return TinyLanguageModel(folder, tiny_llama.model, tiny_llama.tokenizer, spec)


@pytest.fixture(scope="session")
def stories(
    export_llama: Callable[[Any, Path, int], None], tmp_path_factory: pytest.TempPathFactory
) -> TinyLanguageModel:
    """The real stories260K, where its folder is there."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = Path(os.environ.get("EDGETUNE_DATA", "/nowhere")) / "models" / "stories260K-llama"
    if not source.is_dir():
        pytest.skip("EDGETUNE_DATA has no stories260K-llama")
    folder = tmp_path_factory.mktemp("stories")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(source / name, folder / name)
    model = AutoModelForCausalLM.from_pretrained(source, dtype="float32").eval()
    tokenizer = AutoTokenizer.from_pretrained(source)
    export_llama(model, folder, 2)
    return TinyLanguageModel(folder, model, tokenizer, _spec(model, tokenizer))


@pytest.fixture
def generator(tiny_llama: TinyLanguageModel) -> Iterator[Generator]:
    with tiny_llama.generator() as opened:
        yield opened


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Prompts of unlike lengths."""
    return list(TEXTS)


@pytest.fixture(scope="session")
def language_bundle(tiny_llama: TinyLanguageModel) -> Callable[..., Path]:
    """`language_bundle(folder, strip_inputs=True)` writes a bundle as it is packed, with another manifest if given."""

    def write(folder: Path, **changed: Any) -> Path:
        folder.mkdir(exist_ok=True)
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            shutil.copy(tiny_llama.folder / name, folder / name)
        for path in tiny_llama.folder.glob("model.onnx*"):
            shutil.copy(path, folder / path.name)
        (folder / "config.json").write_text("{}")
        files = {
            path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
            for path in folder.iterdir()
            if path.name != "manifest.json"
        }
        manifest = {
            "format": 1, "name": "tiny", "task": "text-generation", "labels": [], "inputs": [], "outputs": [],
            "max_tokens": 256, "scheme": "fp32", "provider": "cpu", "dtypes": {"float32": 1.0},
            "base": {"id": "tiny", "digest": ""}, "data_digest": "", "versions": {}, "created": "", "files": files,
            "generation": msgspec.to_builtins(tiny_llama.spec), **changed,
        }  # fmt: skip
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_language_bundle(language_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that answers; not to be changed."""
    return language_bundle(tmp_path_factory.mktemp("bundle") / "tiny")
