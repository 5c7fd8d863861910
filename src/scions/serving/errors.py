"""What a client is told when something is wrong: an HTTP status, and OpenAI's shape of an error."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scions.errors import ScionsError

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


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


def error_body(status: int, message: str, code: str | None, param: str | None = None) -> dict[str, Any]:
    """The JSON object of an error, as the OpenAI API shapes it."""
    kind = _KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def not_found(name: str) -> ApiError:
    """Says the same of an adapter that is not there and of one that the key may not use."""
    return ApiError(
        404, f"The model {name!r} does not exist or you have no access to it.", code="model_not_found", param="model"
    )


def gone() -> ApiError:
    """For the log only: there is nobody left to tell."""
    return ApiError(499, "The client has closed the connection.", code="client_gone")


def stopping() -> ApiError:
    """The server takes no new requests; another one does, or this one after its restart."""
    headers = {"Retry-After": "5", "Connection": "close"}
    return ApiError(503, "The server is being stopped.", code="stopping", headers=headers)


def busy(message: str, seconds: int) -> ApiError:
    """Too much is waiting: try again in so many seconds."""
    return ApiError(429, message, code="busy", headers={"Retry-After": str(seconds)})
