"""Static tables as a graph: one file that other hosts run, and whose initializers the numpy engine reads in place.

Pairs are looked up by an exact hash table with a few probes, in plain operators of ONNX: a slot holds the place of a
key, the key is compared, and whatever does not match counts as no pair.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.static_student.quantization import quantize_rows
from edgetune.serve.engines.spec import EngineSpec, TensorPlace
from edgetune.serve.engines.static import StaticEngine, is_identity
from edgetune.serve.engines.tables import StaticTables
from edgetune.serve.errors import CompressError, ParityError

OPSET = 17
PROBES = 8
# Slots for each pair at first; doubled until no key needs more probes.
SLOTS_A_PAIR = 2
# Of the hash of a pair: first id * one + second id * the other, below 2**63 for ids below 2**31.
_FACTORS = (2_654_435_761, 40_503)
# Not a pair: ids are not negative.
_NO_KEY, _MASKED = -1, -2
# The largest difference of graph and engine, as a share of the outputs' spread.
PARITY = 1e-4
_PARITY_ROWS, _PARITY_TOKENS = 64, 24


def folded(tables: StaticTables) -> StaticTables:
    """The same tables with the head multiplied into the rows, where that leaves no more numbers; else as they are.

    Rows are rounded again, to 8 bits with a scale each: of the largest output of a row that is 0.4%.
    """
    if tables.head.shape[1] > tables.head.shape[0] or is_identity(tables.head):
        return tables
    exact = (tables.rows * tables.scales[:, None]).astype(np.float64) @ tables.head.astype(np.float64)
    rows, scales = quantize_rows(exact.astype(np.float32))
    identity = np.eye(tables.head.shape[1], dtype=np.float32)
    return StaticTables(
        rows, scales, tables.token_rows, tables.pair_keys, tables.pair_rows, head=identity, bias=tables.bias
    )


def write_static_graph(tables: StaticTables, target: Path) -> EngineSpec:
    """Write the tables to `target` as a graph, prove it equal to the engine, and tell where its tensors lie.

    Inputs input_ids and attention_mask (batch, tokens) int64, output logits (batch, outputs) float32.

    Raises:
        CompressError: the pairs find no hash table.
        ParityError: graph and engine differ.
    """
    import onnx

    arrays = _initializers(tables)
    onnx.save(_model(tables, arrays), str(target))
    content = target.read_bytes()
    places = {name: _place(content, array) for name, array in _stored(tables, arrays).items()}
    _check_equal(tables, target)
    return EngineSpec(kind="static", file=target.name, tensors=places)


def _initializers(tables: StaticTables) -> dict[str, NDArray[Any]]:
    """The graph's tensors by name. Keys and rows of pairs stand behind one entry that no pair has."""
    slots, probes = _hash_slots(tables.pair_keys)
    arrays: dict[str, NDArray[Any]] = {
        "rows": tables.rows,
        "scales": tables.scales,
        "token_rows": tables.token_rows,
        "pair_keys": np.concatenate([np.array([_NO_KEY], np.int64), tables.pair_keys]),
        "pair_rows": np.concatenate([np.zeros(1, np.int32), tables.pair_rows]),
        "slots": slots,
        "probes": np.arange(probes, dtype=np.int64),
        "bias": tables.bias,
    }
    return arrays if is_identity(tables.head) else {**arrays, "head": tables.head}


def _stored(tables: StaticTables, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What the engine reads of them."""
    named = {name: getattr(tables, name) for name in ("rows", "scales", "token_rows", "pair_keys", "pair_rows", "bias")}
    return {**named, "head": tables.head} if "head" in arrays else named


def _hash_slots(keys: NDArray[np.int64]) -> tuple[NDArray[np.int32], int]:
    """Slots (size + probes,) int32 with the place of each key, counted from 1, and how many probes find every key.

    Raises:
        CompressError: no size up to 64 slots a pair does.
    """
    size = 1
    while size < SLOTS_A_PAIR * len(keys):
        size *= 2
    first, second = keys >> 32, keys & 0xFFFF_FFFF
    hashes = first * _FACTORS[0] + second * _FACTORS[1]
    while size <= 64 * max(1, len(keys)):
        slots = np.zeros(size + PROBES, np.int32)
        furthest = 0
        for place, home in enumerate((hashes % size).tolist(), start=1):
            step = next((step for step in range(PROBES) if slots[home + step] == 0), PROBES)
            furthest = max(furthest, step)
            if step == PROBES:
                break
            slots[home + step] = place
        if furthest < PROBES:
            return slots[: size + furthest], furthest + 1
        size *= 2
    raise CompressError(
        f"{len(keys):,} pairs of tokens find no hash table.", expected=f"one in which {PROBES} probes find each"
    )


def _model(tables: StaticTables, arrays: dict[str, NDArray[Any]]) -> Any:
    """The graph as a model of onnx."""
    from onnx import TensorProto, helper, numpy_helper

    size = len(arrays["slots"]) - len(arrays["probes"]) + 1
    constants = {
        "zero": np.array([0], np.int64),
        "one": np.array([1], np.int64),
        "two": np.array([2], np.int64),
        "last": np.array([-1], np.int64),
        "end": np.array([2**31], np.int64),
        "shift": np.array(2**32, np.int64),
        "first_factor": np.array(_FACTORS[0], np.int64),
        "second_factor": np.array(_FACTORS[1], np.int64),
        "size": np.array(size, np.int64),
        "masked": np.array(_MASKED, np.int64),
        "no_row": np.array(0, np.int32),
        "least_count": np.array(1, np.float32),
    }
    tensors = [
        numpy_helper.from_array(np.ascontiguousarray(value), name) for name, value in (arrays | constants).items()
    ]
    nodes = [
        helper.make_node(kind, inputs.split(), [output], **options)
        for kind, inputs, output, options in _nodes("head" in arrays)
    ]
    shape = ["batch", "tokens"]
    graph = helper.make_graph(
        nodes,
        "static",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in ("input_ids", "attention_mask")],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(tables.bias)])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="edgetune")
    model.ir_version = 8
    return model


def _nodes(has_head: bool) -> list[tuple[str, str, str, dict[str, Any]]]:
    """Operator, inputs, output and attributes of each node, in order."""
    nodes: list[tuple[str, str, str, dict[str, Any]]] = [
        ("Cast", "attention_mask", "there", {"to": 9}),
        ("Gather", "token_rows input_ids", "row_of_token", {}),
        ("Where", "there row_of_token no_row", "tokens_there", {}),
        ("Slice", "input_ids zero last one", "first", {}),
        ("Slice", "input_ids one end one", "second", {}),
        ("Slice", "attention_mask zero last one", "first_mask", {}),
        ("Slice", "attention_mask one end one", "second_mask", {}),
        ("Mul", "first_mask second_mask", "both_masks", {}),
        ("Cast", "both_masks", "both", {"to": 9}),
        ("Mul", "first shift", "first_shifted", {}),
        ("Add", "first_shifted second", "key_of_ids", {}),
        ("Where", "both key_of_ids masked", "key", {}),
        ("Mul", "first first_factor", "first_hash", {}),
        ("Mul", "second second_factor", "second_hash", {}),
        ("Add", "first_hash second_hash", "hash", {}),
        ("Mod", "hash size", "home", {}),
        ("Unsqueeze", "home two", "home_column", {}),
        ("Add", "home_column probes", "slot", {}),
        ("Gather", "slots slot", "place", {}),
        ("Gather", "pair_keys place", "key_there", {}),
        ("Unsqueeze", "key two", "key_column", {}),
        ("Equal", "key_there key_column", "match", {}),
        ("Gather", "pair_rows place", "row_there", {}),
        ("Where", "match row_there no_row", "row_of_pair", {}),
        ("ReduceSum", "row_of_pair two", "pairs_there", {"keepdims": 0}),  # a key stands in one slot at most
        ("Concat", "tokens_there pairs_there", "features", {"axis": 1}),
        ("Gather", "rows features", "rows_int8", {}),
        ("Cast", "rows_int8", "rows_float", {"to": 1}),
        ("Gather", "scales features", "scales_there", {}),
        ("Unsqueeze", "scales_there one", "scales_row", {}),
        ("MatMul", "scales_row rows_float", "sum_row", {}),
        ("Squeeze", "sum_row one", "sum", {}),
        ("Cast", "features", "features_bool", {"to": 9}),
        ("Cast", "features_bool", "counted", {"to": 1}),
        ("ReduceSum", "counted one", "count", {"keepdims": 1}),
        ("Max", "count least_count", "count_or_one", {}),
        ("Sqrt", "count_or_one", "root", {}),
        ("Div", "sum root", "vector", {}),
    ]
    if has_head:
        nodes.append(("MatMul", "vector head", "product", {}))
    return [*nodes, ("Add", f"{'product' if has_head else 'vector'} bias", "logits", {})]


def _place(content: bytes, array: NDArray[Any]) -> TensorPlace:
    """Where an array's bytes lie in a file; the same bytes elsewhere are the same tensor."""
    offset = content.find(np.ascontiguousarray(array).tobytes())
    if offset < 0:
        raise CompressError(
            "A tensor of the static graph is not stored as it was given.", expected="raw little-endian data"
        )
    return TensorPlace(offset, str(array.dtype), list(array.shape))  # type: ignore[arg-type]  # one of its names


def _check_equal(tables: StaticTables, graph: Path) -> None:
    """Compare graph and engine on batches of ids: pairs that the tables have, ids at random, and padded rows.

    Raises:
        ParityError: they differ.
    """
    from edgetune.serve.session import open_session

    generator = np.random.default_rng(0)
    vocabulary = len(tables.token_rows)
    ids = generator.integers(0, vocabulary, (_PARITY_ROWS, _PARITY_TOKENS))
    if len(tables.pair_keys):
        keys = generator.choice(tables.pair_keys, (_PARITY_ROWS, _PARITY_TOKENS // 4))
        ids[:, 0 : 2 * keys.shape[1] : 2], ids[:, 1 : 2 * keys.shape[1] : 2] = keys >> 32, keys & 0xFFFF_FFFF
    lengths = generator.integers(1, _PARITY_TOKENS + 1, _PARITY_ROWS)
    mask = (np.arange(_PARITY_TOKENS) < lengths[:, None]).astype(np.int64)
    feed = {"input_ids": ids.astype(np.int64), "attention_mask": mask}
    session = open_session(graph, provider="cpu", threads=1)
    by_graph, by_engine = session.run(["logits"], feed)[0], StaticEngine.of(tables).run(feed)
    alone = session.run(["logits"], {name: value[:1, :1] for name, value in feed.items()})[0]
    difference = float(np.abs(by_graph - by_engine).max())
    first = StaticEngine.of(tables).run({name: value[:1, :1] for name, value in feed.items()})
    difference = max(difference, float(np.abs(alone - first).max()))
    spread = float(np.ptp(by_engine)) or 1.0
    if not difference <= PARITY * spread:
        raise ParityError(
            f"The graph of the static model differs from its tables by {difference:.3g} of a spread of {spread:.3g}.",
            expected=f"at most {PARITY:g} of the spread",
            action="report this with the data's language; nothing was written to the output",
        )
