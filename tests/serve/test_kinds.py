"""Every head with every codec: a whole bundle opens, answers, replays its golden answers and refuses other inputs."""

from __future__ import annotations

import asyncio
import json
import shutil

import msgspec
import numpy as np
import pytest

from edgetune.serve import LabelsPrediction, NumberPrediction, Prediction, load
from edgetune.serve.bundle import Bundle
from edgetune.serve.errors import BundleDamaged, InputError
from edgetune.serve.golden import replay_golden
from edgetune.serve.heads import HEADS
from tests.golden.kinds import TEXT_CODECS

ANSWERS = {"label": Prediction, "labels": LabelsPrediction, "number": NumberPrediction}
INPUTS = {
    "text": ["where is my parcel", "i forgot my password", "money back"],
    "text-pair": [("where is my parcel", "card"), ("card", "where is my parcel"), ("money", "back " * 60)],
}

every_kind = pytest.mark.parametrize("kind", HEADS)
every_codec = pytest.mark.parametrize("codec", TEXT_CODECS)


@every_kind
@every_codec
def test_a_bundle_answers_and_replays(kind_bundle, kind, codec):
    folder = kind_bundle(kind, codec)
    with load(folder, threads=1) as predictor:
        answers = predictor.predict(INPUTS[codec])
        assert [type(answer) for answer in answers] == [ANSWERS[kind]] * 3
        assert [answer.truncated for answer in answers] == [False, False, codec == "text-pair"]
        assert predictor.predict_one(INPUTS[codec][0]) == predictor.predict(INPUTS[codec][:1])[0]
        joined = asyncio.run(predictor.predict_async(INPUTS[codec]))
        assert [answer.truncated for answer in joined] == [answer.truncated for answer in answers]
        logits = predictor.logits(predictor.encode(INPUTS[codec]))
        assert logits.shape == (3, predictor.head.width) == (3, 1 if kind == "number" else 3)
        assert [answer.plain for answer in joined] == [
            pytest.approx(predictor.head.plain(row)) if kind == "number" else predictor.head.plain(row)
            for row in predictor.head.decide(logits)
        ]
        replay = replay_golden(predictor)
    assert replay.cases == 8
    assert replay.max_abs_diff < 1e-5


def test_the_order_of_a_pair_matters(kind_bundle):
    predictor = load(kind_bundle("number", "text-pair"), threads=1)
    first, second = predictor.predict(INPUTS["text-pair"][:2])
    assert abs(first.value - second.value) > 1e-4


def test_type_ids_reach_the_graph(kind_bundle):
    predictor = load(kind_bundle("number", "text-pair"), threads=1)
    feed = predictor.feed(predictor.encode(INPUTS["text-pair"][:1]))
    assert feed["token_type_ids"].max() == 1
    flat = {**feed, "token_type_ids": np.zeros_like(feed["token_type_ids"])}
    assert abs(predictor.run(feed) - predictor.run(flat)).max() > 1e-4


def test_several_labels_and_none(kind_bundle):
    predictor = load(kind_bundle("labels"), threads=1)
    texts = [case.text for case in predictor.golden().cases]
    scores = predictor.scores(texts)
    answers = predictor.predict(texts)
    given = scores >= np.array([0.5, 0.6, 0.4])
    assert [answer.labels for answer in answers] == [
        [label for label, there in zip(predictor.labels, row, strict=True) if there] for row in given
    ]
    assert {len(answer.labels) for answer in answers} >= {1}
    for answer, row in zip(answers, scores.tolist(), strict=True):
        assert list(answer.scores.values()) == pytest.approx(row)


@every_kind
def test_a_single_text_for_pairs_and_a_pair_for_texts_are_refused(kind_bundle, kind):
    with pytest.raises(InputError, match="Input 1 is a single text"):
        load(kind_bundle(kind, "text-pair"), threads=1).predict([("a", "b"), "card"])
    with pytest.raises(InputError, match="Text 0 is of type tuple"):
        load(kind_bundle(kind, "text"), threads=1).predict([("a", "b")])


@every_kind
@every_codec
def test_the_manifest_says_what_is_not_taken_for_granted(kind_bundle, kind, codec):
    manifest = json.loads((kind_bundle(kind, codec) / "manifest.json").read_text("utf-8"))
    assert manifest.get("codec") == (None if codec == "text" else codec)
    assert [head["kind"] for head in manifest.get("heads", [])] == ([] if kind == "label" else [kind])
    assert Bundle.open(kind_bundle(kind, codec)).manifest.answer_heads[0].kind == kind


@every_kind
@every_codec
def test_golden_answers_hold_what_their_kind_needs_and_no_more(kind_bundle, kind, codec):
    golden = json.loads((kind_bundle(kind, codec) / "golden.json").read_text("utf-8"))
    answer = "label" if kind == "label" else "answer"
    pair = ["text_pair", "type_ids"] if codec == "text-pair" else []
    for case in golden["cases"]:
        assert list(case) == ["text", "input_ids", "logits", answer, *pair]


def changed(folder, target, change):
    """A copy of a bundle whose golden answers are changed, its manifest told of it."""
    from edgetune.export.once.pack import write_manifest

    shutil.copytree(folder, target)
    golden = json.loads((target / "golden.json").read_text("utf-8"))
    change(golden)
    (target / "golden.json").write_text(json.dumps(golden), "utf-8")
    write_manifest(target, Bundle.open(target, verify=False).manifest)
    return load(target, threads=1)


@pytest.mark.parametrize(
    ("kind", "codec", "change", "message"),
    [
        ("labels", "text", {"answer": ["account", "delivery", "payment"]}, "is answered .* instead of"),
        ("labels", "text", {"answer": ["weather"]}, "was packed for other labels"),
        ("labels", "text", {"answer": None}, "was packed for other labels"),
        ("number", "text", {"answer": 100.0}, "is answered .* instead of 100.0"),
        ("number", "text", {"answer": ["payment"]}, "was packed for another head"),
        ("label", "text-pair", {"type_ids": [1, 1]}, "tokenizes differently"),
        ("label", "text-pair", {"text_pair": "another"}, "tokenizes differently"),
    ],
)
def test_changed_golden_answers_are_told(kind_bundle, tmp_path, kind, codec, change, message):
    predictor = changed(kind_bundle(kind, codec), tmp_path / "bundle", lambda golden: golden["cases"][0].update(change))
    with pytest.raises(BundleDamaged, match=message):
        replay_golden(predictor)


def test_thresholds_of_another_bundle_are_told(kind_bundle, tmp_path):
    from edgetune.export.once.pack import write_manifest

    target = tmp_path / "bundle"
    shutil.copytree(kind_bundle("labels"), target)
    manifest = Bundle.open(target).manifest
    heads = [msgspec.structs.replace(manifest.heads[0], thresholds=[0.001, 0.001, 0.001])]
    write_manifest(target, msgspec.structs.replace(manifest, heads=heads))
    with pytest.raises(BundleDamaged, match=r"golden answers differ: .* is answered"):
        replay_golden(load(target, threads=1))
