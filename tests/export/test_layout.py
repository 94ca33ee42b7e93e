"""A bundle opens as it is in other servers: the rules of fastembed's and text-embeddings-inference's layouts."""

from __future__ import annotations

import json
from pathlib import Path

import onnxruntime
from tokenizers import Tokenizer

BUNDLE = Path(__file__).parents[1] / "golden" / "bundle-v1"


def read(name):
    return json.loads((BUNDLE / name).read_text(encoding="utf-8"))


def test_tokenizer_files_say_the_same_limit_and_no_padding():
    # fastembed cuts at the smaller of the two limits in tokenizer_config.json; text-embeddings-inference reads one.
    limit = read("manifest.json")["max_tokens"]
    config = read("tokenizer_config.json")
    assert config["model_max_length"] == config["max_length"] == limit
    tokenizer = Tokenizer.from_file(str(BUNDLE / "tokenizer.json"))
    assert tokenizer.truncation["max_length"] == limit
    assert tokenizer.padding is None
    for token in read("special_tokens_map.json").values():
        assert tokenizer.token_to_id(token) is not None


def test_config_names_the_classifier_and_its_labels():
    config, labels = read("config.json"), read("manifest.json")["labels"]
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert [config["id2label"][str(index)] for index in range(len(labels))] == labels
    assert config["label2id"] == {label: index for index, label in enumerate(labels)}
    assert config["pad_token_id"] == 0
    assert "_name_or_path" not in config


def test_the_graph_is_one_file_with_float32_logits():
    session = onnxruntime.InferenceSession(str(BUNDLE / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [(value.name, value.type) for value in session.get_outputs()] == [("logits", "tensor(float)")]
    assert {value.type for value in session.get_inputs()} == {"tensor(int64)"}
    assert not list(BUNDLE.glob("*.data"))
