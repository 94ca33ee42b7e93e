"""Tiny checkpoints beyond the encoders of conftest: what else people bring as a base, in real classes and real folders.

Each function fills a folder and returns it; `tiny_base` knows them by name.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import _BERT_SPECIALS, _WIDTH, TINY_TOKENS, _byte_bpe, _unigram, _wordpiece

END = "<|endoftext|>"
_LAYERS = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": TINY_TOKENS,
    "initializer_range": 0.15,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def write_base(folder: Path, model: Any, tokenizer: Any, pooling: dict[str, bool] | None = None) -> Path:
    """A folder as `save_pretrained` leaves it, with sentence-transformers' pooling where one is given."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if pooling:
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    return folder


def byte_level(*, pad: bool, ends: bool = False, side: str = "right") -> Any:
    """Byte-level BPE as decoders have it: without a padding token of its own, `ends` appending the end of text."""
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    bpe = _byte_bpe([END, *(["<pad>"] if pad else [])])
    if ends:
        bpe.post_processor = TemplateProcessing(
            single=f"$A {END}", pair=f"$A {END} $B {END}", special_tokens=[(END, 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, model_max_length=TINY_TOKENS, eos_token=END, bos_token=END,
        pad_token="<pad>" if pad else None, padding_side=side, model_input_names=["input_ids", "attention_mask"],
    )  # fmt: skip


def wordpiece() -> Any:
    """BERT's tokenizer of the toy sentences."""
    from transformers import BertTokenizer

    return BertTokenizer(vocab=_wordpiece(_BERT_SPECIALS), model_max_length=TINY_TOKENS)


def seeded(make: Callable[[], Any]) -> Any:
    """A model with the same random weights each time."""
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(11)
        return make()


def _gpt2_classifier(folder: Path) -> Path:
    from transformers import GPT2Config, GPT2ForSequenceClassification

    tokenizer = byte_level(pad=False)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=2, n_positions=TINY_TOKENS, initializer_range=0.15,
        bos_token_id=0, eos_token_id=0, num_labels=4,
    )  # fmt: skip
    return write_base(folder, seeded(lambda: GPT2ForSequenceClassification(config)), tokenizer)


def _llama_classifier(folder: Path) -> Path:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    tokenizer = byte_level(pad=True)
    config = LlamaConfig(vocab_size=len(tokenizer), pad_token_id=1, num_labels=4, **_LAYERS)
    return write_base(folder, seeded(lambda: LlamaForSequenceClassification(config)), tokenizer)


def _qwen2_classifier(folder: Path) -> Path:
    from transformers import Qwen2Config, Qwen2ForSequenceClassification

    tokenizer = byte_level(pad=True)
    config = Qwen2Config(vocab_size=len(tokenizer), pad_token_id=1, num_labels=4, **_LAYERS)
    return write_base(folder, seeded(lambda: Qwen2ForSequenceClassification(config)), tokenizer)


def _qwen3_embedding(folder: Path) -> Path:
    """As Qwen3-Embedding is published: a language model, padded on the left with the end of text that it appends."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    tokenizer = byte_level(pad=False, ends=True, side="left")
    tokenizer.pad_token = END
    config = Qwen3Config(vocab_size=len(tokenizer), head_dim=8, **_LAYERS)
    pooling = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}
    return write_base(folder, seeded(lambda: Qwen3ForCausalLM(config)), tokenizer, pooling)


def _opt(folder: Path) -> Path:
    """One whose attention the exporter fuses into one operator, so that its order must not be lost with its mask."""
    from transformers import OPTConfig, OPTModel

    tokenizer = byte_level(pad=True)
    config = OPTConfig(
        vocab_size=len(tokenizer), hidden_size=32, word_embed_proj_dim=32, num_hidden_layers=2, num_attention_heads=2,
        ffn_dim=64, max_position_embeddings=TINY_TOKENS, pad_token_id=1, bos_token_id=0, eos_token_id=0, init_std=0.15,
    )  # fmt: skip
    return write_base(folder, seeded(lambda: OPTModel(config)), tokenizer)


def _t5(folder: Path, kind: str, pooling: dict[str, bool] | None = None) -> Path:
    import transformers

    tokenizer = transformers.T5Tokenizer(
        vocab=_unigram(["<pad>", "</s>", "<unk>"], "<unk>"), extra_ids=0, unk_id=2, model_max_length=TINY_TOKENS
    )
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_decoder_layers=2, num_heads=2,
        pad_token_id=0, eos_token_id=1, decoder_start_token_id=0, num_labels=4,
    )  # fmt: skip
    return write_base(folder, seeded(lambda: getattr(transformers, kind)(config)), tokenizer, pooling)


def _xlnet(folder: Path) -> Path:
    from transformers import XLNetConfig, XLNetModel, XLNetTokenizer

    vocab = _unigram(["<unk>", "<s>", "</s>", "<cls>", "<sep>", "<pad>", "<mask>"], "<unk>")
    tokenizer = XLNetTokenizer(vocab=vocab, unk_id=0)
    config = XLNetConfig(
        vocab_size=len(tokenizer), d_model=32, n_layer=2, n_head=2, d_inner=64, pad_token_id=5, bos_token_id=1,
        eos_token_id=2, initializer_range=0.15,
    )  # fmt: skip
    return write_base(folder, seeded(lambda: XLNetModel(config)), tokenizer)


def _bart_classifier(folder: Path) -> Path:
    from transformers import BartConfig, BartForSequenceClassification

    tokenizer = byte_level(pad=True, ends=True)
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=64, decoder_ffn_dim=64, max_position_embeddings=TINY_TOKENS,
        pad_token_id=1, eos_token_id=0, bos_token_id=0, num_labels=4,
    )  # fmt: skip
    return write_base(folder, seeded(lambda: BartForSequenceClassification(config)), tokenizer)


def _longformer(folder: Path) -> Path:
    from transformers import LongformerConfig, LongformerModel

    tokenizer = wordpiece()
    config = LongformerConfig(
        vocab_size=len(tokenizer), attention_window=16, max_position_embeddings=TINY_TOKENS + 2, pad_token_id=0,
        **_WIDTH,
    )  # fmt: skip
    return write_base(folder, seeded(lambda: LongformerModel(config)), tokenizer)


def _fnet(folder: Path) -> Path:
    from transformers import FNetConfig, FNetModel

    tokenizer = wordpiece()
    width = {name: value for name, value in _WIDTH.items() if name != "num_attention_heads"}
    config = FNetConfig(vocab_size=len(tokenizer), max_position_embeddings=TINY_TOKENS, **width)
    return write_base(folder, seeded(lambda: FNetModel(config)), tokenizer)


def _convbert(folder: Path) -> Path:
    from transformers import ConvBertConfig, ConvBertModel

    tokenizer = wordpiece()
    config = ConvBertConfig(vocab_size=len(tokenizer), max_position_embeddings=TINY_TOKENS, embedding_size=16, **_WIDTH)
    return write_base(folder, seeded(lambda: ConvBertModel(config)), tokenizer)


DECODERS: dict[str, Callable[[Path], Path]] = {
    "gpt2_classifier": _gpt2_classifier,
    "llama_classifier": _llama_classifier,
    "qwen2_classifier": _qwen2_classifier,
    "qwen3_embedding": _qwen3_embedding,
    "opt": _opt,
}
OTHERS: dict[str, Callable[[Path], Path]] = {
    "sentence_t5": lambda folder: _t5(folder, "T5EncoderModel", {"pooling_mode_mean_tokens": True}),
    "t5_classifier": lambda folder: _t5(folder, "T5ForSequenceClassification"),
    "xlnet": _xlnet,
    "bart_classifier": _bart_classifier,
    "longformer": _longformer,
    "fnet": _fnet,
    "convbert": _convbert,
}
