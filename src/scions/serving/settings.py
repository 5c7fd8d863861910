"""Limits of a server and of its requests."""

from __future__ import annotations

from dataclasses import dataclass

from scions.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """Limits of a server.

    Attributes:
        memory: bytes of adapter weights that stay loaded.
        max_body: bytes of a request's body.
        max_rows: inputs of a request; 2,048 is OpenAI's own limit.
        max_tokens: tokens of a request, all rows together.
        max_adapters: different adapters in one request.
        queue_rows: rows of all clients, waiting or being encoded.
        batch_tokens: tokens encoded together.
        linger: seconds that a batch which is not full waits for requests that are being tokenized.
        connections: open connections that are served; some more get 503, and any further are closed.
        patience: seconds that a connection waits for its client to send a request or its body, or to read an answer.
        drain: seconds that running requests have to finish when the server stops.
    """

    memory: int = 2**30
    max_body: int = 4 * 2**20
    max_rows: int = 2048
    max_tokens: int = 300_000
    max_adapters: int = 256
    queue_rows: int = 16_384
    batch_tokens: int = 2048
    linger: float = 0.002
    connections: int = 512  # well below the 1,024 files that a process may usually open
    patience: float = 75.0  # longer than load balancers keep idle connections, so that they close first
    drain: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            minimum = 0 if name == "linger" else 1
            if value < minimum:
                raise UsageError(f"`{name}={value}` is too small; it must be at least {minimum}")
        if self.queue_rows < 2 * self.max_rows:
            # One client may fill half of the queue, and the largest request must fit into that half.
            raise UsageError(
                f"`queue_rows={self.queue_rows}` is too small; with `max_rows={self.max_rows}` it must be at least "
                f"{2 * self.max_rows}, or the largest request could never be queued"
            )
