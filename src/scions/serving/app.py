"""The FastAPI app: OpenAI's embeddings and models, and the adapters of this server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any, TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from scions.serving.adapter_cache import Version
from scions.serving.errors import ApiError, client_gone, not_found
from scions.serving.http import responses
from scions.serving.http.adapter_choice import Choice, parse_model
from scions.serving.http.keys import Caller, local_caller
from scions.serving.http.middleware import LOG_FIELDS, RequestMiddleware, error_response
from scions.serving.http.openapi import body_of, describe, errors
from scions.serving.http.requests import AddAdapterRequest, EmbeddingsRequest, parse
from scions.serving.service import Service
from scions.store.names import BASE
from scions.version import __version__

Result = TypeVar("Result")
_CODES = {404: "not_found", 405: "method_not_allowed"}
_STATES: dict[int | str, dict[str, Any]] = {503: {"model": responses.State, "description": "Not able to answer"}}
_router = APIRouter(generate_unique_id_function=lambda route: route.name)


def create_app(service: Service, hosts: frozenset[str] | None = None) -> FastAPI:
    """Return the ASGI app of a server, which starts and closes ``service`` in its lifespan.

    ``hosts`` are the names that clients may address it by, see `RequestMiddleware`; None for any.
    """
    app = routes()
    app.state.service = service
    limits = service.settings
    app.add_middleware(
        RequestMiddleware, metrics=service.metrics, max_body=limits.max_body, patience=limits.patience, hosts=hosts
    )
    return app


def routes() -> FastAPI:
    """Return the app without a service, from which the OpenAPI document is generated."""
    app = FastAPI(
        title="Scions",
        version=__version__,
        summary="Embeddings of many domains from one base, as the OpenAI API gives them",
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        redirect_slashes=False,
    )
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.router.routes.extend(_router.routes)  # `include_router` would nest them, which costs 5 % of a small request
    describe(app)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await service.start()
    try:
        yield
    finally:
        await service.close()


@_router.post(
    "/v1/embeddings", response_model=responses.EmbeddingsResponse, openapi_extra=body_of(EmbeddingsRequest),
    responses=errors(400, 401, 404, 408, 409, 413, 415, 422, 429, 503),
)  # fmt: skip
async def embeddings(request: Request) -> Response:
    """Embed texts or token ids, each row with its own adapter where you give one."""
    caller, service = _caller(request), _service(request)
    service.check_open()
    body: EmbeddingsRequest = parse(EmbeddingsRequest, await _json(request))
    work = service.embed(caller, body, request.scope[LOG_FIELDS])
    content, headers = await _unless_gone(request, work)
    return Response(content, media_type="application/json", headers=headers)


@_router.get("/v1/models", response_model=responses.ModelList, responses=errors(401))
async def models(request: Request) -> Response:
    """List the base and the adapters that the key may use, as OpenAI lists models."""
    caller, service = _caller(request), _service(request)
    base = _model(BASE, service.created)
    adapters = (_model(name, versions[0].created) for name, versions in _usable(service, caller))
    return Response(await responses.list_body(chain([base], adapters)), media_type="application/json")


@_router.get("/v1/models/{model:path}", response_model=responses.Model, responses=errors(401, 404))
async def model(request: Request, model: str) -> Response:
    """Show one model: `base`, an adapter, or `adapter@version`."""
    caller, service = _caller(request), _service(request)
    choice = parse_model(model, service.base_info.id)
    created = service.created if choice is None else _versions(service, caller, choice)[0].created
    return _response(_model(model, created))


@_router.get("/v1/adapters", response_model=responses.AdapterList, responses=errors(401))
async def adapters(request: Request) -> Response:
    """List the adapters that the key may use, with their versions."""
    caller, service = _caller(request), _service(request)
    listed = (_adapter(name, versions=versions) for name, versions in _usable(service, caller))
    return Response(await responses.list_body(listed), media_type="application/json")


@_router.post(
    "/v1/adapters", response_model=responses.AdapterAdded, openapi_extra=body_of(AddAdapterRequest),
    responses=errors(400, 401, 403, 404, 408, 409, 413, 415),
)  # fmt: skip
async def add_adapter(request: Request) -> Response:
    """Add a folder under the server's folder of adapters, or read it again: its content becomes the newest version."""
    _check_admin(request)
    body: AddAdapterRequest = parse(AddAdapterRequest, await _json(request))
    service = _service(request)
    version, new = await service.add(body.folder, body.name)
    name = body.name or body.folder
    request.scope[LOG_FIELDS].update(adapter=name, version=version)
    return _response(_adapter(name, version=version, new=new, versions=service.adapter_cache.versions(name)))


@_router.get("/v1/adapters/{adapter}", response_model=responses.Adapter, responses=errors(401, 404))
async def adapter(request: Request, adapter: str) -> Response:
    """Show one adapter and its versions."""
    caller, service = _caller(request), _service(request)
    choice = Choice.parse(adapter)
    _versions(service, caller, choice)
    return _response(_adapter(choice.name, versions=service.adapter_cache.versions(choice.name)))


@_router.delete("/v1/adapters/{adapter}", response_model=responses.AdapterRemoved, responses=errors(401, 403, 404))
async def remove_adapter(request: Request, adapter: str) -> Response:
    """Forget an adapter, or one version of it (`legal@3f2a…`). Its folder stays; running requests finish with it."""
    _check_admin(request)
    choice = Choice.parse(adapter)
    removed = _service(request).remove(choice.name, choice.version)
    request.scope[LOG_FIELDS].update(adapter=choice.name)
    return _response(_adapter(adapter, deleted=True, versions=removed))


@_router.get("/health", response_model=responses.State, responses=_STATES)
async def health(request: Request) -> Response:
    """Say whether the process is sound; restart it at 503."""
    failed = _service(request).batcher.failed
    return _response({"status": "failed" if failed else "ok"}, 503 if failed else 200)


@_router.get("/ready", response_model=responses.State, responses=_STATES)
async def ready(request: Request) -> Response:
    """Say whether the server takes requests."""
    accepting = _service(request).ready
    return _response({"status": "ready" if accepting else "stopping"}, 200 if accepting else 503)


@_router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **errors(401, 403)})
async def metrics(request: Request) -> Response:
    """Return metrics for Prometheus; needs a key for all adapters, because their names are in it."""
    if _caller(request).adapters is not None:
        raise ApiError(403, "A key for all adapters is needed.", code="not_allowed")
    return Response(_service(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _caller(request: Request) -> Caller:
    keys = _service(request).keys
    caller = local_caller(request.client) if keys is None else keys.check(request.headers.get("authorization"))
    request.scope[LOG_FIELDS]["caller"] = caller.name
    return caller


def _check_admin(request: Request) -> None:
    if not _caller(request).admin:
        raise ApiError(403, "This key may not change adapters.", code="not_allowed")


def _versions(service: Service, caller: Caller, choice: Choice) -> list[Version]:
    """Return the versions that a choice names, the newest first, and at least one."""
    versions = service.adapter_cache.versions(choice.name) if caller.may_use(choice.name) else []
    named = [version for version in versions if choice.version in (None, version.version)]
    if not named:
        raise not_found(choice.name, choice.version)
    return named


def _usable(service: Service, caller: Caller) -> Iterator[tuple[str, list[Version]]]:
    """Yield each adapter that a caller may use, with its versions."""
    for name in service.adapter_cache.names():
        if not caller.may_use(name):
            continue
        try:
            versions = service.adapter_cache.versions(name)
        except ApiError:  # removed since
            continue
        yield name, versions


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "scions"}


def _adapter(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "object": "adapter", **fields}


def _response(content: Any, status: int = 200) -> Response:
    return Response(to_json(content), status, media_type="application/json")


async def _json(request: Request) -> bytes:
    # A web page may send text/plain to a local server without permission of the browser, but not JSON.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Content-Type: application/json is needed.", code="wrong_content_type")
    return await request.body()


async def _unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Await work, and cancel it where the client closes the connection meanwhile."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise client_gone()
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{request.method} {request.url.path}: {error.detail}"
    code = _CODES.get(error.status_code, "http_error")
    return error_response(ApiError(error.status_code, message, code=code, headers=error.headers))
