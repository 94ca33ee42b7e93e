"""Divergence, agreement and perplexity: sums known by hand, and graphs beside themselves and a worse one."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgetune.benchmarks.prove.statistics import paired_loss
from edgetune.benchmarks.stepwise.divergence import Divergence, TextScore, divergences, text_score
from edgetune.serve.errors import DataError, GateError, ParityError
from edgetune.serve.stepwise.spec import GenerationSpec
from edgetune.tune.metrics import PERPLEXITY

SPEC = GenerationSpec(layers=1, kv_heads=1, head_dim=2, vocabulary=16, context_tokens=12, eos_ids=[2])


def bigram(path: Path, *, noise: float = 0.0, scale: float = 1.0, bad: bool = False) -> Path:
    """A decoder whose logits are a table's row by the last token: Gather, cut, product."""
    rng = np.random.default_rng(0)
    table = (scale * rng.normal(size=(16, 32)) + noise * rng.normal(size=(16, 32))).astype(np.float32)
    head = np.random.default_rng(1).normal(size=(32, 16)).astype(np.float32)
    if bad:
        table[5] = np.nan
    past = SPEC.past_names()[0]
    node = helper.make_node
    nodes = [
        node("Gather", ["table", "input_ids"], ["hidden"]),
        node("Slice", ["hidden", "minus_one", "huge", "axis"], ["cut"]),
        node("MatMul", ["cut", "head"], ["logits"]),
        node("Identity", [past], [SPEC.present_names()[0]]),
    ]
    constants = {
        "table": table,
        "head": head,
        "minus_one": np.asarray([-1]),
        "huge": np.asarray([2**62]),
        "axis": np.asarray([1]),
    }
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "bigram",
        [
            info("input_ids", TensorProto.INT64, ["batch", "tokens"]),
            info(past, TensorProto.FLOAT, ["batch", 1, "p", 2]),
        ],
        [
            info("logits", TensorProto.FLOAT, ["batch", 1, 16]),
            info(SPEC.present_names()[0], TensorProto.FLOAT, ["batch", 1, "p", 2]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


TEXTS = [np.random.default_rng(seed).integers(0, 16, 8).tolist() for seed in range(20)]


def test_the_sums_of_a_text_are_those_by_hand():
    half, quarter = math.log(0.5), math.log(0.25)
    reference = np.asarray([[half, half - 50], [half, half], [0, 0]], np.float32)
    candidate = np.asarray([[half, half - 50], [quarter, math.log(0.75)], [9, 9]], np.float32)
    score = text_score(reference, candidate, np.asarray([1, 0, 1]), np.ones(3, bool))
    # The first token is foretold by nothing; the logits at the last place foretell no token of the text.
    assert score.tokens == 2
    assert score.divergence_nats == pytest.approx(0.5 * (half - quarter) + 0.5 * (half - math.log(0.75)), abs=1e-6)
    # Likeliest of the reference: 0, then 0 of a tie, where the text has 0 and 1; of the candidate 0 and 1.
    assert (score.reference_hits, score.candidate_hits) == (1, 2)
    assert score.agreeing_tokens == 1  # at the second place the reference's tie goes to token 0, the candidate's to 1
    assert score.reference_nats == pytest.approx(-half, abs=1e-6)
    assert score.candidate_nats == pytest.approx(-math.log(0.75), abs=1e-6)


def test_only_scored_tokens_count():
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(2, 6, 9)).astype(np.float32)
    ids = np.arange(6)
    parts = [
        text_score(first, second, ids, np.asarray(mask, bool)) for mask in ([1, 1, 0, 1, 0, 0], [1, 0, 1, 0, 1, 1])
    ]
    whole = text_score(first, second, ids, np.ones(6, bool))
    assert [one.tokens for one in parts] == [2, 3]
    assert sum(one.divergence_nats for one in parts) == pytest.approx(whole.divergence_nats)
    assert sum(one.candidate_nats for one in parts) == pytest.approx(whole.candidate_nats)
    assert sum(one.agreeing_tokens for one in parts) == whole.agreeing_tokens


def test_means_are_over_tokens_and_the_rise_is_of_perplexity():
    found = Divergence((TextScore(10, 1.0, 9, 20.0, 21.0, 8, 7), TextScore(30, 3.0, 21, 60.0, 63.0, 12, 11)))
    assert (found.reference_accuracy, found.token_accuracy) == (0.5, 0.45)
    assert found.tokens == 40
    assert found.kl_nats == pytest.approx(0.1)
    assert found.top1_agreement == pytest.approx(0.75)
    assert found.reference_perplexity == pytest.approx(math.exp(2))
    assert found.perplexity == pytest.approx(math.exp(2.1))
    assert found.relative_rise == pytest.approx(math.expm1(0.1))
    reference, candidate = found.statistics
    assert reference.tolist() == [[20, 10], [60, 30]]
    assert candidate.tolist() == [[21, 10], [63, 30]]


def test_the_interval_is_that_of_pairs_and_holds_the_rise():
    rng = np.random.default_rng(0)
    # Texts differ by far more than the models do: only a paired interval sees the rise.
    levels = rng.uniform(50, 500, 200)
    rises = rng.normal(2.0, 1.0, 200)
    found = Divergence(
        tuple(TextScore(100, 0.0, 0, level, level + rise) for level, rise in zip(levels, rises, strict=True))
    )
    low, high = paired_loss(PERPLEXITY, *found.statistics).interval
    assert low < found.relative_rise < high
    assert low > 0.015
    assert high - low == pytest.approx(2 * 1.96 * 0.01 / math.sqrt(200) * math.exp(0.02), rel=0.2)


def test_what_was_saved_is_the_same_again(tmp_path):
    scores = Divergence((TextScore(3, 0.1, 2, 1 / 3, 2 / 7, 1, 0), TextScore(5, 1e-17, 5, 6.5, 6.5)))
    scores.save(tmp_path / "scores.json")
    assert Divergence.open(tmp_path / "scores.json") == scores


def test_a_graph_beside_itself_does_not_differ_and_a_worse_one_does(tmp_path):
    reference = bigram(tmp_path / "reference.onnx")
    candidates = {
        "same": bigram(tmp_path / "same.onnx"),
        "near": bigram(tmp_path / "near.onnx", noise=0.02),
        "far": bigram(tmp_path / "far.onnx", noise=1.0),
    }
    found = divergences(reference, candidates, TEXTS, spec=SPEC, threads=1)
    assert list(found) == ["same", "near", "far"]
    same = found["same"]
    assert (same.kl_nats, same.top1_agreement, same.relative_rise) == (0.0, 1.0, 0.0)
    assert same.tokens == 20 * 7
    assert 0 < found["near"].kl_nats < found["far"].kl_nats
    assert found["near"].top1_agreement > found["far"].top1_agreement
    assert found["near"].reference_perplexity == found["far"].reference_perplexity == same.perplexity
    assert sorted(path.name for path in tmp_path.iterdir()) == ["far.onnx", "near.onnx", "reference.onnx", "same.onnx"]


def test_perplexity_is_that_of_the_table(tmp_path):
    graph = bigram(tmp_path / "g.onnx")
    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(graph).graph.initializer}
    logits = (stored["table"] @ stored["head"]).astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    nats = [-math.log(shares[a, b]) for ids in TEXTS for a, b in pairwise(ids)]
    (found,) = divergences(graph, {"same": graph}, TEXTS, spec=SPEC, threads=1).values()
    assert found.perplexity == pytest.approx(math.exp(np.mean(nats)), rel=1e-5)


def test_labels_choose_the_tokens_and_texts_are_cut_to_the_context(tmp_path):
    graph = bigram(tmp_path / "g.onnx")
    long = list(range(16))
    labels = [[-100] * 4 + ids[4:] for ids in [*TEXTS, long]]
    (found,) = divergences(graph, {"same": graph}, [*TEXTS, long], spec=SPEC, labels=labels, threads=1).values()
    assert [one.tokens for one in found.texts] == [4] * 20 + [8]


@pytest.mark.parametrize("texts", [[], [[4]], [[4], []]])
def test_texts_with_nothing_to_score_are_refused(tmp_path, texts):
    with pytest.raises(DataError, match=f"none of {len(texts)} texts"):
        divergences(bigram(tmp_path / "g.onnx"), {}, texts, spec=SPEC)


def test_labels_of_another_text_are_refused(tmp_path):
    with pytest.raises(DataError, match="differ in number"):
        divergences(bigram(tmp_path / "g.onnx"), {}, [[1, 2, 3]], spec=SPEC, labels=[[1, 2]])


def test_logits_that_are_not_finite_are_a_fault_of_their_graph(tmp_path):
    graph, bad = bigram(tmp_path / "g.onnx"), bigram(tmp_path / "bad.onnx", bad=True)
    with pytest.raises(GateError, match="the candidate bad gives logits that are not finite"):
        divergences(graph, {"bad": bad}, [[3, 4, 5]], spec=SPEC, threads=1)
    # The reference is no candidate that a search could do without.
    with pytest.raises(ParityError, match="the reference gives logits that are not finite"):
        divergences(bad, {"good": graph}, [[3, 4, 5]], spec=SPEC, threads=1)
