"""The encoder that a server drives, and the threads in which it encodes batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, Protocol

import numpy as np

# With fewer tokens, threads wait for each other longer than they compute: a row took 8 ms in two threads and 5 in one.
# Meanwhile the other threads of the processor parse requests and write answers.
FEW_TOKENS = 512
MAX_WORKERS = 8  # each runs some Python for every batch, and only one of them at a time can


class RowBatchEncoder(Protocol):
    """A base that encodes each row with its own adapter; any thread may call its methods."""

    @property
    def tokenizer(self) -> Any: ...

    def tokenize_rows(
        self, texts: Sequence[str], prompt: str = "", max_length: int | None = None
    ) -> tuple[list[list[int]], int]:
        """Return the token ids of every text, special tokens included, and how many texts were cut."""

    def encode_rows(
        self, token_ids: Sequence[Sequence[int]], adapters: Sequence[Any], strengths: Sequence[float]
    ) -> np.ndarray:
        """Return vectors ``[rows, dim]``, float32; ``adapters`` holds weights, or None for the base alone."""


def workers_for(encoder: Any) -> int:
    """Return how many batches ``encoder`` encodes at a time.

    On a processor one for each thread: two threads in one batch wait for each other at every operator, above all where
    one of them has to let the event loop run; two batches of one thread each do not (1.3 times the rate on two cores).
    One batch on a GPU, and for an encoder that cannot run two at a time (`DomainEncoder.engine` ``"peft"``).
    """
    if getattr(encoder, "engine", None) != "packed" or encoder.device.type != "cpu":
        return 1
    import torch

    return min(torch.get_num_threads(), MAX_WORKERS)


def worker_threads(workers: int) -> ThreadPoolExecutor:
    """Start the threads to encode in; several of them share the processor's threads."""
    if workers == 1:
        return ThreadPoolExecutor(1, thread_name_prefix="scions-encode")
    import torch

    total = torch.get_num_threads()
    ready = Barrier(workers + 1)

    def prepare() -> None:
        torch.set_num_threads(max(1, total // workers))
        torch.get_num_threads()  # a thread takes over the process's number at its first query, and keeps it
        ready.wait()

    threads = ThreadPoolExecutor(workers, thread_name_prefix="scions-encode")
    for _ in range(workers):
        threads.submit(prepare)
    ready.wait()
    torch.set_num_threads(total)  # what other threads of this process start with
    return threads


def limit_threads(encode: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``encode(token ids, adapters, strengths)`` so that small batches run in one thread.

    The number of threads is the process's, so all calls must come from one thread; it is restored when a call returns.
    """
    import torch

    total = torch.get_num_threads()

    def run(ids: Sequence[Sequence[int]], *columns: Any) -> Any:
        if sum(map(len, ids)) >= FEW_TOKENS:
            return encode(ids, *columns)
        torch.set_num_threads(1)
        try:
            return encode(ids, *columns)
        finally:
            torch.set_num_threads(total)

    return run
