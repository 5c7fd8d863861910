"""uvicorn as this server needs it: so many connections and no more, none that waits for ever, an end seen from afar."""

from __future__ import annotations

import asyncio
import functools
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from scions.serving.http.middleware import CROWDED
from scions.serving.service import Service


class Connection(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's connection, closed where its client does nothing.

    uvicorn itself closes only connections that are idle after an answer: not those that never send a request, or half
    of one, or never read what they asked for.

    Args:
        most: connections that are served. An eighth as many again are told 503 (`RequestMiddleware`), with a second to
            ask; what comes beyond is closed at once.
        patience: seconds for the client's next step; it takes up to twice as long to be seen.
    """

    app_state: dict[str, Any]  # uvicorn's; each request gets a copy as its scope's state

    def __init__(self, *args: Any, most: int, patience: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._most, self._patience = most, patience
        self._seen: Any = (None, 0)
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        open_now = len(self.connections)
        if open_now > self._most + max(8, self._most // 8):
            transport.abort()
            return
        if open_now > self._most:
            self.app_state = {**self.app_state, CROWDED: True}
            self._patience = min(1.0, self._patience)
        self._watch = self.loop.call_later(self._patience, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        """Close where the next step has been the client's since the last look, and it took none."""
        unread = self.transport.get_write_buffer_size()
        waiting = unread or self.cycle is None or self.cycle.response_complete
        now = (self.cycle, unread) if waiting else None  # each request is a cycle of its own
        if waiting and now == self._seen:
            self.transport.abort()
            return
        self._seen = now
        self._watch = self.loop.call_later(self._patience, self._look)


class Server(uvicorn.Server):
    """A uvicorn server of one `Service`, which tells load balancers before it closes its door."""

    def __init__(self, app: Any) -> None:
        self._service: Service = app.state.service
        limits = self._service.settings
        protocol: Any = functools.partial(Connection, most=limits.connections, patience=limits.patience)
        super().__init__(
            uvicorn.Config(
                app,
                http=protocol,
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=max(1, round(limits.patience)),
            )
        )
        self._service.metrics.connections.set_function(lambda: len(self.server_state.connections))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Refuse new requests and say so at ``/ready``, still listening, while others run; then close."""
        self._service.ready = False
        clock = asyncio.get_running_loop().time
        until = clock() + self._service.settings.drain
        while self.server_state.tasks and not self.force_exit and clock() < until:
            await asyncio.sleep(0.05)
        self.config.timeout_graceful_shutdown = max(1, round(until - clock()))
        await super().shutdown(sockets)
