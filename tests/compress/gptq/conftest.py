"""A decoder small enough to know by hand: tied embedding, positions, MatMul with bias, both kinds of Gemm, a cache."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.serve.stepwise.spec import GenerationSpec

VOCABULARY, HIDDEN, WIDE, CONTEXT = 96, 64, 160, 48
SPEC = GenerationSpec(
    layers=1, kv_heads=2, head_dim=32, vocabulary=VOCABULARY, context_tokens=CONTEXT, eos_ids=[2], bos_id=1
)


@pytest.fixture(scope="session")
def toy_spec() -> GenerationSpec:
    return SPEC


@pytest.fixture(scope="session")
def toy_sequences() -> list[list[int]]:
    """24 sequences of 8 to 40 tokens in which a few tokens are far more common than the others, as in a language."""
    rng = np.random.default_rng(5)
    shares = 1 / np.arange(1, VOCABULARY + 1)
    return [rng.choice(VOCABULARY, size=rng.integers(8, 40), p=shares / shares.sum()).tolist() for _ in range(24)]


@pytest.fixture(scope="session")
def write_toy() -> Callable[..., Path]:
    """`write_toy(path)` writes the toy decoder; `full_logits` leaves the cut to the last position out."""
    return _write_toy


@pytest.fixture(scope="session")
def toy_graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy decoder's file; not to be changed."""
    return _write_toy(tmp_path_factory.mktemp("toy-decoder") / "model.onnx")


def toy_weights(seed: int = 1) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)

    def random(*shape: int, size: float) -> np.ndarray:
        return (rng.normal(size=shape) * size).astype(np.float32)

    # Inputs that move together, as hidden states do: without that GPTQ has nothing to make errors good with.
    embedding = random(VOCABULARY, 12, size=1.0) @ random(12, HIDDEN, size=0.5) + random(VOCABULARY, HIDDEN, size=0.1)
    return {
        "embed": embedding.astype(np.float32),
        "positions": random(CONTEXT, HIDDEN, size=0.05),
        "mix": random(HIDDEN, HIDDEN, size=0.1),
        "mix_bias": random(HIDDEN, size=0.1),
        "up": random(HIDDEN, WIDE, size=0.1),
        "up_bias": random(WIDE, size=0.1),
        "down": random(HIDDEN, WIDE, size=0.1),
        "down_bias": random(HIDDEN, size=0.1),
    }


def _write_toy(path: Path, *, full_logits: bool = False, seed: int = 1) -> Path:
    node = helper.make_node
    past = SPEC.past_names()
    present = SPEC.present_names()
    nodes = [
        node("Gather", ["embed", "input_ids"], ["tokens"], name="embed_tokens"),
        node("Gather", ["positions", "position_ids"], ["places"], name="embed_positions"),
        node("Add", ["tokens", "places"], ["hidden"]),
        node("MatMul", ["hidden", "mix"], ["mixed"], name="mix_product"),
        node("Add", ["mixed", "mix_bias"], ["mixed_on"]),
        node("Reshape", ["mixed_on", "heads_shape"], ["by_head"]),
        node("Transpose", ["by_head"], ["heads"], perm=[0, 2, 1, 3]),
        node("Concat", [past[0], "heads"], [present[0]], axis=2),
        node("Concat", [past[1], "heads"], [present[1]], axis=2),
        node("Reshape", ["mixed_on", "rows_shape"], ["rows"]),
        node("Gemm", ["rows", "up", "up_bias"], ["upped"], name="up_product"),
        node("Relu", ["upped"], ["active"]),
        node("Gemm", ["active", "down", "down_bias"], ["downed"], name="down_product", transB=1),
        node("Shape", ["hidden"], ["hidden_shape"]),
        node("Reshape", ["downed", "hidden_shape"], ["back"]),
        node("Add", ["hidden", "back"], ["last"]),
        node("Transpose", ["embed"], ["head"], perm=[1, 0]),
    ]
    if not full_logits:
        nodes.append(node("Slice", ["last", "minus_one", "huge", "axis_one"], ["cut"]))
    nodes.append(node("MatMul", ["last" if full_logits else "cut", "head"], ["logits"], name="head_product"))
    constants: dict[str, Any] = {
        **toy_weights(seed),
        "heads_shape": np.asarray([0, 0, 2, 32]),
        "rows_shape": np.asarray([-1, HIDDEN]),
        "minus_one": np.asarray([-1]),
        "huge": np.asarray([2**62]),
        "axis_one": np.asarray([1]),
    }
    whole = ["batch", "tokens"]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "toy",
        [info(name, TensorProto.INT64, whole) for name in ("input_ids", "position_ids")]
        + [info(name, TensorProto.FLOAT, ["batch", 2, "past", 32]) for name in past],
        [info("logits", TensorProto.FLOAT, ["batch", "tokens" if full_logits else 1, VOCABULARY])]
        + [info(name, TensorProto.FLOAT, ["batch", 2, "total", 32]) for name in present],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    for one in graph.node:
        entry = one.metadata_props.add()
        entry.key, entry.value = "pkg.torch.onnx.stack_trace", "File /home/someone/model.py, line 1 " * 20
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


@pytest.fixture(scope="session")
def product_graph() -> Callable[..., Path]:
    """`product_graph(path, node, x_shape, **constants)`: one node that reads `x` and gives `logits`."""
    return _product_graph


def _product_graph(path: Path, node: Any, x_shape: list[Any], constants: dict[str, np.ndarray]) -> Path:
    graph = helper.make_graph(
        [node] if not isinstance(node, list) else node,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return path
