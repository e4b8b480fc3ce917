"""stderr for long work: a separate thread writes it, so that nothing waits for its reader.

If the reader stalls, lines wait in memory up to a limit. Further lines are dropped and counted; the count is written
when the reader continues.
"""

from __future__ import annotations

import atexit
import io
import os
import select
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable

_STDERR = 2
QUEUE_BYTES = 1_000_000
_WRITE_BYTES = 65_536
_PATIENCE_S = 1.0  # at exit, for a reader that does not read
_LONGEST_END_S = 5.0


def is_terminal() -> bool:
    """Whether stderr is a terminal; it may also be closed."""
    return sys.stderr is not None and sys.stderr.isatty()


def _dropped_line(lines: int) -> str:
    return f"{lines:,} lines were dropped here, since nobody read them"


class PatientStream(io.TextIOBase):
    """A text stream that never blocks: a thread writes the text in order.

    Args:
        descriptor: the file descriptor to write to.
        queue_bytes: maximum number of bytes that wait to be written.
        dropped_line: returns the line to write for a number of dropped lines.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(
        self, descriptor: int, queue_bytes: int = QUEUE_BYTES, dropped_line: Callable[[int], str] = _dropped_line
    ) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._queue_bytes = queue_bytes
        self._dropped_line = dropped_line
        self._changed = threading.Condition()
        self._queue: list[bytes] = []
        self._queued = 0
        self._full = False
        self._writing = False
        self._written = 0
        self._dropped = 0  # number of lines that were dropped but not reported yet
        self._uncounted = 0
        self._counter: Callable[[int], object] | None = None
        threading.Thread(target=self._work, name="edgetune-stderr", daemon=True).start()

    def count_with(self, counter: Callable[[int], object]) -> None:
        """Count dropped lines with `counter`, including those dropped earlier."""
        with self._changed:
            self._counter = counter
            self._count(0)

    def write(self, text: str) -> int:
        """Add text to the queue, or drop it if the queue is full."""
        data = text.encode(self.encoding, self.errors)
        with self._changed:
            self._full |= self._queued + len(data) > self._queue_bytes
            if self._full:  # until the queue is emptied, so that the gap is in one place
                self._count(data.count(b"\n"))
            else:
                self._queue.append(data)
                self._queued += len(data)
                self._changed.notify_all()
        return len(text)

    def drain(self) -> None:
        """Wait until everything is written while the reader keeps reading, but only for a limited time."""
        end = time.monotonic() + _LONGEST_END_S
        with self._changed:
            while (self._queue or self._writing) and time.monotonic() < end:
                before = self._written
                if not self._changed.wait(_PATIENCE_S) and self._written == before:
                    return

    def writable(self) -> bool:
        """Always true."""
        return True

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """The file descriptor."""
        return self._descriptor

    def _count(self, lines: int) -> None:
        self._dropped += lines
        self._uncounted += lines
        if self._counter is not None:
            self._counter(self._uncounted)
            self._uncounted = 0

    def _work(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
                while not self._queue:
                    self._changed.wait()
                data = b"".join(self._queue)
                dropped, self._dropped = self._dropped, 0
                self._queue.clear()
                self._queued, self._full, self._writing = 0, False, True
            if dropped:  # after the text that was in the queue when it was full
                data += f"{self._dropped_line(dropped)}\n".encode()
            if lost := self._put(data).count(b"\n"):
                with self._changed:
                    if dropped:  # it was not written, and is already counted
                        self._dropped += dropped
                        lost -= 1
                    self._count(lost)

    def _put(self, data: bytes) -> bytes:
        """Write bytes, however long it takes. Returns those that cannot be written."""
        left = memoryview(data)
        while left:
            try:
                done = os.write(self._descriptor, left[:_WRITE_BYTES])
            except BlockingIOError:
                select.select([], [self._descriptor], [], _PATIENCE_S)
                continue
            except OSError:  # the reader is gone
                return bytes(left)
            left = left[done:]
            with self._changed:
                self._written += done
                self._changed.notify_all()
        return b""


def never_wait(dropped_line: Callable[[int], str] = _dropped_line) -> PatientStream:
    """Make sure that writing to stderr never blocks. At exit, the process waits for pending text."""
    _open_missing()
    _do_not_wait(_STDERR)
    stream = PatientStream(os.dup(_STDERR), dropped_line=dropped_line)
    sys.stderr = stream  # also for notes, warnings and tracebacks
    atexit.register(stream.drain)
    return stream


def _open_missing() -> None:
    """Open stdin, stdout and stderr if they are closed; otherwise a socket could get their number and their output."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _do_not_wait(descriptor: int) -> None:
    """Let writes fail instead of blocking, including writes by libraries in C++ and Rust.

    This affects only this process: a pipe is reopened, because other processes that share it would share the flag.
    Descriptors that cannot be reopened (a terminal, a pipe of another user) stay as they are.
    """
    kind = os.fstat(descriptor).st_mode
    try:
        if stat.S_ISFIFO(kind):
            own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK)
            os.dup2(own, descriptor)
            os.close(own)
        elif stat.S_ISSOCK(kind):
            with socket.socket(fileno=os.dup(descriptor)) as shared:
                shared.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", 1, 0))
    except OSError:
        return
