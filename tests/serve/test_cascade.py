"""Cascades: who answers what, that easy texts wait for no graph, and that it is opened once, when it is needed."""

from __future__ import annotations

import asyncio
import copy
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from edgetune.serve import load
from edgetune.serve.bundle import Bundle
from edgetune.serve.cascade import margin, margins
from edgetune.serve.errors import BundleDamaged, EdgetuneError, InputError, MissingDependency, ProviderError
from edgetune.serve.golden import replay_all
from tests.golden.tables import write_cascade

from .conftest import GOLDEN, BundleCopy

EASY = ["where is my parcel", "card refund", "forgot my password"]
HARD = ["card login", "please help", "why was it not here yesterday"]
TEXTS = [text for pair in zip(EASY, HARD, strict=True) for text in pair]


@pytest.fixture
def cascade_copy(cascade_bundle, tmp_path):
    shutil.copytree(cascade_bundle, tmp_path / "cascade")
    return BundleCopy(tmp_path / "cascade")


def test_margins_are_best_minus_second_probability():
    logits = np.log(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8], [0.4, 0.4, 0.2]], np.float32))
    np.testing.assert_allclose(margins(logits), [0.2, 0.7, 0], atol=1e-6)
    np.testing.assert_allclose(margins(np.zeros((2, 1), np.float32)), [1, 1])
    assert np.isnan(margins(np.full((1, 3), np.nan, np.float32))).all()


def test_the_margin_of_one_row_is_that_among_others():
    logits = 5 * np.random.default_rng(0).normal(size=(200, 77)).astype(np.float32)
    logits[:3] = [[0], [np.inf], [np.nan]]
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal([margin(row) for row in logits], margins(logits))


def test_each_text_is_answered_by_whom_it_is_for(cascade_bundle, static_bundle):
    small, strong = load(static_bundle), load(GOLDEN, threads=1)
    with load(cascade_bundle, threads=1) as cascade:
        answers = cascade.predict(TEXTS)
        assert [answer.answered_by for answer in answers] == ["static", "fp32"] * 3
        for text, answer in zip(TEXTS, answers, strict=True):
            expected = (small if text in EASY else strong).predict_one(text)
            assert answer.label == expected.label
            assert answer.score == pytest.approx(expected.score, abs=1e-5)
            assert cascade.predict_one(text).answered_by == answer.answered_by
        value = cascade.head.as_json(answers[0], None)
        assert value == {**small.head.as_json(small.predict_one(EASY[0]), None), "answered_by": "static"}


@pytest.mark.parametrize(
    ("text", "known"),
    [("card refund", True), ("card please", True), ("card please help", False), ("please help", False)],
)
def test_a_text_that_is_mostly_unknown_is_left_to_the_graph(static_bundle, tmp_path, text, known):
    folder = write_cascade(tmp_path / "cascade", Bundle.open(static_bundle), 0.0, least_known=0.5).folder
    assert Bundle.open(folder).manifest.cascade.special_tokens == 2
    with load(folder, threads=1) as cascade:
        by = "static" if known else "fp32"
        assert cascade.predict_one(text).answered_by == by
        assert [answer.answered_by for answer in cascade.predict([text, "card", "help"])] == [by, "static", "fp32"]


def test_easy_texts_open_no_graph(cascade_bundle):
    with load(cascade_bundle, threads=1) as cascade:
        assert {answer.answered_by for answer in cascade.predict(EASY)} == {"static"}
        assert {answer.answered_by for answer in asyncio.run(cascade.predict_async(EASY))} == {"static"}
        assert cascade._graph is None
        assert cascade.predict_one(HARD[0]).answered_by == "fp32"
        assert cascade._graph is not None
    with load(cascade_bundle, threads=1, eager=True) as cascade:
        assert cascade._graph is not None


def test_async_answers_are_the_same(cascade_bundle):
    with load(cascade_bundle, threads=1) as cascade:
        joined = asyncio.run(cascade.predict_async(TEXTS))
        assert [answer.answered_by for answer in joined] == ["static", "fp32"] * 3
        assert [answer.label for answer in joined] == [answer.label for answer in cascade.predict(TEXTS)]
        scores = asyncio.run(cascade.scores_async(TEXTS))
        np.testing.assert_allclose(scores, cascade.scores(TEXTS), atol=1e-5)


def test_an_easy_text_does_not_wait_for_a_run_of_the_graph(cascade_bundle):
    async def ask(cascade, going, may_end):
        hard = asyncio.ensure_future(cascade.predict_one_async(HARD[0]))
        while not going.is_set():
            await asyncio.sleep(0.001)
        easy = await cascade.predict_one_async(EASY[0])
        assert not hard.done()
        may_end.set()
        return easy, await hard

    with load(cascade_bundle, threads=1, eager=True) as cascade:
        run, going, may_end = cascade.run, threading.Event(), threading.Event()

        def held(feed):
            going.set()
            assert may_end.wait(30)
            return run(feed)

        cascade.run = held
        easy, hard = asyncio.run(ask(cascade, going, may_end))
        assert (easy.answered_by, hard.answered_by) == ("static", "fp32")


def test_threads_that_meet_at_the_first_hard_text_open_one_graph(cascade_bundle, monkeypatch):
    with load(cascade_bundle, threads=1) as cascade:
        opened, real = [], cascade._open_graph
        monkeypatch.setattr(cascade, "_open_graph", lambda bundle: opened.append(1) or real(bundle))
        barrier, answers = threading.Barrier(6), []

        def ask():
            barrier.wait()
            answers.append(cascade.predict_one(HARD[0]).label)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert opened == [1]
    assert len(answers) == 6
    assert len(set(answers)) == 1


def test_it_is_pickled_and_closed(cascade_bundle):
    cascade = load(cascade_bundle, threads=1)
    expected = [answer.label for answer in cascade.predict(TEXTS)]
    for made in (pickle.loads(pickle.dumps(cascade)), copy.deepcopy(cascade)):
        assert made._graph is None
        assert [answer.label for answer in made.predict(TEXTS)] == expected
        made.close()
    cascade.close()
    lazy = load(cascade_bundle, threads=1)
    lazy.close()
    for predictor in (cascade, lazy):
        for text in (EASY[0], HARD[0]):
            with pytest.raises(EdgetuneError, match="is closed"):
                predictor.predict_one(text)


FORK = """
    import os, sys
    from edgetune.serve import load
    predictor = load({bundle!r}, threads=1)
    ask = lambda: [answer.label for answer in predictor.predict({texts!r})]
    {before}
    child = os.fork()
    if child == 0:
        print(*ask(), flush=True)
        sys.exit(0)
    _, status = os.waitpid(child, 0)
    print(status, *ask(), flush=True)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")
@pytest.mark.parametrize("before", ["pass", "ask()", "predictor._lock.acquire()"])
def test_a_forked_child_answers(cascade_bundle, before):
    after = "predictor._lock.release()" if "acquire" in before else "pass"
    code = textwrap.dedent(FORK).format(bundle=str(cascade_bundle), texts=TEXTS, before=before)
    code = code.replace("_, status =", f"{after}\n_, status =")
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, timeout=120, env=environment
    )
    with load(cascade_bundle, threads=1) as cascade:
        labels = " ".join(answer.label for answer in cascade.predict(TEXTS))
    assert run.stdout.splitlines() == [labels, f"0 {labels}"], run.stderr


def test_a_missing_runtime_is_said_when_it_is_opened(cascade_bundle, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    with pytest.raises(MissingDependency, match="ONNX Runtime is not installed"):
        load(cascade_bundle)


def test_another_bundle_in_the_folder_is_not_taken_for_the_graph(cascade_copy, monkeypatch):
    monkeypatch.chdir(cascade_copy.folder.parent)
    with load(cascade_copy.folder.name, threads=1) as cascade:
        monkeypatch.chdir("/")
        cascade_copy.change_manifest(lambda manifest: manifest.update(name="other"))
        cascade_copy.change_manifest(lambda manifest: manifest.pop("manifest_digest"))
        assert cascade.predict_one(EASY[0]).label == "delivery"
        with pytest.raises(BundleDamaged, match="holds another bundle"):
            cascade.predict_one(HARD[0])


@pytest.mark.parametrize(
    ("options", "error"),
    [({"threads": 0}, InputError), ({"variant": "int9"}, InputError), ({"provider": "cuda"}, ProviderError)],
)
def test_what_the_graph_refuses_is_refused_when_it_is_loaded(cascade_bundle, options, error):
    with pytest.raises(error):
        load(cascade_bundle, **options)


def test_golden_answers_of_both_are_replayed(cascade_copy):
    with load(cascade_copy.folder, threads=1) as cascade:
        assert list(replay_all(cascade)) == ["static", "fp32"]
    cascade_copy.change("golden_static.json", lambda golden: golden["cases"][0].update(logits=[9.0, 0.0, 0.0]))
    cascade_copy.digest_again("golden_static.json")
    cascade_copy.change_manifest(lambda manifest: manifest.pop("manifest_digest"))
    with load(cascade_copy.folder, threads=1) as cascade, pytest.raises(BundleDamaged, match="golden answers differ"):
        replay_all(cascade)


def test_the_folder_is_the_strong_bundle_to_others(cascade_bundle):
    strong, cascade = Bundle.open(GOLDEN), Bundle.open(cascade_bundle)
    for name in ("model.onnx", "tokenizer.json", "config.json", "golden.json"):
        assert (cascade.folder / name).read_bytes() == (strong.folder / name).read_bytes()
    added = {*cascade.manifest.files} - {*strong.manifest.files}
    assert added == {"static.onnx", "golden_static.json"}
    assert cascade.manifest.scheme == strong.manifest.scheme
    assert cascade.strangers() == []


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda manifest: manifest["cascade"].update(threshold=1.5), "is no manifest"),
        (lambda manifest: manifest["cascade"].update(golden="/etc/passwd"), "outside the bundle"),
        (lambda manifest: manifest["files"].pop("static.onnx"), "static.onnx is not listed"),
        (lambda manifest: manifest.update(engine=manifest["cascade"]["engine"]), "has a cascade"),
        (lambda manifest: manifest.update(heads=[{"kind": "number"}]), "answers with number"),
    ],
)
def test_manifests_that_contradict_themselves_are_refused(cascade_copy, change, match):
    cascade_copy.change_manifest(change)
    cascade_copy.change_manifest(lambda manifest: manifest.pop("manifest_digest"))
    with pytest.raises(BundleDamaged, match=match):
        load(cascade_copy.folder, threads=1)
