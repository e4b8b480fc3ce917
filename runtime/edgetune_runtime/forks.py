"""What a forked process has to create again: it has a copy of the memory, but only the thread that forked.

Its pools have no threads, a lock may be held by a thread that does not exist, and a session waits for its own missing
threads. gunicorn's preload, Celery and multiprocessing's fork create such processes.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from weakref import WeakMethod


class _Process:
    """The state of this process.

    Attributes:
        opening: held while onnxruntime opens a session, because it then holds its own locks; a fork waits for it.
        renewals: methods of living objects to call in a forked process.
        forked: whether this process, or one of its ancestors, was forked.
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

if hasattr(os, "register_at_fork"):  # Windows does not have fork
    os.register_at_fork(
        before=_process.before, after_in_parent=_process.after_in_parent, after_in_child=_process.after_in_child
    )


def after_fork(renew: Callable[[], None]) -> None:
    """Call a method in every process that is forked from now on, as long as its object exists."""
    _process.renewals.add(WeakMethod(renew, _process.renewals.discard))


def is_forked() -> bool:
    """Whether this process was forked. If so, the thread pools inside libraries may have no threads."""
    return _process.forked


@contextmanager
def waited_for() -> Iterator[None]:
    """Hold while onnxruntime opens a session: other threads cannot fork until it is done."""
    with _process.opening:
        yield


def leave(thing: object) -> None:
    """Keep an object until the process ends and never destroy it, because destroying it would wait for its threads."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))
