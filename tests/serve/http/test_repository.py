"""The repository: what answers under which name, switching while requests run, and what a bad bundle leaves alone."""

import asyncio
import json
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgetune.serve import load
from edgetune.serve.errors import BundleDamaged, BundleError, EdgetuneError
from edgetune.serve.http import repository as module
from edgetune.serve.http.errors import NotReady, UnknownModel
from edgetune.serve.http.journal import Journal
from edgetune.serve.http.repository import Repository, State
from edgetune.serve.http.settings import ServerSettings
from edgetune.serve.http.warmup import warm_lengths, warm_up

GOLDEN = Path(__file__).parents[2] / "golden" / "bundle-v1"
TEXTS = ["where is my parcel", "i still money card"]
SETTINGS = ServerSettings(threads=1, watch_seconds=0)
WATCHING = replace(SETTINGS, watch_seconds=0.02)


def running(sources, work, settings=SETTINGS, **arguments):
    """Run `work(repository)` with a started repository and close it."""

    async def run():
        repository = Repository(sources, settings, **arguments)
        try:
            await repository.start()
            return await asyncio.wait_for(work(repository), 30)
        finally:
            await repository.close(1)

    return asyncio.run(run())


async def until(condition):
    """Wait until a condition holds, for ten seconds at most."""
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it never came true")


async def labels(repository, name="toy"):
    """What the model answers through its batcher."""
    with repository.lease(name) as served:
        logits = await served.batcher.logits(served.predictor.encode(TEXTS))
        return [answer.label for answer in served.predictor.head.answer(logits, [False] * len(TEXTS))]


@pytest.fixture
def toy(bundle_copy):
    """A copy of the golden bundle that a test may change."""
    return bundle_copy


@pytest.fixture(scope="module")
def expected():
    """What predict answers."""
    return [answer.label for answer in load(GOLDEN, threads=1).predict(TEXTS)]


def test_models_answer_as_predict_does_and_runs_are_told(toy, expected):
    told = []

    async def work(repository):
        assert repository.ready
        assert repository.states() == {"toy": (State.READY, "1", ""), "two": (State.READY, "1", "")}
        with repository.lease("toy", "1") as served:
            assert (served.name, served.version, served.report.name) == ("toy", "1", "bundle-v1")
        assert await labels(repository) == await labels(repository, "two") == expected

    running({"toy": toy.folder, "two": GOLDEN}, work, observe=lambda name, run: told.append((name, run.texts)))
    assert sorted({name for name, _ in told}) == ["toy", "two"]
    assert sum(texts for _, texts in told) == 4


@pytest.mark.parametrize("name", ["", "other", "..", "../toy", "toy/../toy", "/etc/passwd", "TOY", "toy\0", "\udc80"])
def test_names_that_are_none(name, toy):
    async def work(repository):
        with pytest.raises(UnknownModel), repository.lease(name):
            pass
        for change in (repository.load, repository.unload):
            with pytest.raises(UnknownModel):
                await change(name)
        assert list(repository.states()) == ["toy"]

    running({"toy": toy.folder}, work)


def test_a_version_that_is_none(toy):
    async def work(repository):
        with pytest.raises(UnknownModel, match="'2'"), repository.lease("toy", "2"):
            pass

    running({"toy": toy.folder}, work)


@pytest.mark.parametrize("name", ["", ".", "..", ".toy", "-toy", "a/b", "a\\b", "a b", "ü", "x" * 129])
def test_names_that_lead_elsewhere_are_refused_from_the_start(name):
    with pytest.raises(EdgetuneError, match="no name for a model"):
        Repository({name: GOLDEN}, SETTINGS)


def test_one_bad_bundle_ends_the_start_and_the_others_are_tried(toy):
    toy.path("model.onnx").write_bytes(b"nothing")

    async def work():
        repository = Repository({"toy": toy.folder, "good": GOLDEN}, SETTINGS)
        assert (repository.ready, repository.states()["good"][0]) == (False, State.LOADING)
        with pytest.raises(NotReady, match="loading"), repository.lease("good"):
            pass
        with pytest.raises(BundleDamaged, match=r"model\.onnx has 7 bytes"):
            await repository.start()
        states = repository.states()
        assert (states["good"], states["toy"][0]) == ((State.READY, "1", ""), State.UNAVAILABLE)
        assert "model.onnx" in states["toy"][2]
        assert not repository.ready
        await repository.close(1)

    asyncio.run(work())


def another(copy):
    """Make the bundle another one: the manifest's bytes change, and nothing else."""
    copy.change_manifest(lambda manifest: manifest.update(created="2027-01-01T00:00:00+00:00"))


def test_a_new_bundle_is_switched_in_without_a_failed_request(toy, expected):
    async def work(repository):
        with repository.lease("toy") as old:
            another(toy)
            answered = 0
            while repository.states()["toy"][1] == "1":
                assert await labels(repository) == expected
                answered += 1
            assert answered > 0
            with repository.lease("toy", "2") as new:
                assert new.predictor is not old.predictor
            # The one that a request still has goes on answering until it is given back.
            await asyncio.sleep(0.1)
            assert (await old.batcher.logits(old.predictor.encode(TEXTS))).shape == (2, 3)
        await until(lambda: is_closed(old.batcher))
        assert await labels(repository) == expected
        assert repository.states() == {"toy": (State.READY, "2", "")}

    running({"toy": toy.folder}, work, WATCHING)


def is_closed(batcher):
    from edgetune.serve.codecs.text import EncodedText

    try:
        batcher.submit([EncodedText([2, 3], [0, 0], False)])
    except EdgetuneError:
        return True
    return False


def wrong_golden(copy):
    """Another bundle, whole by its digests, that does not answer as it was packed."""
    copy.change("golden.json", lambda golden: golden["cases"][0]["logits"].reverse())
    copy.digest_again("golden.json")


def half_copied(copy):
    """Another bundle of which a file is not whole yet."""
    another(copy)
    copy.path("tokenizer.json").write_bytes(copy.path("tokenizer.json").read_bytes()[:100])


@pytest.mark.parametrize("harm", [wrong_golden, half_copied])
def test_a_damaged_new_bundle_leaves_the_old_one_answering(harm, toy, expected, caplog):
    whole = toy.folder.parent / "whole"
    shutil.copytree(toy.folder, whole)

    async def work(repository):
        harm(toy)
        await until(lambda: repository.states()["toy"][2])
        state, version, reason = repository.states()["toy"]
        assert (state, version, repository.ready) == (State.READY, "1", True)
        assert "golden" in reason or "tokenizer.json" in reason
        assert "version 1 goes on answering" in caplog.text
        failures = caplog.text.count("was not loaded")
        await asyncio.sleep(0.2)
        assert caplog.text.count("was not loaded") == failures  # not tried again and again
        assert await labels(repository) == expected
        # The rest arrives: the manifest is the same as it was when it failed.
        for name in ("golden.json", "tokenizer.json"):
            shutil.copyfile(whole / name, toy.path(name))
        toy.digest_again("golden.json")
        await until(lambda: repository.states()["toy"][2] == "")
        assert await labels(repository) == expected

    with caplog.at_level(logging.INFO, "edgetune"):
        running({"toy": toy.folder}, work, WATCHING)


def test_a_bundle_damaged_on_disk_disturbs_nothing_that_runs(toy, expected):
    async def work(repository):
        for path in toy.folder.iterdir():
            if path.name != "manifest.json":
                path.write_bytes(b"")
        await asyncio.sleep(0.1)
        assert await labels(repository) == expected
        with pytest.raises(BundleDamaged):
            await repository.load("toy")
        shutil.rmtree(toy.folder)
        await asyncio.sleep(0.1)
        assert await labels(repository) == expected
        assert repository.ready

    running({"toy": toy.folder}, work, WATCHING)


def test_unload_and_load(toy, expected):
    async def work(repository):
        with repository.lease("toy") as served:
            await repository.unload("toy")
            assert repository.states()["toy"] == (State.UNAVAILABLE, "", "unloaded")
            assert repository.ready  # nobody wants it now
            with pytest.raises(NotReady, match="unloaded"), repository.lease("toy"):
                pass
            assert (await served.batcher.logits(served.predictor.encode(TEXTS))).shape == (2, 3)
        another(toy)
        await asyncio.sleep(0.1)
        assert repository.states()["toy"][0] is State.UNAVAILABLE  # the watch loads nothing that was unloaded
        await repository.load("toy")
        assert repository.states()["toy"] == (State.READY, "2", "")
        assert await labels(repository) == expected

    running({"toy": toy.folder}, work, WATCHING)


def test_loading_the_same_bundle_again_keeps_its_version(toy):
    async def work(repository):
        with repository.lease("toy") as old:
            await repository.load("toy")
            with repository.lease("toy", "1") as new:
                assert new.predictor is not old.predictor

    running({"toy": toy.folder}, work)


def test_a_new_model_by_its_folder(toy, expected, tmp_path):
    async def work(repository):
        for name, folder in (("second", tmp_path / "nowhere"), ("../x", GOLDEN)):
            with pytest.raises(EdgetuneError):
                await repository.load(name, folder)
        assert list(repository.states()) == ["toy"]
        await repository.load("second", GOLDEN)
        assert await labels(repository, "second") == expected

    running({"toy": toy.folder}, work)


def test_draining_is_not_ready_and_still_answers(toy, expected):
    async def work(repository):
        repository.drain()
        assert (repository.ready, repository.draining) == (False, True)
        assert await labels(repository) == expected
        with pytest.raises(NotReady, match="way out"):
            await repository.load("toy")

    running({"toy": toy.folder}, work)


def test_whatever_a_graph_raises_ends_with_its_own_model(toy, expected, monkeypatch, caplog):
    async def work(repository):
        def broken(*_):
            raise RuntimeError("kernel exploded")

        monkeypatch.setattr(module, "open_proven", broken)
        with pytest.raises(BundleError, match="kernel exploded"):
            await repository.load("toy")
        assert repository.states()["toy"][:2] == (State.READY, "1")
        assert await labels(repository) == expected
        assert "Traceback" in caplog.text

    running({"toy": toy.folder}, work)


def test_workers_follow_each_other(toy, expected, tmp_path):
    path = tmp_path / "journal.json"

    async def work(one):
        two = Repository({"toy": toy.folder}, SETTINGS, journal=Journal(path))
        await two.start()
        another(toy)
        # When a change was answered, all have followed: the next question may reach any of them.
        await one.load("toy")
        assert two.states()["toy"] == (State.READY, "2", "")
        await two.unload("toy")
        assert one.states()["toy"][2] == "unloaded"
        late = Repository({"toy": toy.folder}, SETTINGS, journal=Journal(path))
        await late.start()
        assert late.states()["toy"] == (State.UNAVAILABLE, "", "unloaded")
        await late.load("toy", GOLDEN)
        assert [each.states()["toy"] for each in (one, two)] == [(State.READY, "3", "")] * 2
        assert await labels(two) == expected
        for each in (two, late):
            await each.close(1)

    running({"toy": toy.folder}, work, journal=Journal(path))
    content = json.loads(path.read_text("utf-8"))
    assert content["requests"] == {"toy": {"revision": 3, "path": str(GOLDEN)}}
    assert len(content["versions"]["toy"]) == 3


def test_a_look_that_was_under_way_undoes_no_unload(toy, monkeypatch):
    """The folder's watch has seen what lies there, and is told to load nothing before it goes on."""

    async def work(repository):
        slot, unloaded = repository._slots["toy"], asyncio.Event()
        loop, look = asyncio.get_running_loop(), module.look_at

        def slow_look(path):
            asyncio.run_coroutine_threadsafe(unloaded.wait(), loop).result(20)
            return look(path)

        monkeypatch.setattr(module, "look_at", slow_look)
        looking = asyncio.create_task(repository._look(slot))
        await asyncio.sleep(0)
        await repository.unload("toy")
        unloaded.set()
        await looking
        assert repository.states()["toy"] == (State.UNAVAILABLE, "", "unloaded")

    running({"toy": toy.folder}, work)


def test_a_worker_that_never_follows_is_told(toy, tmp_path, monkeypatch):
    monkeypatch.setattr("edgetune.serve.http.repository.FOLLOW_SECONDS", 0.2)
    path = tmp_path / "journal.json"

    async def work(one):
        Journal(path).follow({})  # of this process, which lives, and looks at nothing
        with pytest.raises(NotReady, match=r"1 other worker\(s\) have not followed yet"):
            await one.load("toy")
        assert one.states()["toy"][0] is State.READY

    running({"toy": toy.folder}, work, journal=Journal(path))


def test_nobody_waits_for_a_worker_that_has_died(tmp_path):
    path = tmp_path / "journal.json"
    one, other = Journal(path), Journal(path)
    one.follow({"toy": 1})
    other.follow({})
    assert one.lagging("toy", 1) == 1
    other.leave()
    assert one.lagging("toy", 1) == 0
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    path.write_text(json.dumps({"followed": {f"{int(dead.stdout)}-x": {}}}))
    assert one.lagging("toy", 1) == 0
    assert json.loads(path.read_text())["followed"] == {}


def test_the_warm_up_goes_over_the_length_range():
    assert [warm_lengths(most) for most in (5, 8, 32, 100)] == [[5], [8], [8, 16, 32], [8, 16, 32, 64, 100]]
    predictor = load(GOLDEN, threads=1)
    seen = []
    run = predictor.run
    predictor.run = lambda feed: seen.append(feed["input_ids"].shape) or run(feed)
    shapes = warm_up(predictor, max_batch=4)
    assert shapes == [(1, 8), (4, 8), (1, 16), (4, 16), (1, 32), (4, 32)]
    assert seen == shapes
