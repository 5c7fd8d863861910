"""The HTTP interface: OpenAI's embeddings and models, and the adapters of this server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from itertools import chain
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from scions.serving.errors import ApiError, error_body, gone, not_found
from scions.serving.http import responses as answers
from scions.serving.http.adapter_choice import BASE, Choice, parse_model
from scions.serving.http.keys import Caller, local_caller
from scions.serving.http.middleware import NOTE, RequestMiddleware
from scions.serving.http.openapi import body_of, describe, errors
from scions.serving.http.requests import AddAdapterRequest, EmbeddingsRequest, parse
from scions.serving.service import Service
from scions.version import __version__

Result = TypeVar("Result")
_CODES = {404: "not_found", 405: "method_not_allowed"}


def create_app(service: Service, hosts: frozenset[str] | None = None) -> FastAPI:
    """The ASGI app of a server, which starts and closes ``service`` with its own life.

    Args:
        service: what answers.
        hosts: the names it may be addressed by, see `RequestMiddleware`; None for any.
    """
    app = routes()
    app.state.service = service
    limits = service.settings
    app.add_middleware(
        RequestMiddleware, metrics=service.metrics, max_body=limits.max_body, patience=limits.patience, hosts=hosts
    )
    return app


def routes() -> FastAPI:
    """The app without a service: what the OpenAPI file is written from."""
    app = FastAPI(
        title="Scions",
        version=__version__,
        summary="Embeddings of many domains from one base, as the OpenAI API gives them",
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=_lifespan,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_api_route(
        "/v1/embeddings", embeddings, methods=["POST"], response_model=answers.EmbeddingsResponse,
        openapi_extra=body_of(EmbeddingsRequest), responses=errors(400, 401, 404, 408, 409, 413, 415, 422, 429, 503),
    )  # fmt: skip
    app.add_api_route("/v1/models", models, methods=["GET"], response_model=answers.ModelList, responses=errors(401))
    app.add_api_route(
        "/v1/models/{model:path}", model, methods=["GET"], response_model=answers.Model, responses=errors(401, 404)
    )
    app.add_api_route(
        "/v1/adapters", adapters, methods=["GET"], response_model=answers.AdapterList, responses=errors(401)
    )
    app.add_api_route(
        "/v1/adapters", add_adapter, methods=["POST"], response_model=answers.AdapterAdded,
        openapi_extra=body_of(AddAdapterRequest), responses=errors(400, 401, 403, 404, 408, 409, 413, 415),
    )  # fmt: skip
    app.add_api_route(
        "/v1/adapters/{adapter}", adapter, methods=["GET"], response_model=answers.Adapter, responses=errors(401, 404)
    )
    app.add_api_route(
        "/v1/adapters/{adapter}", remove_adapter, methods=["DELETE"], response_model=answers.AdapterRemoved,
        responses=errors(401, 403, 404),
    )  # fmt: skip
    state: dict[int | str, dict[str, Any]] = {503: {"model": answers.State, "description": "Not able to answer"}}
    app.add_api_route("/health", health, methods=["GET"], response_model=answers.State, responses=state)
    app.add_api_route("/ready", ready, methods=["GET"], response_model=answers.State, responses=state)
    app.add_api_route(
        "/metrics", metrics, methods=["GET"], response_class=Response,
        responses={200: {"content": {"text/plain": {}}}, **errors(401, 403)},
    )  # fmt: skip
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


async def embeddings(request: Request) -> Response:
    """Embed texts or token ids, each row with an adapter of its own if you like."""
    caller = _caller(request)
    _service(request).check_open()
    body: EmbeddingsRequest = parse(EmbeddingsRequest, await _json(request))
    work = _service(request).embed(caller, body, request.scope[NOTE])
    content, headers = await _unless_gone(request, work)
    return Response(content, media_type="application/json", headers=headers)


async def models(request: Request) -> Response:
    """List the base and the adapters that the key may use, as OpenAI lists models."""
    caller, service = _caller(request), _service(request)
    base = _model(BASE, service.started)
    listed = (_model(name, versions[0]["created"]) for name, versions in _usable(service, caller))
    return Response(await answers.list_body(chain([base], listed)), media_type="application/json")


async def model(request: Request, model: str) -> Response:
    """One model: `base`, an adapter, or `adapter@version`."""
    caller, service = _caller(request), _service(request)
    choice = parse_model(model, service.base_info.id)
    if choice is None:
        return JSONResponse(_model(model, service.started))
    known = _known(service, caller, choice)
    return JSONResponse(_model(model, known["created"]))


async def adapters(request: Request) -> Response:
    """List the adapters that the key may use, with their versions."""
    caller, service = _caller(request), _service(request)
    listed = ({"id": name, "object": "adapter", "versions": of} for name, of in _usable(service, caller))
    return Response(await answers.list_body(listed), media_type="application/json")


async def adapter(request: Request, adapter: str) -> Response:
    """One adapter and its versions."""
    caller, service = _caller(request), _service(request)
    choice = Choice.parse(adapter)
    _known(service, caller, choice)
    return JSONResponse({"id": choice.name, "object": "adapter", "versions": service.versions(choice.name)})


async def add_adapter(request: Request) -> Response:
    """Add a folder under the server's folder of adapters, or read it again: its content becomes the newest version."""
    _administrator(request)
    body: AddAdapterRequest = parse(AddAdapterRequest, await _json(request))
    service = _service(request)
    version, new = await service.add(body.folder, body.name)
    name = body.name or body.folder
    request.scope[NOTE].update(adapter=name, version=version)
    answer = {"id": name, "object": "adapter", "version": version, "new": new, "versions": service.versions(name)}
    return JSONResponse(answer)


async def remove_adapter(request: Request, adapter: str) -> Response:
    """Forget an adapter, or one version of it (`legal@3f2a…`). Its folder stays; requests under way finish with it."""
    _administrator(request)
    choice = Choice.parse(adapter)
    gone = _service(request).remove(choice.name, choice.version)
    request.scope[NOTE].update(adapter=choice.name)
    return JSONResponse({"id": adapter, "object": "adapter", "deleted": True, "versions": gone})


async def health(request: Request) -> Response:
    """Whether the process is sound: restart it where this says 503."""
    failed = _service(request).failed
    return JSONResponse({"status": "failed" if failed else "ok"}, status_code=503 if failed else 200)


async def ready(request: Request) -> Response:
    """Whether requests are taken."""
    yes = _service(request).ready
    return JSONResponse({"status": "ready" if yes else "stopping"}, status_code=200 if yes else 503)


async def metrics(request: Request) -> Response:
    """Counts for Prometheus; needs a key for all adapters, because their names are in it."""
    if _caller(request).adapters is not None:
        raise ApiError(403, "A key for all adapters is needed.", code="not_allowed")
    return Response(_service(request).metrics.text(), media_type=CONTENT_TYPE_LATEST)


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


def _caller(request: Request) -> Caller:
    keys = _service(request).keys
    caller = local_caller(request.client) if keys is None else keys.check(request.headers.get("authorization"))
    request.scope[NOTE]["caller"] = caller.name
    return caller


def _administrator(request: Request) -> None:
    if not _caller(request).admin:
        raise ApiError(403, "This key may not change adapters.", code="not_allowed")


def _known(service: Service, caller: Caller, choice: Choice) -> dict[str, Any]:
    versions = service.versions(choice.name) if caller.may_use(choice.name) else []
    found = [one for one in versions if choice.version in (None, one["version"])]
    if not found:
        raise not_found(choice.name if choice.version is None else f"{choice.name}@{choice.version}")
    return found[0]


def _model(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "scions"}


def _usable(service: Service, caller: Caller) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Each adapter that a caller may use, with its versions, when it is asked for."""
    for name in service.adapter_cache.names():
        if not caller.may_use(name):
            continue
        try:
            versions = service.versions(name)
        except ApiError:  # removed since
            continue
        yield name, versions


async def _json(request: Request) -> bytes:
    # Not only for order: a page in a browser may send text/plain to a local server without asking, JSON it may not.
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise ApiError(415, "Content-Type: application/json is needed.", code="wrong_content_type")
    return await request.body()


async def _unless_gone(request: Request, work: Awaitable[Result]) -> Result:
    """Await work, and drop it where the client closes the connection meanwhile."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise gone()
        return working.result()
    finally:
        leaving.cancel()
        working.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    body = error_body(error.status, str(error), error.code, error.param)
    return JSONResponse(body, status_code=error.status, headers=error.headers)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    text = f"{request.method} {request.url.path}: {error.detail}"
    body = error_body(error.status_code, text, _CODES.get(error.status_code, "http_error"))
    return JSONResponse(body, status_code=error.status_code, headers=error.headers)
