"""Many requests on one decoder: they join and leave between steps, so nobody waits for the longest answer of a batch.

One thread runs the graph. Each of its turns runs a bounded piece of the prompts that want in, then one step of all
answers under way (continuous batching; Yu et al. 2022, Orca). Imported only where many callers are served.
"""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from types import TracebackType

from edgetune.serve.errors import EdgetuneError, InputError, Overloaded
from edgetune.serve.stepwise.cache import Cache
from edgetune.serve.stepwise.generator import Generator
from edgetune.serve.stepwise.group import Group
from edgetune.serve.stepwise.handle import Handle
from edgetune.serve.stepwise.sampling import Sampling
from edgetune.serve.stepwise.seats import PromptRun, Seats, deliver

# How long `close` lets answers come to their end where the caller names no bound, and how long an ending interpreter
# waits for the run that is going on: a thread that leaves the graph after Python has gone would take the process down.
CLOSE_SECONDS = 30.0
EXIT_SECONDS = 5.0

_open: weakref.WeakSet[Scheduler] = weakref.WeakSet()


class Scheduler:
    """Answers requests from many threads and tasks, up to `rows` of them at once. Close it when it has served.

    A graph whose batch is fixed to one runs a step of each answer in turn. So does one that answers alone: products of
    few bits round otherwise beside others, so that elsewhere a greedy answer may change with the load.

    Attributes:
        generator: what answers.
        alone: whether each answer is computed as if there were no other.
        rows: answers under way at once.
        max_waiting: requests that may wait beside them.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        rows: int = 8,
        max_waiting: int = 64,
        chunk_tokens: int = 256,
        alone: bool = False,
    ) -> None:
        """Prepare to answer; the thread starts with the first request.

        Args:
            generator: what answers.
            rows: answers under way at once. Each takes memory for its cache, and shorter ones that of the longest.
            max_waiting: requests that may wait beside them.
            chunk_tokens: of new prompts between two steps of the others: their longest pause is the run of so many.
            alone: let no answer depend on what else is asked; the generator must keep no prefixes then.

        Raises:
            InputError: a number below 1 (waiting: below 0), or prefixes beside `alone`.
        """
        for name, number, least in (
            ("rows", rows, 1),
            ("max_waiting", max_waiting, 0),
            ("chunk_tokens", chunk_tokens, 1),
        ):
            if number < least:
                raise InputError(f"{name} is {number}.", expected=f"{least} or more")
        if alone and generator.prefixes.most_bytes:
            raise InputError(
                "The answers are to be independent of each other, and the generator keeps prefixes of prompts.",
                expected="a generator that was opened with prefix_bytes=0",
            )
        self.generator, self.rows, self.max_waiting, self.alone = generator, rows, max_waiting, alone
        self._chunk_tokens = chunk_tokens
        self._changed = threading.Condition()
        self._waiting: deque[Handle] = deque()
        self._prompts: deque[PromptRun] = deque()  # what runs its prompt; with the groups, of the thread alone
        self._groups: list[Seats] = []
        self._taken = 0
        self._thread: threading.Thread | None = None
        self._closed = self._stopping = False

    @property
    def waiting(self) -> int:
        """Requests in the queue now."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """Requests that hold a place now, those whose prompt still runs among them."""
        return self._taken

    def submit(self, ids: Sequence[int], sampling: Sampling | None = None, adapter: str | None = None) -> Handle:
        """Ask for an answer to a prompt's ids; it begins when a place is free. `adapter` as for `Generator.generate`.

        Raises:
            InputError: the graph cannot answer this prompt, or there is no such adapter.
            Overloaded: as many wait already as may.
            EdgetuneError: the scheduler is closed.
        """
        handle = Handle(self.generator.answer(ids, sampling or Sampling(), adapter), self._withdraw)
        with self._changed:
            if self._closed:
                raise EdgetuneError("The scheduler is closed.", action="open the bundle again")
            free = max(0, self.rows - self._taken)
            if len(self._waiting) >= self.max_waiting + free:
                raise Overloaded(
                    f"{self._taken} request(s) are being answered and {len(self._waiting)} wait.",
                    expected=f"at most {self.rows} at once and {self.max_waiting} waiting",
                    action="ask again a little later",
                )
            self._waiting.append(handle)
            if self._thread is None:
                self._start()
            self._changed.notify()
        return handle

    def close(self, *, seconds: float | None = None) -> None:
        """Let no request in any more, finish those under way and those that wait, and stop the thread.

        Args:
            seconds: at most; None is CLOSE_SECONDS. Who has no whole answer then gets an EdgetuneError.
        """
        with self._changed:
            self._closed = True
            self._changed.notify()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(CLOSE_SECONDS if seconds is None else seconds)
            with self._changed:
                self._stopping = True
                self._changed.notify()
            thread.join(EXIT_SECONDS)
        _open.discard(self)

    def __enter__(self) -> Scheduler:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self) -> None:
        atexit.unregister(_abandon_all)
        atexit.register(_abandon_all)
        _open.add(self)
        self._thread = threading.Thread(target=self._work, name="edgetune-decode", daemon=True)
        self._thread.start()

    def _withdraw(self, handle: Handle) -> None:
        """A caller has gone: out of the queue at once; the thread takes it out of the batch before the next step."""
        with self._changed:
            if handle in self._waiting:
                self._waiting.remove(handle)
            self._changed.notify()

    def _work(self) -> None:
        """The thread's life: turns while there is something to do."""
        while self._admit():
            try:
                self._leave()
                self._run_prompts()
                for seats in list(self._groups):
                    self._step(seats)
                self._leave()
            except Exception as error:
                # What no single request is to blame for: all learn of it, and the next ones find a thread that lives.
                logging.getLogger(__name__).exception("a turn of the scheduler failed")
                self._fail_all(error)
        self._fail_all(EdgetuneError("The scheduler was closed before this answer was whole."))

    def _admit(self) -> bool:
        """Wait for something to do and give free places away; False when there is nothing left, or no time."""
        with self._changed:
            self._count()
            while not (self._waiting or self._taken or self._closed or self._stopping):
                self._changed.wait()
            while self._waiting and self._taken < self.rows:
                self._prompts.append(PromptRun(self.generator, self._waiting.popleft()))
                self._count()
            return bool(self._taken) and not self._stopping

    def _count(self) -> None:
        self._taken = len(self._prompts) + sum(len(seats.handles) for seats in self._groups)

    def _leave(self) -> None:
        """Free the places of those who have been given up."""
        self._prompts = deque(prompt for prompt in self._prompts if not prompt.handle.ended)
        for seats in self._groups:
            seats.change(leaving=[handle for handle in seats.handles if handle.ended])
        self._groups = [seats for seats in self._groups if seats.handles]

    def _run_prompts(self) -> None:
        """Run prompts that want in for `chunk_tokens`: a piece of the first, or several short ones whole.

        Of those that are answered alone one piece, which begins and ends at the same tokens whatever else is asked.
        """
        left = self._chunk_tokens
        through: list[tuple[Handle, Cache]] = []
        while self._prompts and (left == self._chunk_tokens or self._prompts[0].left <= left):
            prompt = self._prompts[0]
            try:
                left -= prompt.run(left)
            except Exception as error:  # noqa: BLE001 (whatever a prompt raises belongs to who sent it)
                self._prompts.popleft()
                prompt.handle.end(error)
                continue
            if prompt.logits is None or prompt.cache is None:
                break
            self._prompts.popleft()
            deliver(prompt.handle, prompt.logits)
            if not prompt.handle.ended:
                through.append((prompt.handle, prompt.cache))
            if self.alone:
                break
        self._join(through)

    def _join(self, through: list[tuple[Handle, Cache]]) -> None:
        if self.alone or self.generator.decoder.spec.batch_one:
            for one in through:
                self._groups.append(Seats(Group(self.generator.decoder)))
                self._groups[-1].change(joining=[one])
        elif through:
            if not self._groups:
                self._groups.append(Seats(Group(self.generator.decoder)))
            self._groups[0].change(joining=through)

    def _step(self, seats: Seats) -> None:
        """One step of a group; where it fails, each answer by itself, so that a fault reaches its caller only."""
        if not seats.handles:
            return
        try:
            logits = seats.group.step()
        except Exception as error:  # noqa: BLE001 (whatever a step raises belongs to the requests in it)
            if len(seats.handles) > 1:
                self._step_apart(seats)
            else:
                seats.handles[0].end(error)
            return
        seats.take(logits)

    def _step_apart(self, seats: Seats) -> None:
        self._groups.remove(seats)
        alone = [Seats(group, [handle]) for group, handle in zip(seats.group.apart(), seats.handles, strict=True)]
        for one in alone:
            self._step(one)
        self._join(
            [
                (one.handles[0], one.group.cache)
                for one in alone
                if one.handles and not one.handles[0].ended and one.group.cache is not None
            ]
        )

    def _fail_all(self, error: Exception) -> None:
        with self._changed:
            handles = [*self._waiting, *(prompt.handle for prompt in self._prompts)]
            handles += [handle for seats in self._groups for handle in seats.handles]
            self._waiting.clear()
            self._prompts.clear()
            self._groups.clear()
        for handle in handles:
            handle.end(error)


def _abandon_all() -> None:
    """At the end of the interpreter: requests are refused, and the run that is going on may end."""
    for scheduler in list(_open):
        scheduler.close(seconds=0)
