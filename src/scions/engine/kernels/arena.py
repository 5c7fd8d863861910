"""Memory for adapters on huge pages, where the system has them: small ones share a page, freed places are used again.

A batch of many adapters reads the weights of all of them once. With pages of 4 KiB, finding the pages takes as long as
reading what is on them.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor

PAGE = 2**21


@dataclass(eq=False)
class _Page:
    memory: Tensor
    places: int
    free: list[int]


class Arena:
    """Places of memory of any size; any number of threads may take some."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: dict[int, list[_Page]] = {}  # with room, by the number of places on a page
        self._freed: deque[tuple[_Page, int]] = deque()

    def take(self, size: int, owner: object) -> Tensor:
        """At least ``size`` bytes for as long as ``owner`` lives; it must be the only one to hold them.

        Its length is all that is taken for it: whole pages, or an equal part of one.
        """
        if size > PAGE // 2:
            return _mapped(size + -size % PAGE)
        places = PAGE // max(size, PAGE // 64)
        with self._lock:
            self._sort()
            pages = self._pages.setdefault(places, [])
            if not pages:
                pages.append(_Page(_mapped(PAGE), places, list(range(places))))
            page = pages[-1]
            place = page.free.pop()
            if not page.free:
                pages.pop()
        weakref.finalize(owner, self._free, page, place).atexit = False
        length = PAGE // places // 64 * 64
        return page.memory[place * length : (place + 1) * length]

    def _free(self, page: _Page, place: int) -> None:
        # This may run anywhere, also while this very thread takes memory: then the next one to take some sorts it.
        self._freed.append((page, place))
        if self._lock.acquire(blocking=False):
            try:
                self._sort()
            finally:
                self._lock.release()

    def _sort(self) -> None:
        while self._freed:
            page, place = self._freed.popleft()
            pages = self._pages.setdefault(page.places, [])
            if not page.free:
                pages.append(page)
            page.free.append(place)
            if len(page.free) == page.places:
                pages.remove(page)


def _mapped(size: int) -> Tensor:
    """``[size]`` bytes, a multiple of a huge page, that start on one."""
    whole = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # a system without them
        whole.madvise(mmap.MADV_HUGEPAGE)
    memory = torch.frombuffer(whole, dtype=torch.uint8)
    start = -memory.data_ptr() % PAGE
    return memory[start : start + size]
