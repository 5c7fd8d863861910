"""Response bodies: their classes, for the OpenAPI document, and the quick way to write vectors."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable
from itertools import islice
from typing import Any, Literal
from urllib.parse import quote

import numpy as np
import orjson
from pydantic import BaseModel, Field
from pydantic_core import to_json

_SLICE = 64  # rows or entries written before other requests continue: a millisecond at most


class Embedding(BaseModel):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    prompt_tokens: int
    total_tokens: int


class Space(BaseModel):
    """One space of vectors, and the rows that lie in it; only vectors of one space may be compared."""

    space: str = Field(description="Fingerprint of base, adapter, strength, pooling and dimensions.")
    adapter: str | None
    version: str | None
    strength: float
    rows: list[int]


class Decision(BaseModel):
    """The decision of `auto`."""

    adapter: str | None = Field(description="Null: no domain fits, the base alone.")
    version: str | None
    confidence: float = Field(description="Of the choice, also where it is the base; 0 to 1.")
    texts: int = Field(description="Number of texts that it was decided by; 0 where there was nothing to choose from.")


class Origin(BaseModel):
    """Base and spaces of the vectors."""

    base: str
    dimensions: int
    truncated: int = Field(description="Texts that were longer than the base reads and were cut.")
    spaces: list[Space]
    decision: Decision | None = Field(None, description="With `auto` only.")
    confidences: list[float] | None = Field(None, description="With `auto-rows` only: of each row's decision.")


class EmbeddingsResponse(BaseModel):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: Usage
    scions: Origin


class AdapterVersion(BaseModel):
    version: str | None = Field(description="Null until the weights were first read.")
    folder: str
    loaded: bool
    kept: bool = Field(description="Only in memory: its folder holds a newer version.")
    created: int


class Adapter(BaseModel):
    id: str
    object: Literal["adapter"]
    versions: list[AdapterVersion] = Field(description="The newest first, which the bare name means.")


class AdapterList(BaseModel):
    object: Literal["list"]
    data: list[Adapter]


class AdapterAdded(BaseModel):
    id: str
    object: Literal["adapter"]
    version: str
    new: bool = Field(description="False where the folder held a version that was there already.")
    versions: list[AdapterVersion]


class AdapterRemoved(BaseModel):
    id: str
    object: Literal["adapter"]
    deleted: Literal[True]
    versions: list[str | None]


class Model(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[Model]


class State(BaseModel):
    status: Literal["ok", "ready", "stopping", "failed"]


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorResponse(BaseModel):
    error: ErrorDetail


async def list_body(entries: Iterable[dict[str, Any]]) -> bytes:
    """Return the JSON of a list such as `ModelList`; other requests continue between slices of ``entries``."""
    parts: list[bytes] = []
    rest = iter(entries)
    while part := list(islice(rest, _SLICE)):
        parts.append(to_json(part)[1:-1])
        await asyncio.sleep(0)
    return b'{"object":"list","data":[' + b",".join(parts) + b"]}"


def origin_headers(origin: dict[str, Any]) -> dict[str, str]:
    """Return the headers that name base and space; the space only where all rows lie in one."""
    headers = {"X-Scions-Base": quote(origin["base"], safe="/:.-_ ")}
    if len(origin["spaces"]) == 1:
        (space,) = origin["spaces"]
        headers["X-Scions-Space"] = space["space"]
        if space["adapter"] is not None:
            headers |= {"X-Scions-Adapter": space["adapter"], "X-Scions-Version": space["version"]}
    return headers


async def embeddings_body(vectors: np.ndarray, encoding: str, rest: dict[str, Any]) -> bytes:
    """Return the JSON of an `EmbeddingsResponse`.

    Args:
        vectors: ``[rows, dim]``, float32.
        encoding: ``float`` or ``base64`` (float32, little-endian).
        rest: the fields other than ``object`` and ``data``.
    """
    parts: list[bytes] = []
    for start in range(0, len(vectors), _SLICE):
        if start:
            await asyncio.sleep(0)
        some = vectors[start : start + _SLICE]
        written: list[Any]
        if encoding == "base64":
            written = [base64.b64encode(row).decode("ascii") for row in some.astype("<f4", copy=False)]
        else:
            written = some.tolist()
        rows = [
            {"object": "embedding", "index": start + at, "embedding": embedding} for at, embedding in enumerate(written)
        ]
        parts.append(orjson.dumps(rows)[1:-1])
    return b'{"object":"list","data":[' + b",".join(parts) + b"]," + orjson.dumps(rest)[1:]
