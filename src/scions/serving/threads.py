"""How many of the processor's threads a batch is worth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

# With fewer tokens, threads wait for each other longer than they compute: a row alone took 8 ms in two threads and 5 in
# one. What is left of the processor takes requests apart and writes answers meanwhile.
FEW_TOKENS = 512


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
