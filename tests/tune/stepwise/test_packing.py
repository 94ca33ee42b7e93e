"""Packed rows: all tokens once, nothing learnt across borders, and the logits of each row as if it were alone."""

import random

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PhiConfig,
    Qwen3Config,
)

from edgetune.serve.errors import ModelError
from edgetune.tune.stepwise.batches import pad_rows
from edgetune.tune.stepwise.encoding import IGNORED
from edgetune.tune.stepwise.packing import check_packing, pack

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "initializer_range": 0.2,  # with the usual 0.02 attention is flat, and a lost mask goes unseen
    "pad_token_id": 0,
}
CONFIGS = {
    "llama": lambda: LlamaConfig(**SMALL),
    "qwen3": lambda: Qwen3Config(**SMALL, head_dim=8),
    "mistral": lambda: MistralConfig(**SMALL, sliding_window=8),
    "gemma3": lambda: Gemma3TextConfig(**SMALL, head_dim=8, sliding_window=8),
    "phi": lambda: PhiConfig(**SMALL),
    "phi3": lambda: Phi3Config(**SMALL),
    "gpt2": lambda: GPT2Config(
        vocab_size=64, n_embd=32, n_layer=2, n_head=4, n_positions=128, initializer_range=0.2, pad_token_id=0
    ),
}


def model_of(name, attention="sdpa"):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = AutoModelForCausalLM.from_config(CONFIGS[name](), attn_implementation=attention)
    return model.eval()


def rows_of(lengths, seed=1):
    chosen = random.Random(seed)
    rows = []
    for length in lengths:
        ids = [chosen.randrange(1, 64) for _ in range(length)]
        rows.append({"input_ids": ids, "labels": [IGNORED] * (length // 2) + ids[length // 2 :]})
    return rows


def pieces(packed):
    """The rows inside a packed one, by their positions."""
    starts = [n for n, place in enumerate(packed["position_ids"]) if place == 0]
    borders = zip(starts, [*starts[1:], len(packed["input_ids"])], strict=True)
    return [packed["input_ids"][start:end] for start, end in borders]


def test_every_row_is_packed_once_and_whole():
    rows = rows_of([5, 9, 1, 3, 8, 2, 10, 4])
    packed = pack(rows, 10)
    assert sorted(ids for one in packed for ids in pieces(one)) == sorted(row["input_ids"] for row in rows)
    assert all(len(one["input_ids"]) <= 10 for one in packed)
    assert [[len(ids) for ids in pieces(one)] for one in packed] == [[10], [9, 1], [8, 2], [5, 4], [3]]
    assert pack(rows, 10) == packed


def test_best_fit_takes_the_fullest_sequence_that_has_room():
    assert [[len(ids) for ids in pieces(one)] for one in pack(rows_of([7, 6, 3, 4]), 10)] == [[7, 3], [6, 4]]


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="a row of 11 tokens does not fit into 10"):
        pack(rows_of([11]), 10)
    assert pack([], 10) == []


def test_no_row_learns_the_first_token_of_the_next():
    rows = [{"input_ids": [1, 2], "labels": [1, 2]}, {"input_ids": [3, 4, 5], "labels": [3, 4, 5]}]
    assert pack(rows, 8) == [
        {"input_ids": [3, 4, 5, 1, 2], "labels": [IGNORED, 4, 5, IGNORED, 2], "position_ids": [0, 1, 2, 0, 1]}
    ]


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_logits_are_those_of_the_rows_alone(name, attention):
    model = model_of(name, attention).train()
    assert check_packing(model, rows_of([7, 1, 20, 12])) < 1e-4
    assert model.training


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_the_loss_of_packed_rows_is_that_of_the_rows(name):
    model, rows = model_of(name), rows_of([7, 4, 20, 12])
    packed = pack(rows, 24)
    assert len(packed) == 2
    count = sum(label != IGNORED for row in rows for label in row["labels"][1:])
    with torch.inference_mode():
        together = model(**pad_rows(packed), use_cache=False).loss
        sums = [model(**pad_rows([row])).loss * sum(label != IGNORED for label in row["labels"][1:]) for row in rows]
    torch.testing.assert_close(together, sum(sums) / count, rtol=1e-5, atol=1e-5)


class Deaf(torch.nn.Module):
    """A model that is given a mask of ones, as by a collator that does not know packing: positions then say nothing."""

    def __init__(self, model):
        super().__init__()
        self.model, self.config, self.dtype = model, model.config, model.dtype

    def forward(self, input_ids, use_cache, attention_mask=None, position_ids=None):
        return self.model(
            input_ids=input_ids, attention_mask=torch.ones_like(input_ids), position_ids=position_ids, use_cache=False
        )


def test_a_model_whose_packed_rows_see_each_other_is_refused():
    with pytest.raises(ModelError, match="Packed rows of this model see each other") as caught:
        check_packing(Deaf(model_of("llama")), rows_of([7, 9]))
    assert "data.packing to false" in caught.value.action


def test_a_cache_would_hide_packed_rows():
    """Why `use_cache` must be off: with it the same batch gives other logits, and nothing says so."""
    model, packed = model_of("llama"), pack(rows_of([7, 9]), 16)
    batch = {name: values for name, values in pad_rows(packed).items() if name != "labels"}
    with torch.inference_mode():
        without, cached = model(**batch, use_cache=False).logits, model(**batch, use_cache=True).logits
    torch.testing.assert_close(without[:, :9], cached[:, :9])
    assert (without[:, 9:] - cached[:, 9:]).abs().max() > 0.1


def test_one_row_shows_nothing():
    with pytest.raises(ValueError, match="two rows"):
        check_packing(model_of("llama"), rows_of([7]))
