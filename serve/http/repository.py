"""The bundles of one server process: loaded and proven beside what answers, switched, lent out, taken out of use.

A lease keeps a bundle open while a request uses it, so that a switch fails no request. All methods belong to the event
loop's thread; what takes long runs in others. Must not import the web server itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from edgetune.serve.batcher import BatchRun
from edgetune.serve.errors import BundleError, EdgetuneError
from edgetune.serve.http.errors import NotReady, UnknownModel
from edgetune.serve.http.journal import Journal, ModelRequest
from edgetune.serve.http.names import check_name
from edgetune.serve.http.opening import Opened, look_at, open_proven
from edgetune.serve.http.served import Lent, Served, Slot, State
from edgetune.serve.http.settings import ServerSettings

__all__ = ["Repository", "Served", "State"]

logger = logging.getLogger("edgetune.serve")

JOURNAL_SECONDS = 0.5
# For the other workers to prove a bundle that one of them was asked to load, each in its turn of looking.
FOLLOW_SECONDS, FOLLOW_PAUSE_SECONDS = 300.0, 0.05

Observe = Callable[[str, BatchRun], None]


class Repository:
    """The models of one process, by name."""

    def __init__(
        self,
        sources: Mapping[str, Path],
        settings: ServerSettings,
        *,
        observe: Observe | None = None,
        journal: Journal | None = None,
    ) -> None:
        """Take the folders of the models; `start` opens them.

        Args:
            sources: bundle folders by model name.
            settings: limits and times.
            observe: told the model's name and what was run, after each run of a graph; from any thread.
            journal: shared with the other worker processes, where there are any.

        Raises:
            EdgetuneError: a name has other characters than letters, digits, dots, dashes and underscores.
        """
        for name in sources:
            check_name(name)
        self._settings = settings
        self._observe = observe
        self._journal = journal or Journal()
        self._slots = {name: Slot(name, Path(path)) for name, path in sources.items()}
        self._started = False
        self._leaving = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def lease(self, name: str, version: str | None = None) -> Iterator[Served]:
        """Lend the model out: while the block runs its bundle stays open, even if another is switched in.

        Raises:
            UnknownModel: there is no such model, or it has no such version.
            NotReady: it is being loaded, could not be, or was unloaded.
        """
        lent = self._find(name, version)
        lent.users += 1
        lent.idle.clear()
        try:
            yield lent.served
        finally:
            lent.users -= 1
            if not lent.users:
                lent.idle.set()

    def states(self) -> dict[str, tuple[State, str, str]]:
        """State, version ("" where none answers) and the reason of the last failure, by name."""
        return {
            name: (slot.state, slot.lent.served.version if slot.lent else "", slot.reason)
            for name, slot in self._slots.items()
        }

    @property
    def ready(self) -> bool:
        """Whether every model that is wanted answers, in all workers, and the server is not on its way out."""
        answers = all(slot.state is State.READY for slot in self._slots.values() if slot.should_load)
        return self._started and self._journal.complete and not self.draining and answers

    @property
    def draining(self) -> bool:
        """Whether the server is on its way out."""
        return self._leaving.is_set()

    def drain(self) -> None:
        """Be not ready from now on; what is leased and what still comes is answered."""
        self._leaving.set()

    async def start(self) -> None:
        """Open and prove all models at once, then begin to watch their folders.

        Raises:
            EdgetuneError: the first of them that failed, after all were tried.
        """
        requests = await asyncio.to_thread(self._journal.requests)
        for name, request in requests.items():
            self._take_request(name, request)
        await asyncio.to_thread(self._journal.follow, {name: request.revision for name, request in requests.items()})
        loading = [slot for slot in self._slots.values() if slot.should_load]
        ended = await asyncio.gather(*(self._bring(slot) for slot in loading), return_exceptions=True)
        for fault in ended:
            if isinstance(fault, BaseException):
                raise fault
        self._started = True
        if self._settings.watch_seconds or self._journal.shared:
            self._keep(self._watch())

    async def load(self, name: str, path: Path | None = None) -> None:
        """Load a model again, or a new one from `path`, beside what answers now; then switch.

        Raises:
            UnknownModel: there is no such model and no path was given.
            EdgetuneError: the bundle is damaged or does not answer here; what answered before goes on.
        """
        slot = self._slots.get(name)
        if slot is None and path is None:
            raise _unknown(name)
        if self.draining:
            raise NotReady("The server is on its way out.", action="ask another one")
        check_name(name)
        if slot is None:
            slot = Slot(name, Path(path or ""), should_load=False)
            self._slots[name] = slot
        async with slot.lock:
            try:
                await self._bring_locked(slot, path or slot.path)
            except EdgetuneError:
                if slot.lent is None and slot.revision == 0 and not slot.should_load:
                    self._slots.pop(name, None)  # it never was a model here
                raise
            slot.revision = await asyncio.to_thread(self._journal.request, name, slot.path)
        await self._all_followed(slot)

    async def unload(self, name: str) -> None:
        """Take a model out of use; requests that have it go on to their end.

        Raises:
            UnknownModel: there is no such model.
        """
        slot = self._slots.get(name)
        if slot is None:
            raise _unknown(name)
        async with slot.lock:
            self._drop(slot)
            slot.revision = await asyncio.to_thread(self._journal.request, name, None)
        await self._all_followed(slot)

    async def _all_followed(self, slot: Slot) -> None:
        """Wait until the other workers have done what was asked here, for who asks next may ask any of them.

        Raises:
            NotReady: some have not within FOLLOW_SECONDS, or the server is on its way out.
        """
        revision = slot.revision
        await asyncio.to_thread(self._journal.follow, {slot.name: revision})
        deadline = asyncio.get_running_loop().time() + FOLLOW_SECONDS
        while lagging := await asyncio.to_thread(self._journal.lagging, slot.name, revision):
            if self.draining or asyncio.get_running_loop().time() > deadline:
                raise NotReady(
                    f"The model {slot.name!r} was changed here, and {lagging} other worker(s) have not followed yet.",
                    action="ask /v2/repository/index again, until all answers agree",
                )
            await asyncio.sleep(FOLLOW_PAUSE_SECONDS)

    async def close(self, seconds: float) -> None:
        """Wait up to `seconds` for the leases to end, then close all bundles."""
        self._leaving.set()
        await asyncio.to_thread(self._journal.leave)
        for task in self._tasks:
            task.cancel()
        lents = [slot.lent for slot in self._slots.values() if slot.lent]
        if lents:
            await asyncio.gather(*(self._retire(lent, seconds) for lent in lents))

    def _find(self, name: str, version: str | None) -> Lent:
        split = self._settings.split
        # Who asks what stands behind a split's name, and nothing else, is told of its first arm.
        slot = self._slots.get(split.shares[0][0] if split is not None and name == split.name else name)
        if slot is None:
            raise _unknown(name)
        if slot.lent is None:
            raise NotReady(
                f"The model {name!r} does not answer: {slot.reason or slot.state.value.lower()}.",
                expected="a model that is loaded",
                action="ask again later, or see /v2/repository/index",
            )
        if version is not None and version != slot.lent.served.version:
            raise UnknownModel(
                f"The model {name!r} has no version {version!r}.", expected=f"version {slot.lent.served.version}"
            )
        return slot.lent

    async def _bring(self, slot: Slot) -> None:
        async with slot.lock:
            await self._bring_locked(slot, slot.path)

    async def _bring_locked(self, slot: Slot, path: Path) -> None:
        """Open and prove what lies at `path`, then switch to it; on failure what answers goes on."""
        if slot.lent is None:
            slot.state, slot.reason = State.LOADING, ""
        observe = partial(self._observe, slot.name) if self._observe else None
        opening = asyncio.create_task(asyncio.to_thread(open_proven, path, self._settings, observe, self._leaving))
        # Not awaited by itself: whatever a broken graph raises ends here, and not the watch of the other models.
        await asyncio.wait({opening})
        fault = opening.exception()
        if fault is not None:
            raise self._failed(slot, path, fault) from fault
        await self._switch(slot, path, opening.result())

    def _failed(self, slot: Slot, path: Path, fault: BaseException) -> EdgetuneError:
        """Note in state and log why a bundle was not taken; returns the error to tell the caller."""
        known = isinstance(fault, EdgetuneError)
        error = fault if isinstance(fault, EdgetuneError) else BundleError(f"{path} does not run here: {fault}")
        slot.reason = error.found
        slot.state = State.READY if slot.lent else State.UNAVAILABLE
        left = f"version {slot.lent.served.version} goes on answering" if slot.lent else "nothing answers in its place"
        logger.error(
            "model %s: %s was not loaded, %s: %s", slot.name, path, left, error, exc_info=None if known else fault
        )
        return error

    async def _switch(self, slot: Slot, path: Path, opened: Opened) -> None:
        version = await asyncio.to_thread(self._journal.version, slot.name, opened.fingerprint)
        served = Served(slot.name, version, opened.answerer, opened.report)
        before, slot.lent = slot.lent, Lent(served, opened.fingerprint)
        slot.path, slot.state, slot.reason, slot.should_load = path, State.READY, "", True
        logger.info("model %s: version %s of %s answers", slot.name, version, path)
        if before:
            self._keep(self._retire(before, None))

    def _drop(self, slot: Slot) -> None:
        before, slot.lent = slot.lent, None
        slot.state, slot.reason, slot.should_load = State.UNAVAILABLE, "unloaded", False
        logger.info("model %s: unloaded", slot.name)
        if before:
            self._keep(self._retire(before, None))

    async def _retire(self, lent: Lent, seconds: float | None) -> None:
        """Close a bundle once nobody uses it, or after `seconds`."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(lent.idle.wait(), seconds)
        bound = self._settings.request_seconds if seconds is None else seconds
        await asyncio.to_thread(lent.served.answerer.close, bound)

    def _keep(self, work: Coroutine[Any, Any, None]) -> None:
        """Let work go on beside the requests; the set holds it, for the event loop alone would not."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(self._settings.watch_seconds or JOURNAL_SECONDS)
            if self._journal.shared:
                await self._follow_requests()
            if self._settings.watch_seconds:
                for slot in list(self._slots.values()):
                    await self._look(slot)

    async def _look(self, slot: Slot) -> None:
        """Load what lies in a model's folder now, if it is other than what answers and was not tried already."""
        if not slot.should_load or slot.lock.locked():
            return
        seen = await asyncio.to_thread(look_at, slot.path)
        if seen is None or seen == slot.tried or not slot.should_load or slot.lock.locked():
            return  # also where it was unloaded, or is being loaded, since the look began
        if slot.lent and seen.fingerprint == slot.lent.fingerprint:
            if slot.tried is not None:
                slot.tried, slot.reason = None, ""  # what was put there and refused is gone again
            return
        slot.tried = seen
        with contextlib.suppress(EdgetuneError):  # it stands in state and log
            await self._bring(slot)

    async def _follow_requests(self) -> None:
        """Load and unload what other workers were asked to."""
        requests = await asyncio.to_thread(self._journal.requests)
        for name, request in requests.items():
            slot = self._slots.get(name)
            if slot is not None and (request.revision <= slot.revision or slot.lock.locked()):
                continue
            slot = self._take_request(name, request)
            if slot.should_load:
                with contextlib.suppress(EdgetuneError):
                    await self._bring(slot)
            elif slot.lent:
                self._drop(slot)
            await asyncio.to_thread(self._journal.follow, {name: slot.revision})

    def _take_request(self, name: str, request: ModelRequest) -> Slot:
        slot = self._slots.setdefault(name, Slot(name, Path(request.path or "")))
        slot.revision, slot.should_load = request.revision, request.path is not None
        if request.path is not None:
            slot.path = Path(request.path)
        elif slot.lent is None:
            slot.state, slot.reason = State.UNAVAILABLE, "unloaded"
        return slot


def _unknown(name: str) -> UnknownModel:
    return UnknownModel(f"There is no model {name[:140]!r}.", expected="a name of /v2/repository/index")
