"""API keys: who may use which adapters, and who may change them."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from scions.errors import UsageError
from scions.serving.errors import ApiError

_HASHED = "sha256:"
_EXPECTED = {
    "name": 'expected an object with a "name", such as {"name": "team"}',
    "adapters": "adapters: expected an array of names, or null for all",
    "admin": "admin: expected true or false",
}


@dataclass(frozen=True)
class Caller:
    """The sender of a request.

    Attributes:
        name: as the log shows it.
        client: the client whose share of the queue it uses.
        adapters: the adapters it may use; None for all. The base is open to everybody.
        admin: whether it may add, reload and remove adapters.
    """

    name: str
    client: str
    adapters: frozenset[str] | None
    admin: bool

    def may_use(self, adapter: str) -> bool:
        """Return whether it may use an adapter."""
        return self.adapters is None or adapter in self.adapters


class KeyRecord(BaseModel):
    """The value of one key in the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: Annotated[str, StringConstraints(min_length=1)]
    adapters: list[str] | None = None
    admin: bool = False


class Keys:
    """Callers by the SHA-256 of their keys; the keys themselves are not stored.

    The file holds a JSON object: a key, or ``sha256:`` and its hash in 64 hex digits, to ``{"name": "team",
    "adapters": ["legal"] or null for all, "admin": false}``.
    """

    def __init__(self, callers: dict[bytes, Caller]) -> None:
        self._callers = callers

    @classmethod
    def read(cls, path: str | Path) -> Keys:
        """Read a file of keys.

        Raises:
            UsageError: it cannot be read or is no such file; the message shows no key.
        """
        try:
            content = json.loads(Path(path).read_bytes(), object_pairs_hook=partial(_unique, path))
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}: is not valid JSON") from error
        if not isinstance(content, dict) or not content:
            raise UsageError(f'{path}: expected an object of keys, such as {{"a-long-secret": {{"name": "team"}}}}')
        callers: dict[bytes, Caller] = {}
        for number, (key, value) in enumerate(content.items(), 1):
            where = f"{path}: key {number}"
            record = _record(value, where)
            if any(record.name == other.name for other in callers.values()):
                raise UsageError(f"{where}: another key has the name {record.name!r} too")
            digest = _digest(key, where)
            if digest in callers:
                raise UsageError(f"{where}: the same key stands in the file before")
            adapters = None if record.adapters is None else frozenset(record.adapters)
            callers[digest] = Caller(record.name, record.name, adapters, record.admin)
        return cls(callers)

    def check(self, authorization: str | None) -> Caller:
        """Return the caller of an ``Authorization`` header.

        Raises:
            ApiError: 401, there is no key or an unknown one.
        """
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise _unauthorized("An API key is needed: Authorization: Bearer KEY.", "missing_api_key")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        match: Caller | None = None
        for known, caller in self._callers.items():  # all of them, so that the time does not depend on the key
            if hmac.compare_digest(known, digest):
                match = caller
        if match is None:
            raise _unauthorized("The API key is not known here.", "invalid_api_key")
        return match


def local_caller(address: tuple[str, int] | None) -> Caller:
    """Return the caller of a server without keys: a connection from this machine, which may do everything."""
    return Caller("local", f"{address[0]}:{address[1]}" if address else "local", None, True)


def _unauthorized(message: str, code: str) -> ApiError:
    return ApiError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


def _unique(path: str | Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise UsageError(f"{path}: the same key, or the same field of a key, stands in it twice")
    return content


def _record(value: Any, where: str) -> KeyRecord:
    try:
        return KeyRecord.model_validate(value)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)
    unknown = sorted(str(problem["loc"][0]) for problem in problems if problem["type"] == "extra_forbidden")
    if unknown:
        raise UsageError(f"{where}: unknown {', '.join(unknown)}; there are {', '.join(sorted(_EXPECTED))}")
    place = problems[0]["loc"]
    raise UsageError(f"{where}: {_EXPECTED[str(place[0]) if place else 'name']}")


def _digest(key: str, where: str) -> bytes:
    if key.startswith(_HASHED):
        if not re.fullmatch(r"[0-9a-f]{64}", key.removeprefix(_HASHED)):
            raise UsageError(f"{where}: after {_HASHED} 64 hex digits (0-9, a-f) are needed")
        return bytes.fromhex(key.removeprefix(_HASHED))
    if not key.strip() or key != key.strip():
        raise UsageError(f"{where}: the key is empty or has spaces around it")
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{where}: the key has characters that no HTTP header carries; use ASCII")
    return hashlib.sha256(key.encode()).digest()
