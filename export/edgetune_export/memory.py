"""Return memory to the system that is not needed for a while, or not any more."""

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
    """Let the system drop the pages of weights that are mapped from a file; they are read again when needed.

    Nothing is lost: modified pages and weights in other memory stay. If the system does not support the request,
    nothing happens.
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
    """Return freed memory to the system. The C library would keep it for later allocations."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
        if trim is not None:
            trim(ctypes.c_size_t(0))


def keep_no_blocks() -> None:
    """From now on, return each large block of memory to the system as soon as it is freed.

    The C library keeps freed blocks, and small blocks between them prevent merging. A training step with recomputed
    layers needed 50% more memory because of this. In return, new blocks cost time.
    """
    if sys.platform == "linux":
        option = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
        if option is not None:
            option(_M_MMAP_THRESHOLD, _LARGE_BLOCK)


def _mapped_files() -> Iterator[tuple[int, int]]:
    """The address ranges of mapped files in this process."""
    for line in Path("/proc/self/maps").read_text(errors="replace").splitlines():
        addresses, _, _, _, inode, *_ = line.split()
        if inode != "0":
            start, end = addresses.split("-")
            yield int(start, 16), int(end, 16)
