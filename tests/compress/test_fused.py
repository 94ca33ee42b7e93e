"""Fused graphs answer as the graphs they were made of, in the operators they were meant to reach."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgetune.compress.fusion.embedding import fold_embeddings
from edgetune.compress.fusion.parity import check_parity
from edgetune.compress.fusion.pooling import fuse_mean_pooling
from edgetune.compress.fusion.positions import table_of_distances
from edgetune.compress.fusion.rows import drop_rows
from edgetune.compress.material import Material
from edgetune.compress.schemes import fused
from edgetune.serve.errors import CompressError
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.tasks import TASKS
from tests.compress.marks import marks_of

LABELLING = TASKS["text-classification"]

TOKENS = 96  # the longest input of the tiny checkpoints

# Nodes of each graph before and after, and the attention that is reached: MultiHeadAttention takes biases.
REACHED = {
    "bert": "Attention", "distilbert": "Attention", "roberta": "Attention", "electra": "Attention",
    "albert": "Attention", "xlm_roberta": "Attention", "mpnet": "MultiHeadAttention",
    "modernbert": "MultiHeadAttention", "deberta_v2": "MultiHeadAttention",
}  # fmt: skip
LAYERS = {"modernbert": 3}


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(str(path)).graph.node)


def logits(path: Path, feeds: dict[str, NDArray[np.int64]]) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    found: NDArray[np.float32] = session.run(["logits"], {name: feeds[name] for name in names})[0]
    return found


def ragged_feeds(material: Material, lengths: list[int]) -> dict[str, NDArray[np.int64]]:
    """Random words of the vocabulary in rows of these lengths, padded to the longest."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(material.model.model_folder)
    words = sorted(set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids))
    chosen = np.random.default_rng(4)
    shape = (len(lengths), max(lengths))
    mask = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    ids = np.where(mask, chosen.choice(words, shape), tokenizer.pad_token_id)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape, np.int64)}


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks_of(name)) for name in REACHED])
def test_it_answers_as_the_graph_it_was_made_of(
    tiny_material: Callable[[str], tuple[Material, Path]], tmp_path: Path, name: str
) -> None:
    material, graph = tiny_material(name)
    made_by = fused.compress(graph, tmp_path / "fused.onnx", material)

    assert "logits within" in made_by
    # The longest length beside rows of all padding but one token, then one short row alone, then one token alone.
    for lengths in ([TOKENS, 1, 7, 1, 40, TOKENS - 1], [3], [1], [2, 17, 5]):
        feeds = ragged_feeds(material, lengths)
        expected = logits(graph, feeds)
        assert np.abs(logits(tmp_path / "fused.onnx", feeds) - expected).max() < 1e-4 * max(1, np.abs(expected).max())
        if len(lengths) > 3:
            assert np.ptp(expected, axis=0).max() > 0.02, "the texts all get one answer: nothing lost would show"
    found = operators(tmp_path / "fused.onnx")
    assert found[REACHED[name]] == LAYERS.get(name, 2)
    assert found["SkipLayerNormalization"] == 0
    assert [value.name for value in onnx.load(tmp_path / "fused.onnx").graph.input] == ["input_ids", "attention_mask"]

    fused.compress(graph, tmp_path / "again.onnx", material)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "fused.onnx").read_bytes()


def test_bert_is_made_of_these_operators(tiny_material: Callable[[str], tuple[Material, Path]], tmp_path: Path) -> None:
    material, graph = tiny_material("bert")
    fused.compress(graph, tmp_path / "fused.onnx", material)
    layers = {"Attention": 2, "MatMul": 6, "BiasGelu": 2, "Cast": 1}
    norms = {"Add": 1 + 8, "LayerNormalization": 1 + 4}  # embeddings, then bias and residual for each norm
    embedding = {"Gather": 1 + 2, "Shape": 1, "Slice": 1}  # words; the first row of attention and of its residual
    assert operators(tmp_path / "fused.onnx") == {**layers, **norms, **embedding, "Gemm": 2, "Tanh": 1}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "head", "places"), [("distilbert", "Relu", "Slice"), ("roberta", "Tanh", "CumSum")])
def test_its_kin_are_made_of_the_same(
    tiny_material: Callable[[str], tuple[Material, Path]], tmp_path: Path, name: str, head: str, places: str
) -> None:
    material, graph = tiny_material(name)
    fused.compress(graph, tmp_path / "fused.onnx", material)
    found = operators(tmp_path / "fused.onnx")
    expected = {"Attention": 2, "MatMul": 6, "BiasGelu": 2, "LayerNormalization": 5, "Gemm": 2, head: 1, places: 1}
    assert {operator: found[operator] for operator in expected} == expected
    assert found["GatherElements"] == found["Expand"] == 0  # RoBERTa's one token type


@pytest.mark.slow
def test_relative_positions_and_windows_are_looked_up(
    tiny_material: Callable[[str], tuple[Material, Path]], tmp_path: Path
) -> None:
    for name, gone in (
        ("mpnet", {"Log", "GatherND", "Softmax"}),
        ("modernbert", {"GatherND", "Cos", "Sin", "Softmax"}),
    ):
        material, graph = tiny_material(name)
        assert gone <= set(operators(graph))
        fused.compress(graph, tmp_path / f"{name}.onnx", material)
        assert not gone & set(operators(tmp_path / f"{name}.onnx"))


def test_token_types_stay_where_the_tokenizer_gives_them(tiny_material: Callable[[str], tuple[Material, Path]]) -> None:
    from transformers import AutoTokenizer

    material, graph = tiny_material("bert")
    model = onnx_ir.load(graph)
    tokenizer = AutoTokenizer.from_pretrained(material.model.model_folder)
    texts = material.train.texts
    assert fused.constant_inputs(model, Encoder(tokenizer, TOKENS, LABELLING), texts) == {"token_type_ids": 0}
    pairs = Encoder(tokenizer, TOKENS, TASKS["text-pair-classification"])
    assert fused.constant_inputs(model, pairs, list(pairwise(texts))) == {}
    fold_embeddings(model, TOKENS, {})
    assert [node.op_type for node in model.graph].count("Gather") == 2 + 1  # words and types; the pooled row


def test_a_graph_that_answers_otherwise_is_refused(
    tiny_material: Callable[[str], tuple[Material, Path]], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    material, graph = tiny_material("bert")
    broken = onnx.load(graph)
    for node in broken.graph.node:
        if node.op_type == "Attention":
            node.input[3] = ""  # the padding is seen
    onnx.save(broken, tmp_path / "broken.onnx")
    tokenizer = AutoTokenizer.from_pretrained(material.model.model_folder)
    with pytest.raises(CompressError, match="logits differ from the given graph's by"):
        check_parity(graph, tmp_path / "broken.onnx", Encoder(tokenizer, TOKENS, LABELLING), material.train.texts)
    assert check_parity(graph, graph, Encoder(tokenizer, TOKENS, LABELLING), material.train.texts) == 0


def pooling_graph(path: Path, *, mean: bool) -> Path:
    """`logits`: the mean over the tokens of `tanh(one_hot @ weight)`, or its first row; weight (3, 2) known by hand."""
    make = helper.make_node
    states = [
        make("Gather", ["table", "input_ids"], ["words"]),
        make("MatMul", ["words", "weight"], ["products"]),
        make("Relu", ["products"], ["states"]),
    ]
    tail = [
        make("Unsqueeze", ["attention_mask", "last"], ["raised"]),
        make("Cast", ["raised"], ["mask"], to=TensorProto.FLOAT),
        make("Mul", ["states", "mask"], ["masked"]),
        make("ReduceSum", ["masked", "tokens"], ["total"], keepdims=0),
        make("ReduceSum", ["mask", "tokens"], ["count"], keepdims=0),
        make("Max", ["count", "one"], ["clamped"]),
        make("Div", ["total", "clamped"], ["logits"]),
    ]
    constants = {
        "table": np.eye(3, dtype=np.float32), "weight": np.array([[1, 2], [3, 4], [-5, 6]], np.float32),
        "last": np.array([-1]), "tokens": np.array([1]), "one": np.array(1, np.float32), "first": np.array(0),
    }  # fmt: skip
    first = [make("Gather", ["states", "first"], ["logits"], axis=1)]
    sides = [
        helper.make_tensor_value_info(name, TensorProto.INT64, ["b", "t"]) for name in ("input_ids", "attention_mask")
    ]
    graph = helper.make_graph(
        [*states, *(tail if mean else first)],
        "pooling",
        sides if mean else sides[:1],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["b", 2])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def rewritten(path: Path, rewrite: Callable[[onnx_ir.Model], None]) -> Path:
    model = onnx_ir.load(path)
    rewrite(model)
    onnx_ir.save(model, path)
    return path


@pytest.mark.parametrize(("provider", "norms"), [("cpu", 1), ("cuda", 0)])
def test_mean_pooling_becomes_one_product_and_an_empty_row_pools_to_zero(
    tmp_path: Path, provider: str, norms: int
) -> None:
    feeds = {
        "input_ids": np.array([[0, 1, 2], [2, 0, 0], [1, 1, 1]]),
        "attention_mask": np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]]),
    }
    expected = np.array([[4 / 3, 4], [0, 6], [0, 0]], np.float32)
    graph = pooling_graph(tmp_path / "g.onnx", mean=True)
    assert logits(graph, feeds) == pytest.approx(expected)
    rewritten(graph, lambda model: fuse_mean_pooling(model, provider))
    assert operators(graph).get("LpNormalization", 0) == norms  # CUDA has no kernel for it
    assert operators(graph)["MatMul"] == 2
    assert logits(graph, feeds) == pytest.approx(expected)


def test_rows_are_dropped_for_one_position_and_kept_for_the_mean(tmp_path: Path) -> None:
    first = rewritten(pooling_graph(tmp_path / "first.onnx", mean=False), drop_rows)
    names = [node.op_type for node in onnx.load(first).graph.node]
    assert names == ["Gather", "Gather", "MatMul", "Relu"]  # the row is picked before the product, not after it
    assert logits(first, {"input_ids": np.array([[1, 0], [2, 1]])}) == pytest.approx(np.array([[3, 4], [0, 6]]))
    mean = pooling_graph(tmp_path / "mean.onnx", mean=True)
    before = operators(mean)
    assert operators(rewritten(mean, drop_rows)) == before


def test_a_table_of_distances_is_found_only_where_diagonals_are_alike() -> None:
    places = np.arange(4)[None, :] - np.arange(4)[:, None]
    assert table_of_distances(places, 4).tolist() == [-3, -2, -1, 0, 1, 2, 3]  # type: ignore[union-attr]
    assert table_of_distances(np.stack([places, 2 * places]), 4).shape == (2, 7)  # type: ignore[union-attr]
    places[2, 3] = 9
    assert table_of_distances(places, 4) is None
    assert table_of_distances(np.arange(4), 4) is None


def test_it_always_applies(tiny_material: Callable[[str], tuple[Material, Path]]) -> None:
    material, _ = tiny_material("bert")
    assert fused.unsuitable(material) == fused.unsuitable(replace(material, provider="cuda")) == ""
