"""How many batches are encoded at a time, and how many of the processor's threads each is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

# With fewer tokens, threads wait for each other longer than they compute: a row alone took 8 ms in two threads and 5 in
# one. What is left of the processor takes requests apart and writes answers meanwhile.
FEW_TOKENS = 512
MOST_WORKERS = 8  # each runs some Python for every batch, and only one of them at a time can


def workers_for(encoder: Any) -> int:
    """How many batches ``encoder`` is given at a time.

    On a processor one for each thread: two threads in one batch wait for each other at every operator, above all where
    one of them has to let the event loop run; two batches of one thread each do not (1.3 times the rate on two cores).
    One batch for what encodes on a GPU, and for what cannot run two at a time (`DomainEncoder.engine` ``"peft"``).
    """
    if getattr(encoder, "engine", None) != "packed" or encoder.device.type != "cpu":
        return 1
    import torch

    return min(torch.get_num_threads(), MOST_WORKERS)


def worker_threads(workers: int) -> ThreadPoolExecutor:
    """So many threads to encode in, which share the processor's between them where they are more than one."""
    if workers == 1:
        return ThreadPoolExecutor(1, thread_name_prefix="scions-encode")
    import torch

    most = torch.get_num_threads()
    ready = Barrier(workers + 1)

    def prepare() -> None:
        torch.set_num_threads(max(1, most // workers))
        torch.get_num_threads()  # a thread takes the process's number over at its first question, and keeps it
        ready.wait()

    threads = ThreadPoolExecutor(workers, thread_name_prefix="scions-encode")
    for _ in range(workers):
        threads.submit(prepare)
    ready.wait()
    torch.set_num_threads(most)  # what other threads of this process start with
    return threads


def in_threads(encode: Callable[..., Any]) -> Callable[..., Any]:
    """``encode(token ids, adapters, strengths)``, small batches in one thread; all calls must come from one thread.

    The number of threads is the process's: it is as before when a call returns.
    """
    import torch

    most = torch.get_num_threads()

    def run(ids: Sequence[Sequence[int]], *rest: Any) -> Any:
        if sum(map(len, ids)) >= FEW_TOKENS:
            return encode(ids, *rest)
        torch.set_num_threads(1)
        try:
            return encode(ids, *rest)
        finally:
            torch.set_num_threads(most)

    return run
