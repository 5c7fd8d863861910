"""Outermost layer of the app: request id, host check, bounded bodies, errors, log line and metrics."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from scions.serving.errors import ApiError, client_gone, too_large, unavailable
from scions.serving.logs import describe_error, log
from scions.serving.metrics import Metrics

LOG_FIELDS = "scions.log_fields"  # where in the scope a route adds fields of the log line
_UNMATCHED = "(none)"
_QUIET = ("/health", "/ready", "/metrics")  # requested every few seconds by machines
CROWDED = "scions.crowded"  # in the state of requests on a connection beyond the limit
# A client that is still sending does not read the answer, so a body that is too large is read, up to this multiple.
_DISCARDED = 4


class RequestMiddleware:
    """ASGI middleware around all routes.

    Args:
        app: the app inside.
        metrics: counts the requests.
        max_body: bytes.
        patience: seconds that a body may take to arrive.
        hosts: the names under which clients may address the server; None allows any. Without keys this keeps web pages
            from reaching a local server under another name (DNS rebinding).
    """

    def __init__(
        self, app: ASGIApp, *, metrics: Metrics, max_body: int, patience: float, hosts: frozenset[str] | None
    ) -> None:
        self.app, self.metrics, self.max_body, self.patience, self.hosts = app, metrics, max_body, patience, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        identity = "req_" + secrets.token_hex(8)
        fields: dict[str, Any] = {}
        scope[LOG_FIELDS] = fields
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
                raise unavailable("Too many connections are open; try again shortly.", "overloaded", 1)
            self._check_host(scope)
            await self.app(scope, self._bounded(scope, receive), answer)
        except ApiError as error:
            if status:
                raise
            await error_response(error)(scope, receive, answer)
        except Exception as error:
            log("fault", logging.ERROR, id=identity, **describe_error(error))
            if not status:
                fault = ApiError(500, "A fault of the server; its log says more.", code="fault")
                await error_response(fault)(scope, receive, answer)
        finally:
            route = getattr(scope.get("route"), "path", _UNMATCHED)
            seconds = time.perf_counter() - started
            self.metrics.answered(route, scope["method"], status, seconds)
            if route not in _QUIET or status >= 500:
                log(
                    "request", id=identity, method=scope["method"], route=route, status=status,
                    ms=round(seconds * 1000, 2), **fields,
                )  # fmt: skip

    def _check_host(self, scope: Scope) -> None:
        if self.hosts is None:
            return
        host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
        name, _, port = host.rpartition(":")
        if not port.isdigit():
            name = host
        if name.lower() not in self.hosts:
            message = "Without keys, this server answers only to the name it was bound to."
            raise ApiError(403, message, code="wrong_host")

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
                raise client_gone()
            return message

        async def bounded() -> Message:
            nonlocal seen, complete
            if complete:
                return await receive()  # waits until the client disconnects
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
        raise too_large(f"The body has more than {self.max_body} bytes", None)


def error_response(error: ApiError) -> JSONResponse:
    """Return the response of an error."""
    return JSONResponse(error.body, status_code=error.status, headers=error.headers)
