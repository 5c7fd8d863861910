"""Memory for adapters on huge pages, where the system has them: small ones share a page, freed slots are reused.

A batch of many adapters reads the weights of all of them once. With pages of 4 KiB, looking up the pages takes as long
as reading them.
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
class _HugePage:
    memory: Tensor
    slots: int
    free: list[int]


class Arena:
    """Allocates memory of any size; safe to use from any number of threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pages: dict[int, list[_HugePage]] = {}  # with free slots, by the number of slots on a page
        self._freed: deque[tuple[_HugePage, int]] = deque()

    def take(self, size: int, owner: object) -> Tensor:
        """Return at least ``size`` bytes, valid while ``owner`` lives; nothing else may hold them.

        The length of the result is all that is allocated: whole pages, or an equal part of one.
        """
        if size > PAGE // 2:
            return _mapped(size + -size % PAGE)
        slots = PAGE // max(size, PAGE // 64)
        with self._lock:
            self._collect()
            pages = self._pages.setdefault(slots, [])
            if not pages:
                pages.append(_HugePage(_mapped(PAGE), slots, list(range(slots))))
            page = pages[-1]
            slot = page.free.pop()
            if not page.free:
                pages.pop()
        weakref.finalize(owner, self._free, page, slot).atexit = False
        length = PAGE // slots // 64 * 64
        return page.memory[slot * length : (slot + 1) * length]

    def _free(self, page: _HugePage, slot: int) -> None:
        # This may run at any point, also while this very thread allocates: then the next `take` collects the slot.
        self._freed.append((page, slot))
        if self._lock.acquire(blocking=False):
            try:
                self._collect()
            finally:
                self._lock.release()

    def _collect(self) -> None:
        while self._freed:
            page, slot = self._freed.popleft()
            pages = self._pages.setdefault(page.slots, [])
            if not page.free:
                pages.append(page)
            page.free.append(slot)
            if len(page.free) == page.slots:
                pages.remove(page)


def _mapped(size: int) -> Tensor:
    """Return ``[size]`` bytes, a multiple of a huge page, aligned to one."""
    memory = mmap.mmap(-1, size + PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(AttributeError, OSError):  # a system without huge pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    tensor = torch.frombuffer(memory, dtype=torch.uint8)
    start = -tensor.data_ptr() % PAGE
    return tensor[start : start + size]
