"""uvicorn with a limit on connections, a time limit for idle clients, and a shutdown that load balancers notice."""

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

    uvicorn itself closes only connections that are idle after a response: not those whose client never sends a
    request, or half of one, or never reads the response.

    Args:
        limit: connections that are served. An eighth as many again get 503 (`RequestMiddleware`) and one second to send
            a request; any further are closed at once.
        patience: seconds for the client's next step; a connection closes after at most twice as long.
    """

    app_state: dict[str, Any]  # uvicorn's; each request gets a copy as its scope's state

    def __init__(self, *args: Any, limit: int, patience: float, **options: Any) -> None:
        super().__init__(*args, **options)
        self._limit, self._patience = limit, patience
        self._last_state: Any = (None, 0)
        self._watch: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        open_now = len(self.connections)
        if open_now > self._limit + max(8, self._limit // 8):
            transport.abort()
            return
        if open_now > self._limit:
            self.app_state = {**self.app_state, CROWDED: True}
            self._patience = min(1.0, self._patience)
        self._watch = self.loop.call_later(self._patience, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._watch is not None:
            self._watch.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        """Close where the next step has been the client's since the last check, and it took none."""
        unread = self.transport.get_write_buffer_size()
        waiting = unread or self.cycle is None or self.cycle.response_complete
        state = (self.cycle, unread) if waiting else None  # each request has its own cycle
        if waiting and state == self._last_state:
            self.transport.abort()
            return
        self._last_state = state
        self._watch = self.loop.call_later(self._patience, self._check)


class Server(uvicorn.Server):
    """A uvicorn server of one `Service` that stays reachable while running requests finish."""

    def __init__(self, app: Any) -> None:
        self._service: Service = app.state.service
        limits = self._service.settings
        protocol: Any = functools.partial(Connection, limit=limits.connections, patience=limits.patience)
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
