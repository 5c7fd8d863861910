"""Complete FastAPI's OpenAPI document with request bodies, errors and API keys."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from scions.serving.http.requests import AddAdapterRequest, EmbeddingsRequest
from scions.serving.http.responses import ErrorResponse

_REF = "#/components/schemas/{model}"
_MEANINGS = {
    400: "The request is wrong",
    401: "No key, or an unknown one",
    403: "The key may not do this",
    404: "No such adapter, or none for this key",
    408: "The body did not arrive in time",
    409: "The adapter's folder is damaged, changed, or of another base",
    413: "The body, its rows or its tokens are too many",
    415: "Not JSON",
    422: "The rows cannot be encoded",
    429: "The queue is full; Retry-After says when to try again",
    503: "Starting, stopping, or too many connections",
}
_OPEN = ("/health", "/ready")


def body_of(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the ``requestBody`` of a route that reads its body by itself."""
    schema = {"$ref": _REF.format(model=kind.__name__)}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the ``responses`` of a route for these statuses."""
    return {status: {"model": ErrorResponse, "description": _MEANINGS[status]} for status in statuses}


def describe(app: FastAPI) -> None:
    """Make ``app.openapi()`` return the complete document."""
    app.openapi = cache(lambda: _complete(app))  # type: ignore[method-assign]


def document(app: FastAPI) -> str:
    """Return the document as text."""
    return json.dumps(app.openapi(), indent=2, ensure_ascii=False, sort_keys=True) + "\n"


def _complete(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    _, bodies = models_json_schema(
        [(EmbeddingsRequest, "validation"), (AddAdapterRequest, "validation")], ref_template=_REF
    )
    components = schema["components"]
    components["schemas"] |= bodies["$defs"]
    for unused in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(unused, None)
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, methods in schema["paths"].items():
        for operation in methods.values():
            answers = operation["responses"]
            if "HTTPValidationError" in json.dumps(answers.get("422", {})):
                del answers["422"]  # path parameters are plain strings: nothing to refuse
            if path not in _OPEN:
                operation["security"] = [{"key": []}, {}]  # without keys the server is open to its own machine
    return schema
