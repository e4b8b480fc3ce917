"""Lazy attributes: computed once, stored in the instance, without a lock that a forked process could wait for."""

from __future__ import annotations

import copy
import os
import pickle
import signal
import threading
from dataclasses import dataclass, field, replace

import pytest

from edgetune_runtime.lazy import lazy

_HANGS_S = 20


@dataclass(frozen=True)
class Sum:
    """Frozen, as tasks are."""

    terms: tuple[int, ...]
    calls: list[int] = field(default_factory=list, compare=False)

    @lazy
    def total(self) -> int:
        """The sum."""
        self.calls.append(1)
        return sum(self.terms)

    @lazy
    def twice(self) -> int:
        """Of another lazy attribute."""
        return 2 * self.total

    @lazy
    def nothing(self) -> None:
        """A false value is stored too."""
        self.calls.append(1)


def test_it_is_computed_when_it_is_first_read_and_then_kept() -> None:
    one = Sum((1, 2))
    assert one.calls == []
    assert (one.twice, one.total, one.total, one.twice) == (6, 3, 3, 6)
    assert one.calls == [1]
    assert (one.nothing, one.nothing) == (None, None)
    assert one.calls == [1, 1]


def test_each_instance_has_its_own() -> None:
    one, other = Sum((1, 2)), Sum((5,))
    assert (one.total, other.total) == (3, 5)
    assert replace(one, terms=(9,)).total == 9


def test_an_error_is_not_kept() -> None:
    class Flaky:
        """Fails the first time."""

        tries = 0

        @lazy
        def value(self) -> int:
            self.tries += 1
            if self.tries == 1:
                raise ValueError("not yet")
            return self.tries

    flaky = Flaky()
    with pytest.raises(ValueError, match="not yet"):
        _ = flaky.value
    assert (flaky.value, flaky.value) == (2, 2)


def test_it_pickles_and_copies_before_and_after() -> None:
    for read in (False, True):
        one = Sum((1, 2))
        if read:
            assert one.total == 3
        for other in (pickle.loads(pickle.dumps(one)), copy.copy(one), copy.deepcopy(one)):
            assert other == one
            assert other.total == 3
            assert len(other.calls) == 1


def test_the_class_has_its_documentation() -> None:
    assert isinstance(Sum.total, lazy)
    assert Sum.total.__doc__ == "The sum."


def test_threads_that_read_it_at_once_agree() -> None:
    class Slow:
        """Two threads compute it at the same time."""

        def __init__(self) -> None:
            self.both = threading.Barrier(2, timeout=_HANGS_S)

        @lazy
        def value(self) -> tuple[int, ...]:
            self.both.wait()
            return (1, 2)

    slow, found = Slow(), []
    threads = [threading.Thread(target=lambda: found.append(slow.value)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_HANGS_S)
    assert found == [(1, 2), (1, 2)]
    assert slow.value == (1, 2)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no forks")
def test_a_fork_while_another_thread_computes_does_not_hang() -> None:
    """`functools.cached_property` of Python 3.11 holds a lock meanwhile, which the child would wait for."""

    class Slow:
        """Computed by a thread that waits in the middle of it, except in a child."""

        def __init__(self) -> None:
            self.begun, self.over = threading.Event(), threading.Event()
            self.parent = os.getpid()

        @lazy
        def value(self) -> int:
            self.begun.set()
            if os.getpid() == self.parent:
                self.over.wait()
            return 3

    slow = Slow()
    thread = threading.Thread(target=lambda: slow.value)
    thread.start()
    slow.begun.wait()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_HANGS_S)  # ends the child, which the status tells
        os._exit(slow.value)
    _, status = os.waitpid(child, 0)
    slow.over.set()
    thread.join()
    assert os.waitstatus_to_exitcode(status) == 3
    assert slow.value == 3
