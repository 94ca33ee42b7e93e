"""What people name as a base: pooled as it was trained, or refused by one sentence before anything is tuned."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from edgetune.serve.errors import ModelError
from edgetune.tune.models.base import find_base, known_labels
from edgetune.tune.models.forward import head_features
from edgetune.tune.models.model import chosen_pooling, open_model
from edgetune.tune.models.opening import Opened, open_base
from edgetune.tune.models.pooling import pool, sentence_pooling
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from tests.bases import END

TASK = TASKS["text-classification"]
LABELS = ("card", "cash", "login", "transfer")
TEXTS = ["card", "the machine kept my cash and nobody answers on the phone", "login please"]


def opened(folder: Path, **options: Any) -> Opened:
    return open_base(find_base(str(folder)), TASK, TASK.objective(LABELS, "", ()), TuneRecipe(**options))


@pytest.fixture
def copy_of(tiny_base: Callable[[str], Path], tmp_path: Path) -> Callable[[str], Path]:
    return lambda name: Path(shutil.copytree(tiny_base(name), tmp_path / "base"))


def change(path: Path, **values: Any) -> None:
    settings = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**settings, **values}), encoding="utf-8")


def change_weights(folder: Path, edit: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    save_file(edit(load_file(folder / "model.safetensors")), folder / "model.safetensors", metadata={"format": "pt"})


# Pooling.

STATES = torch.tensor([[[1.0, -4.0], [3.0, 2.0], [9.0, 9.0]], [[-1.0, 5.0], [2.0, 1.0], [-6.0, 0.0]]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])
BY_HAND = {
    "cls": [[1, -4], [-1, 5]],
    "last": [[3, 2], [-6, 0]],
    "max": [[3, 2], [2, 5]],
    "mean": [[2, -1], [-5 / 3, 2]],
    "mean_sqrt_len": [[4 / 2**0.5, -2 / 2**0.5], [-5 / 3**0.5, 6 / 3**0.5]],
    "weightedmean": [[7 / 3, 0], [(-1 + 4 - 18) / 6, 7 / 6]],
    "cls+max": [[1, -4, 3, 2], [-1, 5, 2, 5]],
}


@pytest.mark.parametrize("name", BY_HAND)
def test_each_pooling_by_hand(name: str) -> None:
    assert torch.allclose(pool(STATES, MASK, name), torch.tensor(BY_HAND[name], dtype=torch.float32))


def test_the_last_token_is_found_behind_padding_on_the_left() -> None:
    assert torch.equal(pool(STATES, MASK.flip(1), "last"), STATES[:, 2])


@pytest.mark.parametrize(
    ("settings", "pooling"),
    [
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "mean_sqrt_len"),
        ({"pooling_mode_weightedmean_tokens": True}, "weightedmean"),
        ({"pooling_mode_lasttoken": True, "include_prompt": True}, "last"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, "max+mean"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": ["cls", "weightedmean"]}, "cls+weightedmean"),
    ],
)
def test_a_sentence_transformers_folder_says_its_pooling(tmp_path: Path, settings: Any, pooling: str) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    assert sentence_pooling(tmp_path) == pooling


@pytest.mark.parametrize("settings", [{"pooling_mode": "attention"}, {"pooling_mode_attention": True}])
def test_a_pooling_that_is_not_known_is_named(tmp_path: Path, settings: Any) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelError, match=r"names the pooling attention\.") as told:
        sentence_pooling(tmp_path)
    assert "tune.pooling=mean" in told.value.action


@pytest.mark.parametrize(
    ("name", "auto", "head"),
    [
        ("bert", "head", "head"),
        ("gpt2_classifier", "last", "last"),
        ("llama_classifier", "last", "last"),
        ("qwen3_embedding", "last", "last"),
        ("xlnet", "last", "last"),
        ("sentence_t5", "mean", "mean"),
        ("t5_classifier", "mean", "mean"),
    ],
)
def test_pooling_follows_the_checkpoint(tiny_base: Callable[[str], Path], name: str, auto: str, head: str) -> None:
    base = find_base(str(tiny_base(name)))
    assert chosen_pooling(base, TuneRecipe()) == auto
    assert chosen_pooling(base, TuneRecipe(pooling="head")) == head
    assert chosen_pooling(base, TuneRecipe(pooling="max")) == "max"


def test_a_joined_pooling_is_saved_and_opened_again(copy_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of("bert")
    (folder / "1_Pooling").mkdir()
    pooling = {"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    base = opened(folder)
    base.model.save_pretrained(tmp_path / "saved")
    again = open_model(tmp_path / "saved")
    assert again.classifier.weight.shape == (4, 64)
    expected = head_features(base.model, base.encoder, TEXTS, bf16=False)
    assert np.allclose(head_features(again, base.encoder, TEXTS, bf16=False), expected)


# Decoders: the last token stands for the text, whatever pads it.


@pytest.mark.parametrize("name", ["gpt2_classifier", "llama_classifier", "qwen2_classifier", "qwen3_embedding"])
def test_a_decoder_is_pooled_at_its_last_token_beside_longer_texts_too(
    tiny_base: Callable[[str], Path], name: str
) -> None:
    base = opened(tiny_base(name))
    padded = head_features(base.model, base.encoder, TEXTS, bf16=False, batch_size=3)
    for text, row in zip(TEXTS, padded, strict=True):
        ids = base.encoder.tokenizer(text, return_tensors="pt")["input_ids"]
        with torch.inference_mode():
            states = base.model.trunk(input_ids=ids).last_hidden_state
        assert np.allclose(row, states[0, -1].numpy(), atol=1e-5)
    assert base.encoder.tokenizer.padding_side == "right"
    assert base.model.config.pad_token_id == base.encoder.tokenizer.pad_token_id


def test_a_base_without_a_padding_token_says_which_one_is_taken(tiny_base: Callable[[str], Path]) -> None:
    base = opened(tiny_base("gpt2_classifier"))
    assert base.remarks == (f"The base has no padding token; {END!r} is taken, which the attention mask leaves out.",)
    assert opened(tiny_base("llama_classifier")).remarks == ()


def test_the_configs_padding_comes_before_the_tokenizers(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("roberta")
    change(folder / "tokenizer_config.json", pad_token="</s>")
    base = opened(folder)
    assert base.encoder.tokenizer.pad_token == "<pad>"
    assert base.model.config.pad_token_id == base.encoder.tokenizer.pad_token_id == 1
    assert base.remarks == ("Padding is '<pad>', as config.json says; the tokenizer said '</s>'.",)


def test_a_text_without_a_token_is_read_as_padding(tiny_base: Callable[[str], Path]) -> None:
    encoder = opened(tiny_base("gpt2_classifier")).encoder
    assert encoder.rows([""]) == [{"input_ids": [0], "attention_mask": [1]}]


def test_positions_without_a_limit_are_bounded(tiny_base: Callable[[str], Path]) -> None:
    assert opened(tiny_base("xlnet")).encoder.max_tokens == 512


# Refusals.


def test_a_weight_that_is_no_number_is_named(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("bert")
    name = "encoder.layer.0.attention.self.query.weight"

    def damaged(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights[name][3, 4] = float("nan")
        return weights

    change_weights(folder, damaged)
    with pytest.raises(ModelError, match=rf"no finite numbers: bert\.{name}\.") as told:
        opened(folder)
    assert str(folder) in told.value.found


def test_weights_of_another_architecture_are_not_made_random(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("bert")
    change_weights(folder, lambda weights: {f"other.{name}": weight for name, weight in weights.items()})
    with pytest.raises(ModelError, match=r"lack 37 of the weights that a 'bert' model has.*would be random"):
        opened(folder)


def test_a_missing_layer_is_named(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("distilbert")
    change_weights(folder, lambda weights: {name: w for name, w in weights.items() if ".layer.1." not in name})
    with pytest.raises(ModelError, match=r"lack 16 of the weights.*transformer\.layer\.1\."):
        opened(folder)


def test_tokens_beyond_the_embeddings_are_refused(copy_of: Callable[[str], Path]) -> None:
    from transformers import AutoTokenizer

    folder = copy_of("bert")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = len(tokenizer)
    tokenizer.add_tokens(["<user>", "<url>"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=rf"2 tokens with ids from {rows} on, such as '<user>', '<url>'.*{rows} emb"):
        opened(folder)


@pytest.mark.parametrize("keys", [["LABEL_0", "LABEL_1"], ["0", "one"]])
def test_odd_keys_of_id2label_are_named(copy_of: Callable[[str], Path], keys: list[str]) -> None:
    folder = copy_of("bert")
    change(folder / "config.json", id2label=dict.fromkeys(keys, "x"), architectures=["BertForSequenceClassification"])
    base = find_base(str(folder))
    for look in (lambda: known_labels(base), lambda: opened(folder)):
        with pytest.raises(ModelError, match=rf"id2label of .* has the keys '{keys[0]}', '{keys[1]}'"):
            look()


def test_code_that_a_base_brings_is_not_run(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("bert")
    code = {"AutoConfig": "configuration_own.OwnConfig", "AutoModel": "modeling_own.OwnModel"}
    change(folder / "config.json", model_type="own", auto_map=code)
    (folder / "configuration_own.py").write_text("raise SystemExit('it was run')")
    with pytest.raises(
        ModelError, match=r"brings the code of its architecture \(configuration_own.OwnConfig\)"
    ) as told:
        opened(folder)
    assert told.value.expected == "an architecture that transformers has"
    with pytest.raises(ValueError, match="cannot be tuned to give labels or numbers; expected false"):
        TuneRecipe(trust_remote_code=True)


def test_code_of_an_architecture_that_transformers_has_is_not_needed(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("bert")
    change(folder / "config.json", auto_map={"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"})
    (folder / "own.py").write_text("raise SystemExit('it was run')")
    assert opened(folder).model.config.model_type == "bert"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bart_classifier", "a 'bart' model of encoder and decoder"),
        ("fnet", "a 'fnet' model, which has no attention mask"),
    ],
)
def test_what_cannot_answer_rightly_is_refused(tiny_base: Callable[[str], Path], name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        opened(tiny_base(name))
    with pytest.raises(ModelError, match=words):
        opened(tiny_base(name), pooling="mean")


# Folders that are something else.


def lora_adapter(folder: Path) -> None:
    folder.mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": "bert-base-uncased"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").write_bytes(b"")


def onnx_only(folder: Path) -> None:
    (folder / "onnx").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "onnx" / "model.onnx").write_bytes(b"")


def gguf_only(folder: Path) -> None:
    folder.mkdir()
    (folder / "model.Q4_K_M.gguf").write_bytes(b"")


def tensorflow(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "tf_model.h5").write_bytes(b"")


def bundle(folder: Path) -> None:
    folder.mkdir()
    for name in ("manifest.json", "golden.json", "config.json"):
        (folder / name).write_text("{}")


def inner_folder(folder: Path) -> None:
    (folder / "0_Transformer").mkdir(parents=True)
    (folder / "0_Transformer" / "config.json").write_text("{}")
    modules = [{"idx": 0, "path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}]
    (folder / "modules.json").write_text(json.dumps(modules))


@pytest.mark.parametrize(
    ("make", "words", "action"),
    [
        (lora_adapter, "is a LoRA adapter of bert-base-uncased, not a model", "name bert-base-uncased as the base; or"),
        (onnx_only, r"holds an ONNX graph and no weights for PyTorch.*\(onnx/model.onnx\)", "it was made from"),
        (gguf_only, r"holds a GGUF file and no weights for PyTorch", "it was made from"),
        (tensorflow, r"holds weights for TensorFlow alone \(tf_model.h5\)", "it was made from"),
        (bundle, "is a bundle that edgetune has built", "the base that the bundle was built from"),
        (inner_folder, "keeps its model in 0_Transformer/", "0_Transformer as the base"),
    ],
)
def test_a_folder_of_another_kind_is_named(
    tmp_path: Path, make: Callable[[Path], None], words: str, action: str
) -> None:
    make(tmp_path / "given")
    with pytest.raises(ModelError, match=words) as told:
        find_base(str(tmp_path / "given"))
    assert action in told.value.action


def test_a_setfit_folder_is_taken_for_its_body(copy_of: Callable[[str], Path]) -> None:
    folder = copy_of("bert")
    (folder / "model_head.pkl").write_bytes(b"")
    assert opened(folder).remarks == (
        "The base is a SetFit model: its body is taken, and its own head is not, since every head is learnt anew.",
    )
