"""Small batches run in one thread, and large ones in all."""

from __future__ import annotations

import pytest
import torch

from scions.serving.threads import FEW_TOKENS, in_threads


def test_small_batches_take_one_thread_and_large_ones_all(monkeypatch):
    set_to: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    encode = in_threads(lambda ids, adapters, strengths: (len(ids), adapters, strengths))
    assert encode([[1, 2], [3]], ["a", None], [1.0, 0.5]) == (2, ["a", None], [1.0, 0.5])
    assert set_to == [1, 3]
    encode([[1] * (FEW_TOKENS // 2)] * 2, [None] * 2, [1.0] * 2)
    assert set_to == [1, 3]


def test_the_process_has_its_threads_back_after_an_error(monkeypatch):
    set_to: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda ids: 1 / 0)([[1]])
    assert set_to == [1, 3]
