"""What a forked process has to make again: it has the other's memory, and of its threads only the one that forked.

A pool has no threads then, a lock may be held by a thread that is not there, and a session waits for threads of its
own. gunicorn's preload, Celery and multiprocessing's fork make such processes.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakMethod


class _Process:
    """What is known of this process.

    Attributes:
        opening: held while onnxruntime opens a session, and then has locks of its own: a fork waits for it.
        renewals: methods to call in a forked process, of objects that are still there.
        forked: whether this process was forked, or one that it comes from.
    """

    def __init__(self) -> None:
        self.opening = threading.RLock()
        self.renewals: set[WeakMethod[Callable[[], None]]] = set()
        self.forked = False

    def before(self) -> None:
        self.opening.acquire()

    def after_in_parent(self) -> None:
        self.opening.release()

    def after_in_child(self) -> None:
        self.opening = threading.RLock()
        self.forked = True
        for renewal in list(self.renewals):
            renew = renewal()
            if renew is not None:
                renew()


_process = _Process()

if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(
        before=_process.before, after_in_parent=_process.after_in_parent, after_in_child=_process.after_in_child
    )


def after_fork(renew: Callable[[], None]) -> None:
    """Call a method in every process that is forked from now on, as long as its object lives."""
    _process.renewals.add(WeakMethod(renew, _process.renewals.discard))


def is_forked() -> bool:
    """Whether this process was forked: thread pools that libraries keep for themselves may have no threads here."""
    return _process.forked


@contextmanager
def waited_for() -> Iterator[None]:
    """While onnxruntime opens a session: no other thread forks until it is done."""
    with _process.opening:
        yield


def leave(thing: object) -> None:
    """Keep an object to the end of the process, which never takes it apart: that would wait for its threads."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
