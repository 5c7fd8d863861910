"""What a server may use and what a request may ask for."""

from __future__ import annotations

from dataclasses import dataclass

from scions.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """Limits of a server.

    Attributes:
        memory: bytes of adapter weights kept loaded.
        max_body: bytes of a request's body.
        max_rows: inputs of a request; 2,048 is OpenAI's own limit.
        max_tokens: tokens of a request, all rows together.
        max_adapters: different adapters in one request.
        queue_rows: rows of all clients that wait or are encoded.
        batch_tokens: tokens encoded together.
        linger: seconds to wait for requests that are being tokenised while a batch is not full.
        connections: open connections that are served; some more are told 503, and any further are closed.
        patience: seconds that a connection waits for its client: for a request to come, for its body, for an answer to
            be read.
        drain: seconds that running requests have to finish when the server is stopped.
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
    patience: float = 75.0  # longer than load balancers keep idle connections, so that it is they who close them
    drain: float = 30.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            least = 0 if name == "linger" else 1
            if value < least:
                raise UsageError(f"{name} is {value}; it must be at least {least}")
        if self.queue_rows < 2 * self.max_rows:
            # A client alone may fill half of the queue: a largest request must have a place in it.
            raise UsageError(
                f"queue_rows is {self.queue_rows}; with max_rows {self.max_rows} it must be at least "
                f"{2 * self.max_rows}, or the largest request could never be queued"
            )
