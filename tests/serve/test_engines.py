"""Bundles that are answered from tables: by hand, as a graph, without ONNX Runtime, and with whatever can be wrong."""

from __future__ import annotations

import asyncio
import json
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest

from edgetune.serve import load
from edgetune.serve.bundle import Bundle
from edgetune.serve.codecs.text import EncodedText
from edgetune.serve.engines.static import read_tables
from edgetune.serve.errors import BundleDamaged, BundleFormatError, EdgetuneError, InputError, ProviderError, RunError
from edgetune.serve.golden import replay_all
from edgetune.serve.session import open_session
from tests.golden.tables import LOGIT

from .conftest import BundleCopy

# Text, and the logits of account, delivery, payment before their root is taken: numerators and the number of features.
CASES = {
    "where is my parcel": ((0, 1, 0), 1),
    "card refund": ((0, 0, 2), 2),
    "card login": ((1, 0, 1), 2),
    "card parcel": ((0, 2, 1), 3),  # the pair is one of delivery
    "parcel card": ((0, 1, 1), 2),  # and is none in this order
    "please help": ((0, 0, 0), 1),
}


@pytest.fixture
def static_copy(static_bundle, tmp_path):
    shutil.copytree(static_bundle, tmp_path / "static")
    return BundleCopy(tmp_path / "static")


@pytest.mark.parametrize("batch_size", [1, 32])
def test_it_answers_as_the_formula_says(static_bundle, batch_size):
    predictor = load(static_bundle)
    logits = predictor.logits(predictor.encode(list(CASES)), batch_size=batch_size)
    expected = [LOGIT * np.array(sums) / np.sqrt(count) for sums, count in CASES.values()]
    np.testing.assert_allclose(logits, expected, atol=1e-5)
    assert [answer.label for answer in predictor.predict(list(CASES)[:2])] == ["delivery", "payment"]
    assert predictor.predict_one("card refund").answered_by is None


def test_the_graph_in_the_bundle_gives_the_same(static_bundle):
    predictor = load(static_bundle)
    rows = predictor.encode(list(CASES))
    session = open_session(static_bundle / "model.onnx", provider="cpu", threads=1)
    feed = predictor.feed(rows)
    by_graph = session.run(["logits"], feed)[0]
    np.testing.assert_allclose(by_graph, predictor.logits(rows), atol=1e-5)
    np.testing.assert_allclose(predictor.run(feed), predictor.logits(rows), atol=1e-6)


def test_every_way_of_asking_gives_the_same(static_bundle):
    texts = list(CASES)
    with load(static_bundle) as predictor:
        answers = predictor.predict(texts)
        assert [predictor.predict_one(text) for text in texts] == answers
        assert asyncio.run(predictor.predict_async(texts)) == answers
        many = asyncio.run(predictor.predict_async(texts * 20))  # more than the event loop is held up for
        assert many == answers * 20
        assert pickle.loads(pickle.dumps(predictor)).predict(texts) == answers
        assert list(replay_all(predictor)) == ["static"]
        assert (predictor.variant, predictor.threads, predictor.providers) == ("static", 1, ["numpy"])
    assert predictor.providers == []
    for ask in (lambda: predictor.predict(texts), lambda: asyncio.run(predictor.predict_async(texts))):
        with pytest.raises(EdgetuneError, match="is closed"):
            ask()


NO_RUNTIME = """
import sys
sys.modules["onnxruntime"] = None  # as where it is not installed
from edgetune.serve import load
predictor = load({bundle!r})
print(predictor.predict_one("where is my parcel").label)
print("onnxruntime" in sys.modules and sys.modules["onnxruntime"] is not None)
"""


def test_it_needs_no_onnx_runtime(static_bundle):
    run = [sys.executable, "-c", NO_RUNTIME.format(bundle=str(static_bundle))]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.split() == ["delivery", "False"]


def test_what_tables_have_not_is_refused(static_bundle):
    for options, error in (
        ({"provider": "cuda"}, ProviderError),
        ({"variant": "fp32"}, InputError),
        ({"threads": 0}, InputError),
    ):
        with pytest.raises(error):
            load(static_bundle, **options)
    predictor = load(static_bundle)
    with pytest.raises(RunError, match="the token 4000"):
        predictor.logits([EncodedText([1, 4000], [0, 0], False)])


def change_tensor(static_copy, name, **changes):
    static_copy.change_manifest(lambda manifest: manifest["engine"]["tensors"][name].update(changes))
    static_copy.change_manifest(lambda manifest: manifest.pop("manifest_digest", None))


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("rows", {"offset": 10**9}, "would end at byte"),
        ("rows", {"shape": [2**31, 2**31]}, "would end at byte"),
        ("rows", {"shape": [4]}, "dimensions"),
        ("rows", {"shape": [0, 3]}, "0 rows have 4 scales"),
        ("rows", {"shape": [2, 3]}, "2 rows have 4 scales"),
        ("rows", {"dtype": "int32"}, "rows int32"),
        ("rows", {"dtype": "float64"}, "is no manifest"),
        ("rows", {"offset": -1}, "is no manifest"),
        ("rows", {"shape": [-4, 3]}, "is no manifest"),
        ("bias", {"shape": [2]}, "meet a head|outputs"),
        ("pair_rows", {"shape": [0]}, "1 pairs have 0 rows"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(static_copy, name, changes, match):
    change_tensor(static_copy, name, **changes)
    with pytest.raises(BundleDamaged, match=match):
        load(static_copy.folder)


def test_rows_that_are_not_there_are_refused(static_copy):
    places = json.loads(static_copy.path("manifest.json").read_text())["engine"]["tensors"]
    change_tensor(static_copy, "token_rows", offset=places["pair_keys"]["offset"], shape=[2])
    with pytest.raises(BundleDamaged, match="token_rows has"):
        load(static_copy.folder)


def test_an_engine_that_is_not_known_is_refused(static_copy):
    static_copy.change_manifest(lambda manifest: manifest["engine"].update(kind="quantum"))
    static_copy.change_manifest(lambda manifest: manifest.pop("manifest_digest"))
    with pytest.raises(BundleFormatError, match="'quantum'"):
        load(static_copy.folder)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda manifest: manifest["engine"].update(file="../model.onnx"), "outside the bundle"),
        (lambda manifest: manifest["engine"].update(file="other.onnx"), "other.onnx is not listed"),
        (lambda manifest: manifest["files"].pop("config.json"), "config.json is not listed"),
    ],
)
def test_files_that_are_not_listed_are_refused(static_copy, change, match):
    static_copy.change_manifest(change)
    static_copy.change_manifest(lambda manifest: manifest.pop("manifest_digest"))
    with pytest.raises(BundleDamaged, match=match):
        load(static_copy.folder)


def test_a_changed_byte_of_the_tables_is_refused(static_copy):
    content = bytearray(static_copy.path("model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    static_copy.path("model.onnx").write_bytes(content)
    with pytest.raises(BundleDamaged, match="changed bytes"):
        load(static_copy.folder)


def test_a_link_in_place_of_the_tables_is_refused(static_copy, tmp_path):
    (tmp_path / "elsewhere").write_bytes(static_copy.path("model.onnx").read_bytes())
    static_copy.path("model.onnx").unlink()
    static_copy.path("model.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BundleDamaged, match="is a link"):
        load(static_copy.folder, verify=False)


def test_the_tables_are_those_that_were_written(static_bundle):
    bundle = Bundle.open(static_bundle)
    tables = read_tables(bundle.manifest.engine, bundle.folder)
    assert tables.rows.tolist() == [[0, 0, 0], [127, 0, 0], [0, 127, 0], [0, 0, 127]]
    assert tables.pair_rows.tolist() == [2]
    assert not any(getattr(tables, name).flags.writeable for name in ("rows", "scales", "bias"))
