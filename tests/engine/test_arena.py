"""Memory slots: disjoint, reused and released."""

from __future__ import annotations

import gc
import threading
from itertools import pairwise

import torch

from scions.engine.bottleneck import BottleneckTensors
from scions.engine.kernels.arena import PAGE, Arena
from scions.engine.kernels.int8_bottleneck import Int8Bottlenecks


class Owner:
    pass


def _addresses(memory: torch.Tensor) -> range:
    return range(memory.data_ptr(), memory.data_ptr() + memory.nbytes)


def test_small_ones_share_a_page_and_do_not_overlap():
    pages = Arena()
    owners = [Owner() for _ in range(7)]
    places = [_addresses(pages.take(PAGE // 4 - 100, owner)) for owner in owners]
    assert len({place.start // PAGE for place in places}) == 2
    places.sort(key=lambda place: place.start)
    for one, other in pairwise(places):
        assert one.stop <= other.start
    assert all(place.start % 64 == 0 and len(place) >= PAGE // 4 - 100 for place in places)


def test_a_place_let_go_is_used_again():
    pages = Arena()
    owners = [Owner() for _ in range(4)]
    places = [pages.take(PAGE // 4, owner).data_ptr() for owner in owners]
    del owners[1]
    gc.collect()
    assert pages.take(PAGE // 4, Owner()).data_ptr() == places[1]


def test_pages_without_owners_are_given_back():
    pages = Arena()
    for _ in range(3):
        owners = [Owner() for _ in range(40)]
        for owner in owners:
            pages.take(PAGE // 8, owner)
        del owner, owners
        gc.collect()
        assert not any(pages._pages.values())


def test_large_ones_have_pages_of_their_own():
    memory = Arena().take(3 * PAGE + 5, Owner())
    assert memory.nbytes == 4 * PAGE  # a huge page is held as a whole, and counted so
    assert memory.data_ptr() % PAGE == 0


def test_from_many_threads_no_two_get_the_same():
    pages, kept, wrong = Arena(), [], []

    def run(number: int) -> None:
        for step in range(60):
            owner = Owner()
            memory = pages.take(PAGE // 16 - 64, owner)
            memory.fill_(number)
            if step % 3 == 0:
                kept.append((owner, memory, number))
            if (memory != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert all((memory == number).all() for _, memory, number in kept)


def test_what_parts_gave_back_outlives_them():
    def part(value: float) -> BottleneckTensors:
        return BottleneckTensors(gamma=torch.full((64,), value), beta=torch.full((64,), value))

    [given] = Int8Bottlenecks([part(1.0)]).parts()
    gc.collect()
    later = Int8Bottlenecks([part(2.0)])
    assert given is not None
    assert given.gamma is not None
    assert (given.gamma == 1).all()
    assert later.bytes > 0
