"""Products of bytes under QEMU's Haswell: with the setting of our sessions their sums fit, without it they do not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.benchmarks.targets.emulation import CORES, prover_of
from edgetune.benchmarks.targets.proof import _FITTING

MICROSOFT = "com.microsoft"
WIDTH = 64
FLOAT, UINT8, INT8, INT32 = TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32
X = np.full((1, 4, WIDTH), 255, np.uint8)
WEIGHT = np.full((WIDTH, WIDTH), 127, np.int8)
ONE, ZERO, ZERO_8 = np.float32(1), np.uint8(0), np.int8(0)
ANSWER = """
import json, sys, numpy as np, onnxruntime as ort
answers = {}
for name, fits in json.loads(sys.argv[2]):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    if fits:
        options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(f"{sys.argv[1]}/{name}.onnx", options, providers=["CPUExecutionProvider"])
    feed = np.load(f"{sys.argv[1]}/{name}.npy")
    answers[f"{name} {fits}"] = session.run(None, {"x": feed})[0].astype(float).ravel().tolist()
print(json.dumps(answers))
"""


def attention_weight() -> np.ndarray:
    return np.full((WIDTH, 3 * WIDTH), 127, np.int8)


# name: (domain, inputs behind x as arrays, attributes, type of x and of the output, x)
OPERATORS = {
    "MatMulIntegerToFloat": (MICROSOFT, [WEIGHT, ONE, ONE, ZERO, ZERO_8], {}, UINT8, FLOAT, X),
    # Its range goes from 0 to 255, so that the largest activation is 255.
    "DynamicQuantizeMatMul": (MICROSOFT, [WEIGHT, ONE], {}, FLOAT, FLOAT, X.astype(np.float32)),
    "QAttention": (
        MICROSOFT,
        [attention_weight(), np.zeros(3 * WIDTH, np.float32), ONE, ONE, None, ZERO, ZERO_8],
        {"num_heads": 1},
        UINT8,
        FLOAT,
        X,
    ),
    "MatMulInteger": ("", [WEIGHT, ZERO, ZERO_8], {}, UINT8, INT32, X),
    "QLinearMatMul": ("", [ONE, ZERO, WEIGHT, ONE, ZERO_8, np.float32(32768), ZERO], {}, UINT8, UINT8, X),
    "QLinearConv": (
        "",
        [ONE, ZERO, np.full((8, WIDTH, 3, 3), 127, np.int8), ONE, ZERO_8, np.float32(131072), ZERO],
        {},
        UINT8,
        UINT8,
        np.full((1, WIDTH, 5, 5), 255, np.uint8),
    ),
}


def write(name: str, folder: Path) -> None:
    domain, constants, attributes, kind, result, x = OPERATORS[name]
    names = ["x", *("" if one is None else f"c{place}" for place, one in enumerate(constants))]
    node = helper.make_node(name, names, ["y"], domain=domain, **attributes)
    tensors = [
        numpy_helper.from_array(np.asarray(one), f"c{at}") for at, one in enumerate(constants) if one is not None
    ]
    value = helper.make_tensor_value_info("x", kind, list(x.shape))
    graph = helper.make_graph([node], name, [value], [helper.make_tensor_value_info("y", result, None)], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid(MICROSOFT, 1)])
    model.ir_version = 10
    onnx.save(model, folder / f"{name}.onnx")
    np.save(folder / f"{name}.npy", x)


def answers(command: list[str], folder: Path, variables: dict[str, str]) -> dict[str, list[float]]:
    asked = json.dumps([(name, fits) for name in OPERATORS for fits in (True, False)])
    environment = {**os.environ, **variables}
    ended = subprocess.run(
        [*command, "-c", ANSWER, str(folder), asked], env=environment, capture_output=True, check=True, text=True
    )
    return json.loads(ended.stdout)


@pytest.mark.long
@pytest.mark.skipif(prover_of("x86-64-v3").proof != "emulated", reason="no qemu-x86_64")
def test_sums_fit_where_they_are_asked_to_and_saturate_elsewhere(tmp_path):
    assert set(OPERATORS) == _FITTING
    for name in OPERATORS:
        write(name, tmp_path)

    here = answers([sys.executable, "-P"], tmp_path, {})
    command, variables = prover_of("x86-64-v3").start(tmp_path / "root")
    assert CORES["x86-64-v3"].cpu in command
    there = answers(command, tmp_path, variables)

    fit = {name: there[f"{name} True"] == here[f"{name} True"] for name in OPERATORS}
    assert fit == dict.fromkeys(OPERATORS, True)
    saturated = {name: there[f"{name} False"] != here[f"{name} True"] for name in OPERATORS}
    assert saturated == dict.fromkeys(OPERATORS, True)
