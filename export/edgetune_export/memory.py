"""Memory that is not needed for a while, or no more, given back to the system."""

from __future__ import annotations

import bisect
import ctypes
import gc
import sys
from collections.abc import Iterator
from pathlib import Path

from torch import nn

_MADV_PAGEOUT = 21  # Linux 5.4 and later
_M_MMAP_THRESHOLD = -3
_LARGE_BLOCK = 1 << 20


def page_out(module: nn.Module) -> None:
    """Let the system take back the pages of weights that are mapped from a file; they are read again when needed.

    Nothing is lost: pages that were written to stay. Weights in memory of their own stay too, and where the system
    does not know the request nothing happens.
    """
    if sys.platform != "linux":
        return
    held = sorted(tensor.data_ptr() for tensor in module.state_dict().values())
    advise = ctypes.CDLL(None).madvise
    for start, end in _mapped_files():
        place = bisect.bisect_left(held, start)
        if place < len(held) and held[place] < end:
            advise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_PAGEOUT)


def give_back() -> None:
    """Give the system what was freed; the C library keeps it for what comes next, where it has no use."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
        if trim is not None:
            trim(ctypes.c_size_t(0))


def keep_no_blocks() -> None:
    """From now on give the system each large block of memory as soon as it is freed.

    The C library keeps blocks for what comes next, and small ones between them keep them from being joined: a step of
    training with layers that run again took half as much again. New blocks cost time instead.
    """
    if sys.platform == "linux":
        option = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
        if option is not None:
            option(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def _mapped_files() -> Iterator[tuple[int, int]]:
    """Where files are mapped in this process."""
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        addresses, _, _, _, inode, *_ = line.split()
        if inode != "0":
            start, end = addresses.split("-")
            yield int(start, 16), int(end, 16)
