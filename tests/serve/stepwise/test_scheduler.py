"""Requests join and leave between steps, and each gets what it would get alone."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from edgetune.serve.errors import EdgetuneError, InputError, Overloaded
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.serve.stepwise.scheduler import Scheduler

SECONDS = 60.0  # the bound of every wait
LONG = Sampling(max_tokens=200)


@pytest.fixture
def scheduler(generator: Generator) -> Iterator[Scheduler]:
    with Scheduler(generator, rows=3, max_waiting=4) as opened:
        yield opened


class Runs:
    """The graph's runs: (rows, tokens) of each, and a gate that holds them back.

    Tests that compare what happened hold runs back instead of being faster than them.
    """

    def __init__(self, generator: Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.columns: list[int] = []
        self.held = False
        self.pause = 0.0
        self.fail: Callable[[Any], bool] = lambda ids: False
        self._more: float = float("inf")
        self._gate = threading.Condition()
        self._real = generator.decoder.run
        monkeypatch.setattr(generator.decoder, "run", self._run)

    def hold(self, *, after: int = 0) -> None:
        """Let so many more runs through, and no other; `held` says when one waits."""
        with self._gate:
            self._more, self.held = after, False
            self._gate.notify_all()

    def go_on(self) -> None:
        with self._gate:
            self._more, self.held = float("inf"), False
            self._gate.notify_all()

    def _run(self, ids: Any, cache: Any, *rest: Any) -> Any:
        with self._gate:
            if self._more <= 0:
                self.held = True
                assert self._gate.wait_for(lambda: self._more > 0, SECONDS)
            self._more -= 1
        time.sleep(self.pause)
        self.shapes.append(ids.shape)
        self.columns.append(cache.columns)
        if self.fail(ids):
            raise RuntimeError("the run broke")
        return self._real(ids, cache, *rest)


@pytest.fixture
def runs(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> Runs:
    return Runs(generator, monkeypatch)


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def test_many_requests_get_what_each_gets_alone(generator: Generator, scheduler: Scheduler, texts: list[str]) -> None:
    samplings = [
        Sampling(max_tokens=50),
        Sampling(max_tokens=7),
        Sampling(max_tokens=31, temperature=1.0, top_p=0.9, seed=4),
        Sampling(max_tokens=64, repetition_penalty=1.2),
    ]
    asked = [(text, sampling) for sampling in samplings for text in texts]
    generator.prefixes.clear()
    alone = [generator.generate(text, sampling) for text, sampling in asked]
    generator.prefixes.clear()
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        text, sampling = asked[number]
        while number not in answers:
            try:
                answers[number] = scheduler.submit(generator.encode(text), sampling).result(seconds=SECONDS)
            except Overloaded:
                time.sleep(0.01)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    for number, expected in enumerate(alone):
        got = answers[number]
        assert (got.text, got.token_ids, got.finish) == (expected.text, expected.token_ids, expected.finish)
        assert got.prompt_tokens == expected.prompt_tokens
    _until(lambda: scheduler.running == 0)
    assert scheduler.waiting == 0


def test_requests_join_and_leave_between_steps(
    generator: Generator, scheduler: Scheduler, runs: Runs, texts: list[str]
) -> None:
    runs.hold()
    handles = [scheduler.submit(generator.encode(texts[0]), LONG)]
    handles += [scheduler.submit(generator.encode(text), Sampling(max_tokens=5)) for text in texts[1:]]
    runs.go_on()
    results = [handle.result(seconds=SECONDS) for handle in handles]
    assert [len(result.token_ids) for result in results[1:]] == [5, 5, 5]
    rows = [shape[0] for shape in runs.shapes if shape[1] == 1]
    assert max(rows) == 3
    assert rows[-1] == 1
    # Steps are shared: fewer runs than the tokens of all answers.
    assert len(rows) < sum(len(result.token_ids) for result in results)
    first = runs.shapes.index(next(shape for shape in runs.shapes if shape[0] == 3))
    assert any(shape[1] > 1 for shape in runs.shapes[first:]), "the fourth began while others were under way"


def test_the_cache_shrinks_when_the_longest_leaves(generator: Generator, scheduler: Scheduler, runs: Runs) -> None:
    runs.hold()
    long = scheduler.submit([7] * 150, Sampling(max_tokens=4))
    short = scheduler.submit([7, 9, 11], Sampling(max_tokens=30))
    runs.go_on()
    long.result(seconds=SECONDS)
    short.result(seconds=SECONDS)
    steps = [columns for columns, shape in zip(runs.columns, runs.shapes, strict=True) if shape[1] == 1]
    assert max(steps) >= 150
    assert steps[-1] < 40


def test_a_long_prompt_lets_the_others_go_on(generator: Generator, runs: Runs) -> None:
    with Scheduler(generator, rows=2, chunk_tokens=32) as scheduler:
        runs.hold(after=2)
        first = scheduler.submit([7, 9, 11], LONG)
        _until(lambda: runs.held)
        second = scheduler.submit([5] * 200, Sampling(max_tokens=2))
        runs.go_on()
        second.result(seconds=SECONDS)
        first.cancel()
    prompts = [place for place, shape in enumerate(runs.shapes) if shape[1] > 3]
    assert [runs.shapes[place][1] for place in prompts] == [32] * 6 + [8]
    assert all(later - earlier == 2 for earlier, later in itertools.pairwise(prompts))


def test_short_prompts_start_in_one_turn(generator: Generator, scheduler: Scheduler, runs: Runs) -> None:
    runs.hold()
    blocker = scheduler.submit([5, 6], Sampling(max_tokens=2))
    handles = [scheduler.submit([7, 9, 11 + number], Sampling(max_tokens=3)) for number in range(2)]
    runs.go_on()
    for handle in [blocker, *handles]:
        handle.result(seconds=SECONDS)
    assert runs.shapes.count((1, 3)) == 2
    assert (2, 1) in runs.shapes


def test_the_queue_is_bounded(generator: Generator, runs: Runs) -> None:
    with Scheduler(generator, rows=1, max_waiting=2) as scheduler:
        runs.hold(after=2)
        first = scheduler.submit([5, 6], LONG)
        _until(lambda: runs.held)
        assert scheduler.running == 1
        waiting = [scheduler.submit([5, 7], Sampling(max_tokens=2)) for _ in range(2)]
        begun = time.monotonic()
        with pytest.raises(Overloaded, match=r"1 request\(s\) are being answered and 2 wait"):
            scheduler.submit([5, 8])
        assert time.monotonic() - begun < SECONDS / 2  # and not until the run that is held back has given up
        waiting[0].cancel()
        assert scheduler.waiting == 1
        runs.go_on()
        first.cancel()
        assert len(waiting[1].result(seconds=SECONDS).token_ids) == 2
        assert list(waiting[0]) == []


def test_a_cancelled_request_frees_its_place_before_the_next_step(
    generator: Generator, scheduler: Scheduler, runs: Runs
) -> None:
    runs.hold()
    handles = [scheduler.submit([7, 9, 11 + number], LONG) for number in range(3)]
    runs.hold(after=8)  # three prompts and steps between them; then all three rows are in each step
    _until(lambda: runs.held)
    assert scheduler.running == 3
    waiting = scheduler.submit([5, 6, 8], Sampling(max_tokens=3))
    before = len(runs.shapes)
    handles[1].cancel()
    runs.go_on()
    assert len(waiting.result(seconds=SECONDS).token_ids) == 3
    # The step that was held back had been made up with it; behind that its place is the next one's already.
    assert runs.shapes[before : before + 2] == [(3, 1), (1, 3)]
    with pytest.raises(EdgetuneError, match="cancelled"):
        handles[1].result(seconds=SECONDS)
    for handle in handles:
        handle.cancel()
    _until(lambda: scheduler.running == 0)


def test_a_loop_that_is_left_cancels(scheduler: Scheduler) -> None:
    for _ in scheduler.submit([7, 9, 11], LONG):
        break
    _until(lambda: scheduler.running == 0)


def test_async_callers_get_pieces_and_results(generator: Generator, scheduler: Scheduler, texts: list[str]) -> None:
    expected = [generator.generate(text, Sampling(max_tokens=20)) for text in texts]

    async def read(text: str) -> str:
        handle = scheduler.submit(generator.encode(text), Sampling(max_tokens=20))
        return "".join([piece.text async for piece in handle])

    async def main() -> None:
        read_ones = await asyncio.wait_for(asyncio.gather(*map(read, texts)), SECONDS)
        assert read_ones == [answer.text for answer in expected]
        result = await asyncio.wait_for(scheduler.submit(generator.encode(texts[0])).result_async(), SECONDS)
        assert result.text.startswith(expected[0].text[:5])

    asyncio.run(main())


def test_a_task_that_is_cancelled_frees_its_place(scheduler: Scheduler, runs: Runs) -> None:
    runs.hold(after=2)

    async def main() -> None:
        handle = scheduler.submit([7, 9, 11], LONG)
        task = asyncio.create_task(handle.result_async())
        while not runs.held:
            await asyncio.sleep(0.001)
        assert scheduler.running == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert handle.ended

    asyncio.run(asyncio.wait_for(main(), SECONDS))
    runs.go_on()
    _until(lambda: scheduler.running == 0)


def test_a_loop_that_is_gone_harms_nobody(generator: Generator, scheduler: Scheduler) -> None:
    async def main() -> Any:
        handle = scheduler.submit([7, 9, 11], LONG)
        await anext(aiter(handle))
        return handle

    handle = asyncio.run(main())
    _until(lambda: handle.ended)
    assert len(scheduler.submit([7, 9], Sampling(max_tokens=3)).result(seconds=SECONDS).token_ids) == 3


def test_a_request_that_breaks_a_step_falls_alone(generator: Generator, scheduler: Scheduler, runs: Runs) -> None:
    expected = generator.generate_batch(["the card", "my transfer"], Sampling(max_tokens=20))
    spoken = {token for answer in expected for token in answer.token_ids}
    tokens = generator.decoder.generate_ids([[7, 9, 11]], Sampling(max_tokens=40))[0]
    poison = next(token for token in tokens[2:] if token not in spoken)
    runs.hold()
    good = [scheduler.submit(generator.encode(text), Sampling(max_tokens=20)) for text in ("the card", "my transfer")]
    bad = scheduler.submit([7, 9, 11], LONG)
    runs.fail = lambda ids: ids.shape[1] == 1 and poison in ids
    runs.go_on()
    with pytest.raises(RuntimeError, match="the run broke"):
        bad.result(seconds=SECONDS)
    assert [handle.result(seconds=SECONDS).token_ids for handle in good] == [answer.token_ids for answer in expected]
    _until(lambda: scheduler.running == 0)


def test_a_prompt_that_breaks_falls_alone(generator: Generator, scheduler: Scheduler, runs: Runs) -> None:
    runs.fail = lambda ids: 13 in ids
    runs.hold()
    good = scheduler.submit([7, 9, 11], Sampling(max_tokens=3))
    bad = scheduler.submit([7, 9, 13], LONG)
    last = scheduler.submit([7, 9, 12], Sampling(max_tokens=3))
    runs.go_on()
    with pytest.raises(RuntimeError, match="the run broke"):
        bad.result(seconds=SECONDS)
    assert len(good.result(seconds=SECONDS).token_ids) == len(last.result(seconds=SECONDS).token_ids) == 3


def test_logits_that_are_no_numbers_end_one_request(
    generator: Generator, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = generator.decoder.run

    def broken(ids: Any, cache: Any, *rest: Any) -> Any:
        logits, cache = real(ids, cache, *rest)
        logits = logits.copy()
        logits[ids[:, -1] == 13] = np.nan
        return logits, cache

    monkeypatch.setattr(generator.decoder, "run", broken)
    good, bad = scheduler.submit([7, 9, 11], Sampling(max_tokens=3)), scheduler.submit([7, 13], LONG)
    with pytest.raises(EdgetuneError, match="no numbers"):
        bad.result(seconds=SECONDS)
    assert good.result(seconds=SECONDS).token_ids


def test_prompts_that_cannot_be_answered_are_refused_at_once(scheduler: Scheduler) -> None:
    for ids in ([], [1] * 256, [4000]):
        with pytest.raises(InputError):
            scheduler.submit(ids)
    assert scheduler.waiting == 0


def test_a_known_beginning_is_not_run_again(generator: Generator, scheduler: Scheduler, runs: Runs) -> None:
    begin = [7, 9, 11, 15, 21, 33, 34, 35, 36, 40]
    one = scheduler.submit([*begin, 50], Sampling(max_tokens=4)).result(seconds=SECONDS)
    assert one.cached_tokens == 0
    runs.shapes.clear()
    other = scheduler.submit([*begin, 51, 52], Sampling(max_tokens=4)).result(seconds=SECONDS)
    assert (other.cached_tokens, runs.shapes[0]) == (10, (1, 2))
    generator.prefixes.clear()
    assert (
        scheduler.submit([*begin, 51, 52], Sampling(max_tokens=4)).result(seconds=SECONDS).token_ids == other.token_ids
    )


def test_closing_finishes_what_runs_and_refuses_the_rest(generator: Generator) -> None:
    scheduler = Scheduler(generator, rows=1)
    handles = [scheduler.submit([7, 9, 11], Sampling(max_tokens=10)) for _ in range(3)]
    scheduler.close()
    assert [len(handle.result(seconds=SECONDS).token_ids) for handle in handles] == [10, 10, 10]
    with pytest.raises(EdgetuneError, match="closed"):
        scheduler.submit([7, 9])
    scheduler.close()


def test_closing_in_a_hurry_tells_who_has_no_answer(generator: Generator, runs: Runs) -> None:
    scheduler = Scheduler(generator, rows=1)
    runs.hold(after=2)
    handles = [scheduler.submit([7, 9, 11], LONG) for _ in range(2)]
    _until(lambda: runs.held)
    runs.pause = 0.02  # the answer that is under way would take four seconds more
    threading.Timer(0.2, runs.go_on).start()
    scheduler.close(seconds=0)
    for handle in handles:
        with pytest.raises(EdgetuneError, match="closed before"):
            handle.result(seconds=SECONDS)
    assert not any(thread.name == "edgetune-decode" for thread in threading.enumerate())


@pytest.mark.parametrize("settings", [{"rows": 0}, {"max_waiting": -1}, {"chunk_tokens": 0}])
def test_numbers_that_make_no_sense_are_refused(generator: Generator, settings: dict[str, int]) -> None:
    with pytest.raises(InputError, match=next(iter(settings))):
        Scheduler(generator, **settings)


@pytest.mark.slow
def test_a_graph_of_one_row_serves_in_turns(
    batch_one_llama: Any, tiny_llama: Any, texts: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with batch_one_llama.generator() as generator, Scheduler(generator, rows=3) as scheduler:
        runs = Runs(generator, monkeypatch)
        runs.hold()
        ids = [generator.encode(text) for text in texts]
        handles = [scheduler.submit(one, Sampling(max_tokens=30)) for one in ids]
        runs.go_on()
        answers = [list(handle.result(seconds=SECONDS).token_ids) for handle in handles]
        assert answers == [tiny_llama.greedy(one, 30) for one in ids]
        assert {shape[0] for shape in runs.shapes} == {1}


def test_an_answer_that_takes_too_long_is_given_up(scheduler: Scheduler, runs: Runs) -> None:
    runs.hold()
    handle = scheduler.submit([7, 9, 11], LONG)
    with pytest.raises(EdgetuneError, match=r"no whole answer within 0\.05 seconds"):
        handle.result(seconds=0.05)
    assert handle.ended
    runs.go_on()


@pytest.fixture(scope="module")
def int4_llama(tiny_llama: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The tiny llama with its weights in 4 bits, whose products round otherwise beside others."""
    import dataclasses
    import shutil

    from edgetune.compress.gptq.quantization import quantize_decoder

    folder = tmp_path_factory.mktemp("int4-llama")
    shutil.copytree(tiny_llama.folder, folder, dirs_exist_ok=True)
    quantize_decoder(tiny_llama.graph, folder / "model.onnx", bits=4, method="rtn", spec=tiny_llama.spec)
    return dataclasses.replace(tiny_llama, folder=folder)


def test_answers_alone_are_the_same_under_any_load(int4_llama: Any, texts: list[str]) -> None:
    """Token by token and bit by bit: each request has the graph to itself, in pieces that lie where they always do."""
    sampling = Sampling(max_tokens=24, logprobs=3)
    with int4_llama.generator(prefix_bytes=0) as generator:
        prompts = [generator.encode(text[: 8 + 5 * number] * 3) for number, text in enumerate(texts * 3)]
        with Scheduler(generator, rows=4, chunk_tokens=16, alone=True) as scheduler:
            lone = [scheduler.submit(prompt, sampling).result(seconds=60) for prompt in prompts]
            handles = [scheduler.submit(prompt, sampling) for prompt in prompts]
            together = [handle.result(seconds=60) for handle in handles]
        assert together == lone
        assert len({one.token_ids for one in lone}) > 1


def test_answers_alone_keep_no_prefixes(tiny_llama: Any) -> None:
    with tiny_llama.generator() as generator, pytest.raises(InputError, match="the generator keeps prefixes"):
        Scheduler(generator, alone=True)
