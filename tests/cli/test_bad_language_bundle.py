"""Every kind of bad input to a language model's bundle through the command line, and bundles that are damaged: the exit
code, and a message that says what was found, what was expected and what to do. Nothing ends in a traceback.

The bundle is made by hand: each word is followed by the next of one sentence, so every answer is known and no graph
has to be exported.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import onnx
import pytest

from .here import Ended

WORDS = ["<pad>", "<s>", "</s>", "<unk>", "the", "cat", "sees", "a", "red", "fish", "now"]
CONTEXT_TOKENS = 24
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}"


def assert_told(ended: Ended, code: int, *facts: str) -> None:
    """The exit code, nothing on stdout but stage lines, and found, expected and to do on stderr."""
    assert ended.code == code, ended
    assert ended.err.startswith("Error: "), ended
    for fact in (*facts, "Expected: ", "To do: "):
        assert fact in ended.err, ended.err
    assert "Traceback" not in ended.err + ended.out


def next_word_graph(path: Path, next_ids: list[int], *, nan: bool = False) -> None:
    """A decoder that gives each token's successor, with a cache of one layer that it fills with zeros."""
    from onnx import TensorProto, helper, numpy_helper

    table = np.full((len(next_ids), len(next_ids)), np.nan if nan else -5, dtype=np.float32)
    table[np.arange(len(next_ids)), next_ids] += 10
    cache = ["batch", 1, "past", 2], ["batch", 1, "total", 2]
    past = [f"input.past_key_values.layers.0.{part}" for part in ("keys", "values")]
    present = [f"output.past_key_values.layers.0.{part}" for part in ("keys", "values")]
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["logits"]),
        helper.make_node("Cast", ["input_ids"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["floats", "axes"], ["column"]),
        helper.make_node("Concat", ["column", "column"], ["new"], axis=3),
        *(
            helper.make_node("Concat", [one, "new"], [other], axis=2)
            for one, other in zip(past, present, strict=True)
        ),
    ]  # fmt: skip
    value, ids = helper.make_tensor_value_info, ["batch", "tokens"]
    graph = helper.make_graph(
        nodes, "next-word",
        [value("input_ids", TensorProto.INT64, ids), *(value(name, TensorProto.FLOAT, cache[0]) for name in past)],
        [value("logits", TensorProto.FLOAT, [*ids, len(next_ids)]),
         *(value(name, TensorProto.FLOAT, cache[1]) for name in present)],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(np.array([1, 3]), "axes")],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def write_bundle(folder: Path) -> Path:
    """A bundle of the sentence "the cat sees a red fish now", after which the answer ends."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    folder.mkdir()
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    (folder / "config.json").write_text("{}")
    next_word_graph(folder / "model.onnx", [2, 4, 2, 2, 5, 6, 7, 8, 9, 10, 2])
    case = {"prompt": "the cat", "input_ids": [4, 5], "tokens": [6, 7, 8], "top": [[6, 5.0]]}
    (folder / "golden.json").write_text(json.dumps({"tolerance": 0.1, "cases": [case]}))
    return restamped(folder)


def restamped(folder: Path) -> Path:
    """The bundle with a manifest of what now lies in it."""
    files = {
        path.name: {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        for path in folder.iterdir()
        if path.name != "manifest.json"
    }
    spec = {
        "layers": 1, "kv_heads": 1, "head_dim": 2, "vocabulary": len(WORDS), "context_tokens": CONTEXT_TOKENS,
        "eos_ids": [2], "bos_id": 1, "pad_id": 0,
    }  # fmt: skip
    manifest = {
        "format": 1, "name": "talk", "task": "text-generation", "labels": [], "inputs": [], "outputs": [],
        "max_tokens": CONTEXT_TOKENS, "scheme": "fp32", "provider": "cpu", "dtypes": {"float32": 1.0},
        "base": {"id": "talk", "digest": "sha256:" + "0" * 64}, "data_digest": "sha256:" + "0" * 64,
        "versions": {}, "created": "2026-01-02T03:04:05+00:00", "files": files, "generation": spec,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The bundle, to damage."""
    return write_bundle(tmp_path / "talk")


def test_the_bundle_answers(edgetune, bundle):
    assert edgetune("predict", bundle, "the cat", "a").out.splitlines() == [" sees a red fish now", " red fish now"]
    assert edgetune("verify", bundle).code == 0


def test_a_prompt_longer_than_the_context_is_named(edgetune, bundle):
    ended = edgetune("predict", bundle, "the cat", "the cat " * 30)
    assert_told(
        ended, 1, "Text 2, 'the cat the cat the cat the cat the cat ...': The prompt has 60 tokens.",
        "at most 23: the context holds 24, the answer included", "shorten the prompt",
    )  # fmt: skip
    assert ended.out == " sees a red fish now\n"
    assert edgetune("predict", bundle, "--json", "the cat", "the cat " * 30).out == ""


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        (("",), "The prompt is blank."),
        ((" \n",), "The prompt is blank."),
        (("", "  "), "All 2 prompts are blank."),
        (("", "--raw"), "The prompt is blank."),
    ],
)
@pytest.mark.parametrize("form", [(), ("--json",)])
def test_an_empty_prompt(edgetune, bundle, prompts, said, form):
    ended = edgetune("predict", bundle, *form, *prompts)
    assert ended.code == 1
    assert ended.err == f"Error: {said}\nExpected: texts with something in them\n"


def test_an_empty_prompt_among_others_keeps_its_place(edgetune, bundle):
    ended = edgetune("predict", bundle, stdin="red\n\nthe cat sees a\n")
    assert (ended.code, ended.out.splitlines()) == (0, [" fish now", "", " red fish now"])
    assert ended.err == "1 of 3 texts are blank and got no answer.\n"
    told = json.loads(edgetune("predict", bundle, "--json", "", "red").out)
    assert told[0] == {"prompt": "", "text": None, "token_ids": None, "finish": None, "prompt_tokens": None}
    assert told[1] == {
        "prompt": "red",
        "text": " fish now",
        "token_ids": [9, 10, 2],
        "finish": "stop",
        "prompt_tokens": 1,
    }


def test_text_that_no_encoding_can_carry(edgetune, bundle):
    ended = edgetune("predict", bundle, "red \udcff")
    assert_told(ended, 1, "The prompt got no answer for an unpaired surrogate", "valid Unicode")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--top", "3"), "--top would have no effect"),
        (("--max-tokens", "0"), "--max-tokens"),
        (("--top-p", "0"), "--top-p"),
        (("--temperature", "-1"), "--temperature"),
    ],
)
def test_options_that_cannot_be(edgetune, bundle, options, said):
    ended = edgetune("predict", bundle, "red", *options)
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


def test_options_of_language_models_for_a_classifier(edgetune, workshop):
    ended = edgetune("predict", workshop.folder / "bundle", "my card", "--max-tokens", "3", "--raw")
    assert (ended.code, ended.out) == (2, "")
    assert "--max-tokens, --raw would have no effect" in ended.err


def test_a_temperature_that_is_no_number(edgetune, bundle):
    ended = edgetune("predict", bundle, "red", "--temperature", "nan")
    assert (ended.code, ended.out) == (1, "")
    assert "temperature is nan.\nExpected: temperature: a finite number, 0 or more" in ended.err


def test_a_provider_that_does_not_run_here(edgetune, bundle, monkeypatch):
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    ended = edgetune("predict", bundle, "red", "--provider", "cuda")
    assert (ended.code, ended.out) == (1, "")
    assert "The provider 'cuda' does not run here" in ended.err
    assert edgetune("predict", bundle, "red", "--provider", "cpu").out == " fish now\n"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no such chat') }}", "fails on this chat (user): no such chat"),
        ("{{ messages[3].content }}", "fails on this chat (user): list object has no element 3"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails on this chat (user): maximum recursion depth"),
        ("", "writes nothing for this chat (user)."),
    ],
)
def test_a_template_that_fails_on_a_prompt(edgetune, bundle, template, said):
    (bundle / "chat_template.jinja").write_text(template)
    restamped(bundle)
    ended = edgetune("predict", bundle, "red")
    assert_told(ended, 1, "Text 1, 'red': The chat template ", said)
    assert edgetune("predict", bundle, "red", "--raw").out == " fish now\n"


def test_a_template_that_is_none(edgetune, bundle):
    (bundle / "chat_template.jinja").write_text("{% for")
    ended = edgetune("predict", restamped(bundle), "red")
    assert ended.code == 1
    assert "chat_template.jinja is no Jinja template" in ended.err
    assert "To do: " in ended.err


def test_a_template_that_is_not_listed_is_named_and_never_rendered(edgetune, bundle):
    (bundle / "chat_template.jinja").unlink()
    restamped(bundle)
    expected = edgetune("predict", bundle, "the cat")
    (bundle / "chat_template.jinja").write_text("red red red")
    (bundle / "tokenizer_config.json.bak").write_text("{}")
    ended = edgetune("predict", bundle, "the cat")
    assert ended.out == " sees a red fish now\n"
    assert (ended.code, ended.out) == (expected.code, expected.out)
    verified = edgetune("verify", bundle)
    assert verified.code == 0
    assert "never read: 'chat_template.jinja', 'tokenizer_config.json.bak'." in verified.out


@pytest.mark.parametrize("command", ["predict", "verify"])
def test_logits_that_are_no_numbers(edgetune, bundle, command):
    next_word_graph(bundle / "model.onnx", [2] * len(WORDS), nan=True)
    ended = edgetune(command, restamped(bundle), *(["red"] if command == "predict" else []))
    said = {"predict": "The graph gave logits that are no numbers (the largest is nan).", "verify": "is off by nan"}
    assert_told(ended, 1, said[command])
    assert ended.out == ""


@pytest.mark.parametrize("command", ["predict", "verify", "serve"])
def test_a_tokenizer_that_does_not_fit_its_graph(edgetune, bundle, command):
    content = json.loads((bundle / "tokenizer.json").read_text())
    content["model"]["vocab"]["dog"] = len(WORDS)
    (bundle / "tokenizer.json").write_text(json.dumps(content))
    ended = edgetune(command, restamped(bundle), *(["red"] if command == "predict" else []))
    assert_told(ended, 1, "does not fit its graph: it knows 12 tokens, the graph 11.", "copy the bundle again")
    assert ended.out == ""


@pytest.mark.parametrize("pattern", ["past.{layer:>2000000000}", "past.{nobody}", "past.{", "past.{layer.__class__}"])
def test_names_of_a_cache_are_filled_in_and_never_obeyed(edgetune, bundle, pattern):
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["generation"]["past"] = pattern
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    for command in (("predict", bundle, "red"), ("verify", bundle)):
        ended = edgetune(*command)
        assert_told(ended, 1, "is not the decoder that was described")


def _changed_graph(bundle, change):
    model = onnx.load(bundle / "model.onnx")
    change(model.graph)
    onnx.save(model, bundle / "model.onnx")
    return restamped(bundle)


def _rank_of_past(graph):
    del graph.input[1].type.tensor_type.shape.dim[0]


def _rows_of_logits(graph):
    """Twice as many rows of logits as were asked for."""
    gather = next(node for node in graph.node if node.output[0] == "logits")
    gather.output[0] = "all"
    graph.node.append(onnx.helper.make_node("Concat", ["all", "all"], ["logits"], axis=0))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_rank_of_past, "ONNX Runtime|dimensions instead of 4"),
        (_rows_of_logits, r"gave logits of the shape \(2, \d, 11\)"),
    ],
)
@pytest.mark.parametrize("command", ["predict", "verify"])
def test_a_decoder_of_other_shapes_is_a_message(edgetune, bundle, change, said, command):
    ended = edgetune(command, _changed_graph(bundle, change), *(["red"] if command == "predict" else []))
    assert (ended.code, ended.out) == (1, "")
    assert re.search(said, ended.err)
    assert "Traceback" not in ended.err


def test_a_golden_token_outside_the_vocabulary(edgetune, bundle):
    golden = json.loads((bundle / "golden.json").read_text())
    golden["cases"][0]["tokens"] = [6, 700]
    (bundle / "golden.json").write_text(json.dumps(golden))
    assert_told(edgetune("verify", restamped(bundle)), 1, "'the cat' was packed for another vocabulary")


@pytest.mark.parametrize("command", ["predict", "verify"])
@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tokenizer.json", "tokenizer.json is no tokenizer"),
        ("model.onnx", "ONNX Runtime cannot open"),
        ("golden.json", "golden.json cannot be read"),
    ],
)
def test_a_file_of_the_bundle_that_is_something_else(edgetune, bundle, command, name, said):
    (bundle / name).write_text("{}")
    ended = edgetune(command, bundle, *(["red"] if command == "predict" else []))
    assert_told(ended, 1, f"{name} has 2 bytes instead of ", "copy the bundle again")
    if (command, name) != ("predict", "golden.json"):  # which is not read to answer
        ended = edgetune(command, restamped(bundle), *(["red"] if command == "predict" else []))
        assert ended.code == 1
        assert said in ended.err
        assert "Traceback" not in ended.err


def test_what_words_add_is_not_measured_of_generated_text(edgetune, bundle):
    assert_told(edgetune("explain", bundle, "the cat"), 1, "generates text")
    ended = edgetune("predict", bundle, "the cat", "--explain")
    assert (ended.code, "--explain would have no effect" in ended.err) == (2, True)
