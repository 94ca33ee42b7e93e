"""Answering: what is asked, in which order, and that a text's neighbours do not change its answer."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas
import pyarrow
import pytest

from edgetune.serve import EdgetuneError, Prediction, Predictor, load
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs.padding import pad_batch
from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.errors import BundleDamaged, BundleFormatError, InputError

from .conftest import GOLDEN

# Of every length from none to the longest, shuffled: sorted by length they stand in quite another order.
TEXTS = [
    "where is my parcel since yesterday",
    "card",
    "reset my it today again not was it",
    "",
    "i was charged twice, please help me to have my money paid back again today",
    "my parcel has not arrived",
    "?",
    "again please arrived not my yesterday still still address the is why still today",
    "login",
]


@pytest.fixture(scope="module")
def predictor():
    return load(GOLDEN, threads=1, provider="cpu")


def test_an_answer_is_the_best_label_with_all_scores(predictor):
    answer = predictor.predict_one("where is my parcel")
    assert isinstance(answer, Prediction)
    assert answer.label == "delivery"
    assert list(answer.scores) == ["account", "delivery", "payment"]
    assert answer.score == answer.scores["delivery"] == max(answer.scores.values())
    assert sum(answer.scores.values()) == pytest.approx(1, abs=1e-6)
    assert answer.truncated is False


def test_scores_are_a_matrix_in_the_order_of_the_labels(predictor):
    scores = predictor.scores(TEXTS)
    assert (scores.shape, scores.dtype) == ((len(TEXTS), 3), np.float32)
    for row, answer in zip(scores.tolist(), predictor.predict(TEXTS), strict=True):
        assert dict(zip(predictor.labels, row, strict=True)) == answer.scores


@pytest.mark.parametrize("batch_size", [1, 2, 4, 32])
def test_answers_stand_in_the_order_of_the_texts(predictor, batch_size):
    alone = [predictor.predict_one(text) for text in TEXTS]
    together = predictor.predict(TEXTS, batch_size=batch_size)
    assert [answer.label for answer in together] == [answer.label for answer in alone]
    assert len({answer.score for answer in alone}) == len(TEXTS)  # or a swapped pair would go unseen
    np.testing.assert_allclose([a.score for a in together], [a.score for a in alone], atol=1e-5)


def test_neighbours_do_not_change_the_logits(predictor):
    tokenized = predictor.encode(TEXTS)
    alone = np.concatenate([predictor.logits([text]) for text in tokenized])
    np.testing.assert_allclose(predictor.logits(tokenized), alone, atol=1e-5, rtol=0)
    np.testing.assert_allclose(predictor.logits(tokenized[::-1])[::-1], alone, atol=1e-5, rtol=0)


def test_padding_is_masked(predictor):
    feed = pad_batch(predictor.encode(["where is my parcel"]), pad_id=0)
    wider = {name: np.pad(values, ((0, 0), (0, 9))) for name, values in feed.items()}
    np.testing.assert_allclose(predictor.run(wider), predictor.run(feed), atol=1e-5, rtol=0)


def test_no_text_is_refused(predictor):
    for nothing in ([], (), np.array([], dtype=str)):
        with pytest.raises(InputError, match="There is no text to answer") as caught:
            predictor.predict(nothing)
        assert caught.value.expected == "at least one text"


@pytest.mark.parametrize("ask", ["predict", "scores", "encode"])
def test_a_bare_string_is_refused(predictor, ask):
    with pytest.raises(InputError, match="One string was given") as caught:
        getattr(predictor, ask)("where is my parcel")
    assert caught.value.expected == "a list of texts"
    assert "predict_one" in caught.value.action


@pytest.mark.parametrize(("value", "kind"), [(None, "NoneType"), (3, "int"), (b"card", "bytes"), (["card"], "list")])
def test_what_is_no_text_is_told_by_its_place(predictor, value, kind):
    with pytest.raises(InputError, match=rf"Text 1 is of type {kind}\.") as caught:
        predictor.predict(["card", value])
    assert caught.value.expected.startswith("a string")


@pytest.mark.parametrize("texts", [["a\ud800b"], ["card", "\udfff"]])
def test_an_unpaired_surrogate_is_refused(predictor, texts):
    with pytest.raises(InputError, match="unpaired surrogate") as caught:
        predictor.predict(texts)
    assert "errors='replace'" in caught.value.action


def test_texts_may_come_from_anywhere(predictor):
    wanted = predictor.predict(TEXTS)
    assert predictor.predict(tuple(TEXTS)) == wanted
    assert predictor.predict(text for text in TEXTS) == wanted
    assert predictor.predict(np.array(TEXTS)) == wanted
    assert predictor.predict(dict.fromkeys(TEXTS).keys()) == wanted
    assert predictor.predict(pandas.Series(TEXTS, index=range(7, 7 + len(TEXTS)))) == wanted
    assert predictor.predict(pyarrow.array(TEXTS).to_pylist()) == wanted


NO_LISTS = {
    "frame": (pandas.DataFrame({"text": ["card", "cash", "login"]}), "A DataFrame was given, whose elements are its"),
    "table": (pyarrow.table({"text": ["card", "cash"]}), "A Table was given, whose elements are its columns"),
    "dict": ({"text": "card", "id": "1"}, "A dict was given, whose elements are its keys"),
    "set": ({"card", "cash"}, "A set was given, which has no order"),
    "number": (7, "A value of type int was given"),
    "nothing": (None, "A value of type NoneType was given"),
    "array without a dimension": (np.array("card"), "A value of type ndarray was given"),
    "bytes": (b"card", "One string was given"),
    "rows": ([{"text": "card"}], "Text 0 is of type dict"),
    "scalars": (pyarrow.array(["card"]), "Text 0 is of type StringScalar"),
    "gaps": (pandas.Series(["card", None]), "Text 1 is of type (NoneType|float)"),
    "matrix": (np.array([["card", "cash"]]), "Text 0 is of type ndarray"),
}


@pytest.mark.parametrize("kind", NO_LISTS)
def test_what_is_no_list_of_texts_is_refused_and_never_answered_by_its_names(predictor, kind):
    value, words = NO_LISTS[kind]
    for ask in (predictor.predict, predictor.scores, predictor.encode):
        with pytest.raises(InputError, match=words):
            ask(value)
    for ask in (predictor.predict_async, predictor.scores_async):
        with pytest.raises(InputError, match=words):
            asyncio.run(ask(value))
    with pytest.raises(InputError, match="Text 0 is of type"):
        predictor.predict_one(value)


def test_pairs_are_never_the_names_of_two_columns(kind_bundle):
    predictor = load(kind_bundle("label", "text-pair"), threads=1)
    frame = pandas.DataFrame({"a": ["where is it", "card"], "b": ["in the box", "money"]})
    rows = list(zip(frame["a"], frame["b"], strict=True))
    assert [answer.label for answer in predictor.predict(rows)] == [predictor.predict_one(row).label for row in rows]
    for ask, value in ((predictor.predict, frame), (predictor.predict_one, frame), (predictor.predict_one, {"a", "b"})):
        with pytest.raises(InputError, match=r"A DataFrame was given|Input 0 is a (DataFrame|set)"):
            ask(value)


@pytest.mark.parametrize("batch_size", [0, -1])
def test_an_empty_batch_is_refused(predictor, batch_size):
    # Unrefused, no batch would run and the answers would be whatever stood in the memory.
    with pytest.raises(InputError, match=f"The batch size is {batch_size}"):
        predictor.predict(["card"], batch_size=batch_size)


def test_a_long_text_is_cut_and_says_so(predictor):
    long = "where is my parcel " * 500
    answer = predictor.predict_one(long)
    assert answer.truncated
    assert len(predictor.encode([long])[0].ids) == 32
    # Special tokens included, 30 words fit: what comes after them says nothing.
    assert predictor.predict_one("where is my parcel " * 7 + "where is card card").scores == answer.scores
    assert [one.truncated for one in predictor.predict(["card " * 30, "card " * 31, "card"])] == [False, True, False]


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\x00", "😀", "汉字", "e\u0301", "a" * 5_000])
def test_any_text_is_answered(predictor, text):
    answer = predictor.predict_one(text)
    assert answer.label in predictor.labels
    assert np.isfinite(list(answer.scores.values())).all()


def test_an_empty_text_is_its_special_tokens(predictor):
    assert predictor.encode([""]) == [EncodedText([2, 3], [0, 0], False)]


def test_many_threads_get_the_same_answers(predictor):
    wanted = predictor.predict(TEXTS)
    together = threading.Barrier(8)

    def ask(_: int) -> list[list[Prediction]]:
        together.wait(timeout=30)
        return [predictor.predict(TEXTS) for _ in range(20)]

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert all(answers == wanted for rounds in found for answers in rounds)


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ({"heads": [{"kind": "spans", "labels": ["a"]}]}, "answers with a head of the kind 'spans'"),
        ({"codec": "sound"}, "takes inputs of the kind 'sound'"),
        ({"heads": [{"kind": "label", "labels": ["a"]}, {"kind": "number", "output": "age"}]}, "has 2 heads: label on"),
    ],
)
def test_a_head_or_codec_of_a_later_release_is_refused(bundle_copy, later, message):
    bundle_copy.change_manifest(lambda manifest: manifest.update(later))
    with pytest.raises(BundleFormatError, match=message) as caught:
        load(bundle_copy.folder)
    assert caught.value.action == "install a newer edgetune"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda manifest: manifest["labels"].pop(), "gives 3 logits, .* answers with 2"),
        (lambda manifest: manifest["labels"].append("more"), "gives 3 logits, .* answers with 4"),
        (lambda manifest: manifest["inputs"][0].update(name="ids"), "lists attention_mask, ids, token_type_ids"),
        (lambda manifest: manifest["inputs"].pop(), "lists input_ids, token_type_ids and"),
    ],
)
def test_a_manifest_of_another_graph_is_refused(bundle_copy, change, told):
    bundle_copy.change_manifest(change)
    with pytest.raises(BundleDamaged, match=told) as caught:
        load(bundle_copy.folder)
    assert caught.value.expected == "a manifest and a graph that were packed together"


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json", "model.onnx"])
def test_files_that_hold_something_else_are_refused(bundle_copy, name):
    for content in (b"", b"something else", b"[1]", b'{"a": "\xff"}'):
        bundle_copy.path(name).write_bytes(content)
        bundle_copy.digest_again(name)
        with pytest.raises(BundleDamaged, match=name.replace(".", r"\.")):
            load(bundle_copy.folder)


def test_the_padding_token_is_that_of_the_config(bundle_copy):
    bundle_copy.change("config.json", lambda config: config.update(pad_token_id=5))
    bundle_copy.digest_again("config.json")
    predictor = Predictor(Bundle.open(bundle_copy.folder), threads=1)
    seen = []
    predictor.graph.session = type(
        "Session", (), {"run": lambda _, names, feed: seen.append(feed) or [np.zeros((2, 3))]}
    )()
    predictor.predict(["card", "where is my parcel"])
    assert seen[0]["input_ids"].tolist() == [[2, 49, 3, 5, 5, 5], [2, 82, 59, 64, 67, 3]]
    assert seen[0]["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert set(seen[0]) == {"input_ids", "attention_mask", "token_type_ids"}
    assert all(values.dtype == np.int64 for values in seen[0].values())


def test_every_refusal_has_one_root(tmp_path):
    with pytest.raises(EdgetuneError):
        load(tmp_path)
