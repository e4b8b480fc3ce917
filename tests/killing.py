"""Run work in a fork of this process, and kill it with SIGKILL before one of its calls."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from typing import Any

_WRITING = ("mkdir", "write", "fsync", "chmod", "replace", "rename", "unlink", "rmdir")


def killed_at(moments: int, work: Callable[[], Any], own: tuple[tuple[Any, str], ...] = ()) -> bool:
    """Work in another process, which kills itself after a number of calls. Returns whether the work finished.

    Args:
        moments: number of calls before the kill.
        work: what to do.
        own: further calls that count, in addition to those that write to disk: (owner, name of the attribute).
    """
    child = os.fork()
    if not child:
        try:
            _kill_calls(moments, own)
            work()
            os._exit(0)
        finally:  # reached if an error was raised: the child must not continue like the parent
            traceback.print_exc()
            os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or status == 0
    return status == 0


def _kill_calls(moments: int, own: tuple[tuple[Any, str], ...]) -> None:
    left = moments

    def moment() -> None:
        nonlocal left
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    def wrapped(call: Callable[..., Any]) -> Callable[..., Any]:
        def killing(*arguments: Any, **named: Any) -> Any:
            moment()
            return call(*arguments, **named)

        return killing

    for owner, name in (*((os, name) for name in _WRITING), *own):
        setattr(owner, name, wrapped(getattr(owner, name)))
    fdopen = os.fdopen
    os.fdopen = lambda handle, mode="r": _Unbuffered(handle) if "w" in mode else fdopen(handle, mode)  # type: ignore


class _Unbuffered:
    """A file whose bytes are written in two calls."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __enter__(self) -> _Unbuffered:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def write(self, data: bytes) -> None:
        for part in (data[: len(data) // 2], data[len(data) // 2 :]):
            os.write(self._handle, part)

    def flush(self) -> None:
        """Nothing is buffered."""

    def fileno(self) -> int:
        return self._handle
