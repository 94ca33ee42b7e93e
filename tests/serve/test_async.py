"""The async forms of the predictor: same answers, joined runs, cancelled tasks, and closing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edgetune.serve import EdgetuneError, load
from edgetune.serve import predictor as predictor_module
from edgetune.serve.batcher import Batcher
from edgetune.serve.errors import InputError, Overloaded

from .conftest import GOLDEN

SECONDS = 20
TEXTS = ["where is my parcel", "card", "reset my password please", "was i charged twice?", "", "login again today"]


@pytest.fixture
def predictor():
    with load(GOLDEN, threads=1, provider="cpu") as opened:
        yield opened


def bounded(work):
    """What a coroutine returns, within the bound."""
    return asyncio.run(asyncio.wait_for(work, SECONDS))


def test_the_answers_are_those_of_the_plain_forms(predictor):
    async def ask():
        return (
            await predictor.predict_async(TEXTS),
            await predictor.predict_one_async(TEXTS[0]),
            await predictor.scores_async(iter(TEXTS)),
        )

    answers, one, scores = bounded(ask())
    assert [answer.label for answer in answers] == [answer.label for answer in predictor.predict(TEXTS)]
    assert one == predictor.predict_one(TEXTS[0])
    assert (scores.shape, scores.dtype) == ((len(TEXTS), 3), np.float32)
    np.testing.assert_allclose(scores, predictor.scores(TEXTS), atol=1e-5)
    assert predictor.answer(predictor.outputs(predictor.encode(["card"])), [True])[0].truncated


def test_concurrent_calls_are_joined(predictor, monkeypatch):
    sizes = []
    real = predictor.run

    def run(feed):
        sizes.append(len(feed["input_ids"]))
        return real(feed)

    monkeypatch.setattr(predictor, "run", run)

    async def ask():
        return await asyncio.gather(*(predictor.predict_one_async(text) for text in TEXTS * 40))

    answers = bounded(ask())
    alone = [predictor.predict_one(text).label for text in TEXTS]
    assert [answer.label for answer in answers] == alone * 40
    assert sum(sizes[: -len(TEXTS)]) == 240
    assert len(sizes) - len(TEXTS) < 120  # a loop without joining would take 240 runs


def test_many_texts_in_one_call_pass_through_the_queue_in_pieces(predictor, monkeypatch):
    monkeypatch.setattr(predictor_module, "CALL_TEXTS", 16)
    monkeypatch.setattr(predictor_module, "WAITING_TEXTS", 16)
    monkeypatch.setattr(predictor_module, "LONG_CHARACTERS", 100)
    texts = [f"{text} {'again ' * (number % 20)}" for number in range(40) for text in TEXTS]
    np.testing.assert_allclose(bounded(predictor.scores_async(texts)), predictor.scores(texts), atol=1e-5)


def test_what_cannot_be_answered_is_refused_as_by_predict(predictor):
    for wrong, said in (([], "no text"), ("card", "One string was given"), ([3], "Text 0 is of type int")):
        with pytest.raises(InputError, match=said):
            bounded(predictor.predict_async(wrong))
    with pytest.raises(InputError, match="surrogate"):
        bounded(predictor.predict_one_async("a \ud800"))


def held(predictor, monkeypatch):
    """Events: a run has begun, and runs may end."""
    begun, go, real = threading.Event(), threading.Event(), predictor.run

    def run(feed):
        begun.set()
        assert go.wait(SECONDS)
        return real(feed)

    monkeypatch.setattr(predictor, "run", run)
    return begun, go


def test_a_cancelled_task_leaves_the_queue(predictor, monkeypatch):
    begun, go = held(predictor, monkeypatch)
    texts = predictor.encode(TEXTS)
    batcher = Batcher(predictor, runners=1, max_waiting=2)

    async def ask():
        running = asyncio.ensure_future(batcher.logits(texts[:1]))
        await asyncio.to_thread(begun.wait, SECONDS)
        gone = asyncio.ensure_future(batcher.logits(texts[1:3]))
        await asyncio.sleep(0)
        assert batcher.waiting == 2
        with pytest.raises(Overloaded):
            await batcher.logits(texts[3:4])
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert batcher.waiting == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.logits(texts[4:5]), 0.01)
        assert batcher.waiting == 0
        kept = asyncio.ensure_future(batcher.logits(texts[3:4]))
        running.cancel()  # a run that is going on ends for nobody
        go.set()
        return await kept

    assert bounded(ask()).shape == (1, 3)
    batcher.close(seconds=SECONDS)


def test_a_loop_that_was_left_harms_nobody(predictor, monkeypatch):
    begun, go = held(predictor, monkeypatch)
    batcher = Batcher(predictor, runners=1)
    texts = predictor.encode(TEXTS)
    loop = asyncio.new_event_loop()
    task = loop.create_task(batcher.logits(texts[:1]))
    loop.run_until_complete(asyncio.sleep(0))
    assert begun.wait(SECONDS)
    task.cancel()
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    go.set()
    assert batcher.submit(texts[:2]).result(timeout=SECONDS).shape == (2, 3)
    batcher.close(seconds=SECONDS)


def test_several_loops_and_threads_share_one_predictor(predictor):
    wanted = [answer.label for answer in predictor.predict(TEXTS)]

    def ask(number):
        if number % 2:
            return [answer.label for answer in predictor.predict(TEXTS)]
        return [answer.label for answer in bounded(predictor.predict_async(TEXTS))]

    with ThreadPoolExecutor(8) as pool:
        assert all(found == wanted for found in pool.map(ask, range(48)))


def test_closing_ends_threads_and_answers(predictor):
    bounded(predictor.predict_async(TEXTS))
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("edgetune-run")]
    assert threads
    predictor.close()
    predictor.close()
    assert not any(thread.is_alive() for thread in threads)
    assert predictor.providers == []
    for ask in (lambda: predictor.predict(TEXTS), lambda: bounded(predictor.predict_async(TEXTS))):
        with pytest.raises(EdgetuneError, match=r"The predictor of .* is closed\."):
            ask()


def test_the_predictor_tells_its_provider_and_threads(predictor):
    assert predictor.providers == ["CPUExecutionProvider"]
    assert predictor.threads == 1


def test_loading_and_predicting_brings_neither_asyncio_nor_the_batcher():
    code = (
        f"import sys\nfrom edgetune.serve import load\nload({str(GOLDEN)!r}).predict(['card'])\n"
        "print([name for name in ('asyncio', 'edgetune.serve.batcher', 'edgetune.serve.waiting')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("[]\n", "")
