"""Static tables as a graph and under another vocabulary, with hash tables of every size and what cannot be stored."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgetune.compress.static_student.quantization import quantize_rows
from edgetune.export.once.static_tables import (
    PROBES,
    _hash_slots,
    folded,
    write_static_graph,
)
from edgetune.export.once.static_vocabulary import for_vocabulary
from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.engines.static import StaticEngine, read_tables
from edgetune.serve.engines.tables import StaticTables
from edgetune.serve.errors import ParityError
from edgetune.serve.session import open_session


def random_tables(width=8, outputs=3, pairs=40, vocabulary=60, seed=0):
    generator = np.random.default_rng(seed)
    rows, scales = quantize_rows(generator.normal(size=(30, width)).astype(np.float32))
    rows[0] = 0
    token_rows = generator.integers(0, 30, vocabulary).astype(np.int32)
    keys = np.unique(generator.integers(0, vocabulary, pairs) << 32 | generator.integers(0, vocabulary, pairs))
    return StaticTables(
        rows=rows,
        scales=scales,
        token_rows=token_rows,
        pair_keys=keys,
        pair_rows=generator.integers(1, 30, len(keys)).astype(np.int32),
        head=generator.normal(size=(width, outputs)).astype(np.float32),
        bias=generator.normal(size=outputs).astype(np.float32),
    )


def by_hand(tables, ids):
    """The formula, feature by feature, in float64."""
    pairs = dict(zip(tables.pair_keys.tolist(), tables.pair_rows.tolist(), strict=True))
    features = [int(tables.token_rows[token]) for token in ids]
    features += [pairs.get(ids[place] * 2**32 + ids[place + 1], 0) for place in range(len(ids) - 1)]
    features = [row for row in features if row]
    total = np.zeros(tables.rows.shape[1])
    for row in features:
        total += tables.rows[row].astype(float) * tables.scales[row]
    return total / np.sqrt(max(1, len(features))) @ tables.head + tables.bias


@pytest.mark.parametrize("make", [lambda tables: tables, folded], ids=["with a head", "folded"])
@pytest.mark.parametrize("shape", [{}, {"pairs": 0}, {"width": 2}, {"width": 1, "outputs": 1}, {"pairs": 3000}])
def test_graph_engine_and_formula_agree(tmp_path, make, shape):
    tables = make(random_tables(**shape))
    spec = write_static_graph(tables, tmp_path / "model.onnx")
    again = read_tables(spec, tmp_path)
    for name in vars(tables):
        np.testing.assert_array_equal(getattr(again, name), getattr(tables, name), err_msg=name)
    generator = np.random.default_rng(1)
    rows = [generator.integers(0, 60, size).tolist() for size in (1, 2, 5, 40)]
    rows.append([int(token) for token in np.flatnonzero(tables.token_rows == 0)[:1]])  # nothing that says anything
    expected = [by_hand(tables, ids) for ids in rows]
    engine = StaticEngine.of(again)
    encoded = [EncodedText(ids, [0] * len(ids), False) for ids in rows]
    np.testing.assert_allclose(engine.logits(encoded), expected, atol=1e-4)
    np.testing.assert_array_equal(np.vstack([engine.logits([one]) for one in encoded]), engine.logits(encoded))
    ids, mask = np.zeros((len(rows), 40), np.int64), np.zeros((len(rows), 40), np.int64)
    for row, tokens in enumerate(rows):
        ids[row, : len(tokens)], mask[row, : len(tokens)] = tokens, 1
    session = open_session(tmp_path / "model.onnx", provider="cpu", threads=1)
    feed = {"input_ids": ids, "attention_mask": mask}
    np.testing.assert_allclose(session.run(["logits"], feed)[0], expected, atol=1e-4)


def test_weights_are_stored_once_in_plain_operators(tmp_path):
    tables = random_tables(pairs=2000)
    write_static_graph(tables, tmp_path / "model.onnx")
    stored = sum(getattr(tables, name).nbytes for name in vars(tables))
    size = (tmp_path / "model.onnx").stat().st_size
    assert size < stored + 4 * 4 * len(tables.pair_keys) + 16_384  # the slots beside them, and the nodes
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}


def test_folding_leaves_the_answers():
    tables = random_tables(width=64, outputs=5)
    narrow = folded(tables)
    assert narrow.rows.shape == (30, 5)
    ids = list(range(50))
    spread = np.ptp(by_hand(tables, ids))
    np.testing.assert_allclose(by_hand(narrow, ids), by_hand(tables, ids), atol=0.01 * spread)
    wide = random_tables(width=2, outputs=5)
    assert folded(wide) is wide


def test_every_key_is_found_within_the_probes():
    generator = np.random.default_rng(0)
    for count in (0, 1, 2, 100, 20_000):
        keys = np.unique(generator.integers(0, 250_000, count) << 32 | generator.integers(0, 250_000, count))
        slots, probes = _hash_slots(keys)
        assert probes <= PROBES
        assert sorted(slots[slots > 0].tolist()) == list(range(1, len(keys) + 1))


def test_a_row_of_nothing_that_says_something_is_refused(tmp_path):
    tables = random_tables()
    tables.rows[0], tables.scales[0] = 100, 1
    with pytest.raises(ParityError, match="differs from its tables"):
        write_static_graph(tables, tmp_path / "model.onnx")


def test_another_vocabulary_takes_the_rows_along(tmp_path):
    from tokenizers import Tokenizer, models

    for name, words in (("old", "a b c d".split()), ("new", "d x b".split())):
        (tmp_path / name).mkdir()
        vocabulary = {word: place for place, word in enumerate(words)}
        Tokenizer(models.WordLevel(vocabulary, unk_token="b")).save(str(tmp_path / name / "tokenizer.json"))
    tables = StaticTables(
        rows=np.array([[0], [1], [2], [3], [4], [5]], np.int8),
        scales=np.ones(6, np.float32),
        token_rows=np.array([1, 2, 0, 3], np.int32),  # of a, b, c, d
        pair_keys=np.array([0 << 32 | 1, 1 << 32 | 3], np.int64),  # a b, b d
        pair_rows=np.array([4, 5], np.int32),
        head=np.eye(1, dtype=np.float32),
        bias=np.zeros(1, np.float32),
    )
    moved = for_vocabulary(tables, tmp_path / "old", tmp_path / "new")
    assert moved.rows[moved.token_rows].ravel().tolist() == [3, 0, 2]  # of d, x, b
    assert moved.pair_keys.tolist() == [2 << 32 | 0]
    assert moved.rows[moved.pair_rows].ravel().tolist() == [5]
    assert len(moved.rows) == 4
