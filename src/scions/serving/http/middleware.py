"""The outermost layer: a request's id, whose host it names, how large its body is, its log line and its count."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from scions.serving.errors import ApiError, error_body, gone
from scions.serving.logs import log, told
from scions.serving.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NOTE = "scions.note"  # where in the scope a route leaves what the log line should say
_UNMATCHED = "(none)"
_QUIET = ("/health", "/ready", "/metrics")  # asked every few seconds by machines
CROWDED = "scions.crowded"  # in the state of a request whose connection is one too many
# A client that is still sending does not read; so much of a body that is too large is read and thrown away.
_DISCARDED = 4


class RequestMiddleware:
    """ASGI middleware.

    Args:
        app: what comes next.
        metrics: where requests are counted; None counts none.
        max_body: bytes.
        patience: seconds that a body may take to arrive.
        hosts: the names under which the server may be addressed; None allows any. Without keys this keeps a web page
            elsewhere from reaching a local server under a name of its own (DNS rebinding).
    """

    def __init__(
        self, app: App, *, metrics: Metrics | None, max_body: int, patience: float, hosts: frozenset[str] | None
    ) -> None:
        self.app, self.metrics, self.max_body, self.patience, self.hosts = app, metrics, max_body, patience, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        identity = "req_" + secrets.token_hex(8)
        note: dict[str, Any] = {}
        scope[NOTE] = note
        status = 0
        crowded = CROWDED in scope.get("state", ())

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", identity.encode())]
                if crowded:
                    message["headers"].append((b"connection", b"close"))
            await send(message)

        try:
            if crowded and scope["path"] not in _QUIET:
                raise ApiError(
                    503, "Too many connections are open; try again shortly.", code="overloaded",
                    headers={"Retry-After": "1"},
                )  # fmt: skip
            self._check_host(scope)
            await self.app(scope, self._bounded(scope, receive), answer)
        except ApiError as error:
            if status:
                raise
            await _send_error(answer, error)
        except Exception as error:
            log("fault", logging.ERROR, id=identity, **told(error))
            if not status:
                await _send_error(answer, ApiError(500, "A fault of the server; its log says more.", code="fault"))
        finally:
            route = getattr(scope.get("route"), "path", _UNMATCHED)
            seconds = time.perf_counter() - started
            if self.metrics is not None:
                self.metrics.answered(route, scope["method"], status, seconds)
            if route not in _QUIET or status >= 500:
                log(
                    "request", id=identity, method=scope["method"], route=route, status=status,
                    ms=round(seconds * 1000, 2), **note,
                )  # fmt: skip

    def _check_host(self, scope: Scope) -> None:
        if self.hosts is None:
            return
        given = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        name = given.rpartition(":")[0] if given.rpartition(":")[2].isdigit() and not given.endswith("]") else given
        if name.lower() not in self.hosts:
            raise ApiError(
                403, "Without keys, this server answers only to the name it was bound to.", code="wrong_host"
            )

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        clock = asyncio.get_running_loop().time
        until = clock() + self.patience
        seen = 0
        complete = False

        async def in_time() -> Message:
            try:
                message = await asyncio.wait_for(receive(), until - clock())
            except asyncio.TimeoutError:
                raise ApiError(
                    408, f"The body did not arrive within {self.patience:g} seconds.", code="slow_body",
                    headers={"Connection": "close"},
                ) from None  # fmt: skip
            if message["type"] == "http.disconnect":
                raise gone()
            return message

        async def bounded() -> Message:
            nonlocal seen, complete
            if complete:
                return await receive()  # says when the client has gone, however long that takes
            if declared.isdigit() and int(declared) > self.max_body:
                await self._discard(in_time)
            message = await in_time()
            seen += len(message.get("body", b""))
            complete = not message.get("more_body")
            if seen > self.max_body:
                await self._discard(in_time, message)
            return message

        return bounded

    async def _discard(self, receive: Receive, message: Message | None = None) -> None:
        read = 0
        while read < _DISCARDED * self.max_body and (message is None or message.get("more_body")):
            message = await receive()
            read += len(message.get("body", b""))
        raise ApiError(413, f"The body has more than {self.max_body} bytes; split it.", code="too_large")


async def _send_error(send: Send, error: ApiError) -> None:
    body = json.dumps(error_body(error.status, str(error), error.code, error.param)).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **error.headers}
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
