"""API keys: who may use which adapters, and who may change them."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scions.errors import UsageError
from scions.serving.errors import ApiError

_FIELDS = {"name", "adapters", "admin"}
_HASHED = "sha256:"


@dataclass(frozen=True)
class Caller:
    """Who sends a request.

    Attributes:
        name: what logs call it.
        tenant: whose share of the queue it uses.
        adapters: the adapters it may use; None for all. The base is open to everybody.
        admin: whether it may add, reload and remove adapters.
    """

    name: str
    tenant: str
    adapters: frozenset[str] | None
    admin: bool

    def may_use(self, adapter: str) -> bool:
        """Whether an adapter is on its list."""
        return self.adapters is None or adapter in self.adapters


class Keys:
    """The keys of a file; only their SHA-256 is kept.

    The file holds a JSON object: a key, or ``sha256:`` and its hash in 64 hex digits, to ``{"name": "team",
    "adapters": ["legal"] or null for all, "admin": false}``.
    """

    def __init__(self, callers: dict[bytes, Caller]) -> None:
        self._callers = callers

    @classmethod
    def read(cls, path: str | Path) -> Keys:
        """Read a file of keys.

        Raises:
            UsageError: it cannot be read or says something else; keys themselves are never shown.
        """
        try:
            content = json.loads(Path(path).read_bytes(), object_pairs_hook=_each_once)
        except OSError as error:
            raise UsageError(f"{path}: cannot be read: {error.strerror}") from error
        except _Twice as error:
            raise UsageError(f"{path}: the same key, or the same field of a key, stands in it twice") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{path}: is not valid JSON") from error
        if not isinstance(content, dict) or not content:
            raise UsageError(f'{path}: expected an object of keys, such as {{"a-long-secret": {{"name": "team"}}}}')
        callers: dict[bytes, Caller] = {}
        for number, (key, record) in enumerate(content.items(), 1):
            caller = _caller(record, f"{path}: key {number}")
            if any(caller.name == other.name for other in callers.values()):
                raise UsageError(f"{path}: key {number}: another key has the name {caller.name!r} too")
            digest = _digest_in_file(key, f"{path}: key {number}")
            if digest in callers:
                raise UsageError(f"{path}: key {number}: the same key stands in the file before")
            callers[digest] = caller
        return cls(callers)

    def check(self, authorization: str | None) -> Caller:
        """The caller of an ``Authorization`` header.

        Raises:
            ApiError: 401, there is no key or an unknown one.
        """
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise _refused("An API key is needed: Authorization: Bearer KEY.", "missing_api_key")
        digest = hashlib.sha256(key.strip().encode("utf-8", "surrogateescape")).digest()
        found: Caller | None = None
        for known, caller in self._callers.items():  # all of them, so that time tells nothing about any
            if hmac.compare_digest(known, digest):
                found = caller
        if found is None:
            raise _refused("The API key is not known here.", "invalid_api_key")
        return found


def local_caller(client: tuple[str, int] | None) -> Caller:
    """Who sends a request to a server without keys: a connection from this machine, which may do everything."""
    return Caller("local", f"{client[0]}:{client[1]}" if client else "local", None, True)


def _refused(message: str, code: str) -> ApiError:
    return ApiError(401, message, code=code, headers={"WWW-Authenticate": "Bearer"})


def _digest_in_file(key: str, where: str) -> bytes:
    if key.startswith(_HASHED):
        if not re.fullmatch(r"[0-9a-f]{64}", key.removeprefix(_HASHED)):
            raise UsageError(f"{where}: after {_HASHED} 64 hex digits (0-9, a-f) are needed")
        return bytes.fromhex(key.removeprefix(_HASHED))
    if not key.strip() or key != key.strip():
        raise UsageError(f"{where}: the key is empty or has spaces around it")
    if not (key.isascii() and key.isprintable()):
        raise UsageError(f"{where}: the key has characters that no HTTP header carries; use ASCII")
    return hashlib.sha256(key.encode()).digest()


class _Twice(ValueError):
    pass


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise _Twice
    return content


def _caller(record: Any, where: str) -> Caller:
    if not isinstance(record, dict) or not isinstance(record.get("name"), str) or not record["name"]:
        raise UsageError(f'{where}: expected an object with a "name", such as {{"name": "team"}}')
    unknown = sorted(set(record) - _FIELDS)
    if unknown:
        raise UsageError(f"{where}: unknown {', '.join(unknown)}; there are {', '.join(sorted(_FIELDS))}")
    adapters, admin = record.get("adapters"), record.get("admin", False)
    if adapters is not None and (not isinstance(adapters, list) or not all(isinstance(a, str) for a in adapters)):
        raise UsageError(f"{where}: adapters: expected an array of names, or null for all")
    if not isinstance(admin, bool):
        raise UsageError(f"{where}: admin: expected true or false")
    return Caller(record["name"], record["name"], None if adapters is None else frozenset(adapters), admin)
