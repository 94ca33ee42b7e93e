"""A graph whose table of tokens is cut answers as before, and none is cut that does more with ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, models

from edgetune.compress.int8 import quantize_tables
from edgetune.export.once.retabled import rows_in_whole, write_retabled

WORDS = [f"w{number}" for number in range(40)]
TABLE = np.arange(40 * 16, dtype=np.float32).reshape(40, 16) - 300


def model_folder(folder: Path, words: list[str], rows: int | None = None) -> Path:
    folder.mkdir()
    tokenizer = Tokenizer(models.WordLevel({word: at for at, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "config.json").write_text(json.dumps({"vocab_size": rows or len(words)}), "utf-8")
    return folder


def graph_of(path: Path, *, more: tuple[str, ...] = (), quantized: bool = False) -> Path:
    """Rows of the table, one for each id; `more` are operators that read the ids too."""
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["logits"], axis=0)]
    nodes += [helper.make_node(name, ["input_ids"], [f"{name}_out"]) for name in more]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "tokens", 16])]
    outputs += [helper.make_tensor_value_info(f"{name}_out", TensorProto.INT64, None) for name in more]
    graph = helper.make_graph(
        nodes,
        "table",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "tokens"])],
        outputs,
        [numpy_helper.from_array(TABLE, "table")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(model, path)
    if quantized:
        import onnx_ir

        loaded = onnx_ir.load(path)
        assert quantize_tables(loaded) == 1
        onnx_ir.save(loaded, path)
    return path


def answers(path: Path, ids: list[int]) -> np.ndarray:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["logits"], {"input_ids": np.array([ids], np.int64)})[0][0]


@pytest.mark.parametrize("quantized", [False, True])
def test_each_token_keeps_its_row(tmp_path, quantized) -> None:
    old, new = model_folder(tmp_path / "old", WORDS), model_folder(tmp_path / "new", ["w0", "w39", "w7"])
    graph = graph_of(tmp_path / "whole.onnx", more=("Shape",), quantized=quantized)
    rows = rows_in_whole(old, new)
    assert rows is not None
    assert rows.tolist() == [0, 39, 7]
    assert write_retabled(graph, tmp_path / "cut.onnx", old, new)
    np.testing.assert_array_equal(answers(tmp_path / "cut.onnx", [2, 0, 1, 1]), answers(graph, [7, 0, 39, 39]))
    made = onnx.load(str(tmp_path / "cut.onnx")).graph
    read = {name for node in made.node for name in node.input}
    assert {tensor.dims[0] for tensor in made.initializer if tensor.name in read} == {3}


def test_ids_that_mean_more_than_a_row_are_left_alone(tmp_path) -> None:
    old, new = model_folder(tmp_path / "old", WORDS), model_folder(tmp_path / "new", WORDS[:9])
    target = tmp_path / "cut.onnx"
    assert not write_retabled(graph_of(tmp_path / "a.onnx", more=("Neg",)), target, old, new)
    odd = model_folder(tmp_path / "odd", WORDS, rows=48)  # the table has rows for no token
    assert not write_retabled(graph_of(tmp_path / "b.onnx"), target, odd, new)
    assert rows_in_whole(old, model_folder(tmp_path / "wide", WORDS[:9], rows=12)) is None
    assert rows_in_whole(old, model_folder(tmp_path / "other", ["w0", "never"])) is None
    assert not target.exists()
