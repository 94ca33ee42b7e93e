"""The GGUF layout in llama.cpp: the ids of texts and 64 greedy tokens of each family, against transformers.

llama.cpp is built from source in an environment of its own, by llama-cpp-python: minutes, and a C++ compiler.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edgetune.export.layouts import gguf as layout
from edgetune.serve.bundle import Bundle

pytestmark = [pytest.mark.slow, pytest.mark.servers]
pytest.importorskip("gguf", reason="the package gguf is not installed")

LLAMA_CPP = """
import json, sys
import llama_cpp, numpy

path, texts, rows, tokens, target = sys.argv[1], *map(json.loads, sys.argv[2:5]), sys.argv[5]
model = llama_cpp.Llama(
    model_path=path, n_ctx=0, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False,
    type_k=llama_cpp.GGML_TYPE_F32, type_v=llama_cpp.GGML_TYPE_F32,
)
ids = [model.tokenize(text.encode(), add_bos=True, special=True) for text in texts]
answers, logits = [], []
for row in rows:
    model.reset()
    answers.append([])
    for token in model.generate(row, temp=0.0, top_k=1, repeat_penalty=1.0):
        answers[-1].append(int(token))
        if len(answers[-1]) == tokens:
            break
    model.reset()
    model.eval(row)
    logits.append(model.scores[: len(row)].copy())
numpy.savez(target, *logits)
print(json.dumps([ids, answers, model.metadata.get("tokenizer.chat_template")]))
"""
TOKENS = 64
# The largest difference of a logit, as a share of their spread. ggml takes GELU from a table in half precision, which
# costs 4e-4 here; what has no GELU differs by 5e-6.
TOLERANCE, GELU_TOLERANCE = 1e-4, 2e-3
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
TEXTS = (
    "I'll pay 1234.50 euros, YOU'RE late!",
    "  two  spaces\n\n\tand a tab ",
    "é ü ñ 汉字 кот 🎉🎉",
    "</s> and <s>",
    "",
)


@pytest.fixture(scope="session")
def llama_cpp(server_environment):
    """The Python of an environment with llama-cpp-python, built from its source distribution."""
    with pytest.MonkeyPatch.context() as patch:  # no more than the library itself
        parts = ("LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_TOOLS", "LLAVA_BUILD", "GGML_NATIVE")
        patch.setenv("CMAKE_ARGS", " ".join(f"-D{part}=OFF" for part in parts))
        return server_environment("llama-cpp", ["llama-cpp-python==0.3.36"])


def greedy(model, row):
    """The greedy answer of transformers to a row of ids."""
    import torch

    ids, mask = torch.tensor([row]), torch.ones(1, len(row), dtype=torch.long)
    with torch.inference_mode():
        found = model.generate(ids, attention_mask=mask, do_sample=False, max_new_tokens=TOKENS, pad_token_id=0)
    return found[0, len(row) :].tolist()


def logits_of(model, row):
    import torch

    with torch.inference_mode():
        return model(torch.tensor([row])).logits[0].numpy()


class Asked:
    """A layout's file in llama.cpp, beside the model it was made of in transformers."""

    def __init__(self, python, python_output):
        self.python, self.python_output = python, python_output

    def compare(self, bundle, source, folder, texts, tolerance):
        """Write the layout; llama.cpp must split texts into the same ids, and see and answer them in the same way.

        Answers are the same up to a place where transformers itself was undecided between two tokens, if there is one.
        """
        from transformers import AutoTokenizer

        from edgetune.export.stepwise.graph import open_decoder

        layout.write_model(bundle, source, folder)
        assert layout.check(folder) == []
        tokenizer, model = AutoTokenizer.from_pretrained(source), open_decoder(source)
        rows = [tokenizer(text)["input_ids"] for text in texts]
        output = self.python_output(
            self.python, LLAMA_CPP, folder / "model.gguf",
            json.dumps([*texts, *TEXTS]), json.dumps(rows), TOKENS, folder / "logits.npz", cwd=folder,
        )  # fmt: skip
        ids, answers, template = json.loads(output.splitlines()[-1])
        assert ids == [tokenizer(text)["input_ids"] for text in (*texts, *TEXTS)]
        seen = np.load(folder / "logits.npz")
        for place, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            wanted = greedy(model, row)
            logits = logits_of(model, [*row, *wanted])
            most = tolerance * np.ptp(logits)
            assert np.abs(seen[f"arr_{place}"] - logits[: len(row)]).max() <= most
            apart = next((at for at, pair in enumerate(zip(answer, wanted, strict=False)) if pair[0] != pair[1]), None)
            if apart is not None:
                told = logits[len(row) - 1 + apart]
                assert told[wanted[apart]] - told[answer[apart]] <= 2 * most
        return template


@pytest.fixture(scope="session")
def asked(llama_cpp, python_output):
    return Asked(llama_cpp, python_output)


def reshaped(source, folder, **changes):
    """A random model of a folder's family in another shape, with its tokenizer."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(source, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for name, weight in model.named_parameters():
            if name.endswith(("norm.weight", "bias")):  # they start as ones and zeros: left out, nobody would see
                torch.nn.init.normal_(weight, mean=float("norm.weight" in name), std=0.2)
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    return folder


LLAMA3_ROPE = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
# What the tiny models leave at its usual value: each would go unseen if it were lost on the way.
SHAPES = {
    "llama": {"rope_parameters": LLAMA3_ROPE, "attention_bias": True, "mlp_bias": True, "rms_norm_eps": 1e-3},
    "llama-untied": {"tie_word_embeddings": False, "rope_parameters": {**ROPE, "rope_theta": 300.0}, "head_dim": 16},
    "qwen2": {"rope_parameters": {**ROPE, "rope_theta": 1e6}},
    "qwen3": {"head_dim": 32},
    "mistral": {"sliding_window": None},
    "smollm3": {"num_hidden_layers": 5, "no_rope_layers": [1, 1, 1, 0, 1], "layer_types": ["full_attention"] * 5},
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3": {"query_pre_attn_scalar": 16},
    "phi": {"rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
    "phi3": {"rope_parameters": {**ROPE, "partial_rotary_factor": 0.5}},
    "gpt2": {"n_inner": 96, "layer_norm_epsilon": 1e-3},
}


@pytest.mark.parametrize("name", SHAPES)
def test_llama_cpp_gives_the_same_tokens(asked, tiny_decoder, language_bundle, prompts, tmp_path, name):
    made = tmp_path / "made"
    made.mkdir()
    source = reshaped(tiny_decoder(name.partition("-")[0]), tmp_path / "model", **SHAPES[name])
    config = json.loads((source / "config.json").read_text("utf-8"))
    has_gelu = "gelu" in str([config.get(word) for word in ("hidden_act", "hidden_activation", "activation_function")])
    tolerance = GELU_TOLERANCE if has_gelu else TOLERANCE
    assert asked.compare(language_bundle, source, made, prompts, tolerance) is None


def test_llama_cpp_gives_the_same_tokens_of_real_weights(asked, language_bundle, tmp_path):
    """Of stories260K, a Llama with a tokenizer of characters; and it finds the bundle's template."""
    source = Path(os.environ.get("EDGETUNE_DATA", "/nowhere")) / "models" / "stories260K-llama"
    if not source.is_dir():
        pytest.skip("EDGETUNE_DATA has no stories260K-llama")
    spec = msgspec.structs.replace(language_bundle.manifest.generation, context_tokens=512, pad_id=2)
    shutil.copytree(language_bundle.folder, tmp_path / "bundle")
    (tmp_path / "bundle" / "chat_template.jinja").write_text("{{ messages }}", "utf-8")
    bundle = Bundle(tmp_path / "bundle", msgspec.structs.replace(language_bundle.manifest, generation=spec))
    made = tmp_path / "made"
    made.mkdir()
    texts = ["Once upon a time", "Lily and Tom went to the park", "The big dog said"]
    assert asked.compare(bundle, source, made, texts, TOLERANCE) == "{{ messages }}"
