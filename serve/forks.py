"""What holds threads, locks or native memory is made anew in a forked child, where only the forking thread lives on.

gunicorn --preload, multiprocessing on Linux and others fork after a bundle was opened. Apart from what is made anew,
since the system's hook is one for the process and can never be taken back. Must import the standard library only.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """What has something to make anew."""

    def after_fork(self) -> None:
        """Called in a forked child before anything else runs there; takes no lock that may have been held."""


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_hooked = False


def watch_forks(thing: Forkable) -> None:
    """Have `thing.after_fork()` called in every forked child, as long as it is alive."""
    global _hooked
    _watched.add(thing)
    if not _hooked and hasattr(os, "register_at_fork"):  # not on Windows, which has no forks
        _hooked = True
        os.register_at_fork(after_in_child=_after_fork)


def _after_fork() -> None:
    for thing in list(_watched):
        thing.after_fork()


def never_free(thing: object) -> None:
    """Keep an object beyond the end of the process: one whose threads are gone waits for them, or crashes, if freed."""
    import ctypes

    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
