"""A graph for a trimmed vocabulary, made of the one for the whole vocabulary: only its table of tokens is cut.

Exporting, fusing and quantizing a trimmed model gives the very same nodes over fewer rows, at the price of half a
minute. What is made here is not trusted: it has to answer as the graph that it was made of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.fusion.surgery import constant
from edgetune.serve.bundle import CONFIG_NAME, TOKENIZER_NAME
from edgetune.serve.tokenizing import read_tokenizer

if TYPE_CHECKING:
    import onnx_ir

    from edgetune.serve.predictor import Predictor
    from edgetune.tune.data.rows import Input

IDS = "input_ids"
# Of each look-up, the inputs that hold a row for each token: the table, and its scales and zero points.
_TABLES = {"Gather": (0,), "GatherBlockQuantized": (0, 2, 3)}
# Largest difference of logits, as a share of their spread: the same products in the same order.
TOLERANCE = 1e-5


def write_retabled(graph: Path, target: Path, old: Path, new: Path) -> bool:
    """Write `graph` with the rows of the tokens that `new` has, in its order.

    Args:
        graph: of the model in `old`.
        target: the file to write.
        old, new: model folders, tokenizer.json and config.json; the tokens of `new` are some of those of `old`.

    Returns:
        Whether it was written: False where the graph does more with ids than look them up in tables of all tokens, or
        where it is not known which token a row is for.
    """
    import onnx_ir

    rows = rows_in_whole(old, new)
    model = onnx_ir.load(graph)
    tables = None if rows is None else _tables(model, table_rows(old))
    if rows is None or not tables:
        return False
    for table in tables:
        array = np.ascontiguousarray(constant(table)[rows])  # type: ignore[index]
        table.const_value = onnx_ir.tensor(array, dtype=table.dtype, name=table.name)
        table.shape = onnx_ir.Shape(array.shape)
    onnx_ir.save(model, target)
    return True


def rows_in_whole(old: Path, new: Path) -> NDArray[np.int64] | None:
    """The id that each token of `new` has in `old`, (tokens,) int64; None where a row of `new` is for no token."""
    before, after = (read_tokenizer(folder / TOKENIZER_NAME).get_vocab() for folder in (old, new))
    rows = np.full(table_rows(new), -1, np.int64)
    for token, place in after.items():
        if place < len(rows):
            rows[place] = before.get(token, -1)
    return rows if len(rows) and rows.min() >= 0 else None


def table_rows(folder: Path) -> int:
    """Rows of a model's table of tokens, by its configuration."""
    return int(json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))["vocab_size"])


def _tables(model: onnx_ir.Model, tokens: int) -> list[onnx_ir.Value]:
    """All that holds a row for each token; none where ids go anywhere else."""
    ids = next((value for value in model.graph.inputs if value.name == IDS), None)
    tables: dict[str, onnx_ir.Value] = {}
    for use in ids.uses() if ids is not None else ():
        node, places = use.node, _TABLES.get(use.node.op_type, ())
        if node.op_type == "Shape":  # how many there are, not which
            continue
        if use.idx != 1 or not places or ("axis" in node.attributes and node.attributes["axis"].as_int()):
            return []
        for value in (node.inputs[place] for place in places if place < len(node.inputs)):
            if value is None:
                continue
            array = constant(value)
            if array is None or array.shape[0] != tokens or any(other.node is not node for other in value.uses()):
                return []
            tables[str(value.name)] = value
    return list(tables.values())


def same_answers(whole: Predictor, trimmed: Predictor, texts: Sequence[Input], rows: NDArray[np.int64] | None) -> bool:
    """Whether two bundles answer the texts alike that both split alike, one by one and in batches.

    Args:
        whole, trimmed: before and after.
        texts: to compare on.
        rows: as `rows_in_whole` gives them.

    Returns:
        False also where no text is split alike, or rows are not known.
    """
    if rows is None:
        return False
    pairs = zip(whole.encode(texts), trimmed.encode(texts), strict=True)
    alike = [(before, after) for before, after in pairs if before.all_ids == rows[after.all_ids].tolist()]
    if not alike:
        return False
    for size in (1, len(alike)):
        expected, actual = (
            bundle.logits([pair[side] for pair in alike], batch_size=size)
            for side, bundle in enumerate((whole, trimmed))
        )
        if not np.abs(expected - actual).max() <= TOLERANCE * max(float(expected.std()), 1.0):
            return False
    return True
