"""Errors of the HTTP API: a status, and the body that OpenAI's API gives for one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scions.errors import ScionsError

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(ScionsError):
    """An error that ends one request.

    Attributes:
        status: HTTP status, 400 to 599.
        param: the field of the request that is wrong, None where none is.
        code: a word for programs, such as ``model_not_found``.
        headers: further headers of the response.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the response."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.code}}


def not_found(name: str, version: str | None = None) -> ApiError:
    """404, the same for an adapter that does not exist and for one that the key may not use."""
    full = name if version is None else f"{name}@{version}"
    message = f"The model {full!r} does not exist or you have no access to it."
    return ApiError(404, message, code="model_not_found", param="model")


def invalid(field: str, problem: str, row: int | None = None) -> ApiError:
    """400, a field of the body is wrong; ``row`` counts from 0."""
    where = field if row is None else f"{field}[{row}]"
    return ApiError(400, f"{where}: {problem}.", code="invalid_body", param=field)


def too_large(problem: str, param: str | None = "input") -> ApiError:
    """413, the request is beyond a limit."""
    return ApiError(413, f"{problem}; split it.", code="too_large", param=param)


def busy(problem: str, seconds: int) -> ApiError:
    """429, too much is waiting; a client may try again after ``seconds``."""
    return ApiError(429, f"{problem}; try again shortly.", code="busy", headers={"Retry-After": str(seconds)})


def unavailable(message: str, code: str, seconds: int, **headers: str) -> ApiError:
    """503, the server takes no requests; a client may try again after ``seconds``."""
    return ApiError(503, message, code=code, headers={"Retry-After": str(seconds), **headers})


def stopping() -> ApiError:
    """503, the server is shutting down; the connection closes so that the client finds another server."""
    return unavailable("The server is being stopped.", "stopping", 5, Connection="close")


def client_gone() -> ApiError:
    """499, the client has closed the connection; only the log shows this status."""
    return ApiError(499, "The client has closed the connection.", code="client_gone")
