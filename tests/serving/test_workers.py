"""Threads of the processor for several workers and for small batches."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from scions.serving.workers import FEW_TOKENS, MAX_WORKERS, limit_threads, worker_threads, workers_for


def test_small_batches_take_one_thread_and_large_ones_all(monkeypatch):
    set_to: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    encode = limit_threads(lambda ids, adapters, strengths: (len(ids), adapters, strengths))
    assert encode([[1, 2], [3]], ["a", None], [1.0, 0.5]) == (2, ["a", None], [1.0, 0.5])
    assert set_to == [1, 3]
    encode([[1] * (FEW_TOKENS // 2)] * 2, [None] * 2, [1.0] * 2)
    assert set_to == [1, 3]


def test_the_process_has_its_threads_back_after_an_error(monkeypatch):
    set_to: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    with pytest.raises(ZeroDivisionError):
        limit_threads(lambda ids: 1 / 0)([[1]])
    assert set_to == [1, 3]


def test_workers_share_the_threads_and_the_process_keeps_its_own():
    before = torch.get_num_threads()
    torch.set_num_threads(5)
    try:
        threads = worker_threads(2)
        torch.set_num_threads(5)
        with threads:
            assert [threads.submit(torch.get_num_threads).result() for _ in range(4)] == [2] * 4
        with worker_threads(1) as alone:
            assert alone.submit(torch.get_num_threads).result() == 5
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)


def test_only_the_packed_loop_on_a_processor_gets_several_batches(monkeypatch):
    def workers(engine: str, device: str) -> int:
        return workers_for(SimpleNamespace(engine=engine, device=torch.device(device)))

    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert (workers("packed", "cpu"), workers("packed", "cuda"), workers("peft", "cpu")) == (4, 1, 1)
    assert workers_for(object()) == 1
    monkeypatch.setattr(torch, "get_num_threads", lambda: 64)
    assert workers("packed", "cpu") == MAX_WORKERS
