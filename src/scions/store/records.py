"""Convert frozen dataclasses to JSON objects and back, with strict types; unknown keys are kept."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Any, TypeVar

R = TypeVar("R")

EXTRA = "extra"  # the field in which a record keeps the keys of a newer version


class FieldError(ValueError):
    """A value that does not fit its field; the text starts with the field's path."""


def to_object(record: Any, path: str = "") -> dict[str, Any]:
    """Return a JSON object of a record's fields in their order, and of the keys in `extra` beside them.

    Raises:
        FieldError: a value has another type than its field declares, or is not finite.
    """
    hints, out = _hints(typing.cast(Any, type(record))), {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if field.name == EXTRA:
            continue
        here = f"{path}.{field.name}" if path else field.name
        out[field.name] = to_object(value, here) if dataclasses.is_dataclass(value) else value
        # Checked when written: a mistake shows where it is made, not when the file is opened.
        _read(hints[field.name], out[field.name], here)
    for name, value in record.extra.items():
        _read(Any, value, f"{path}.{name}" if path else name)
        out.setdefault(name, value)
    return out


def from_object(kind: type[R], value: Any, path: str = "") -> R:
    """Build a record from a JSON object; unknown keys go to its `extra`.

    Raises:
        FieldError: a key is missing, or a value has another type than its field declares.
    """
    if not isinstance(value, dict):
        raise FieldError(f"{path or 'the file'}: expected an object, found {_kind(value)}")
    hints, unread, values = _hints(typing.cast(Any, kind)), dict(value), {}
    for field in dataclasses.fields(typing.cast(Any, kind)):
        here = f"{path}.{field.name}" if path else field.name
        if field.name == EXTRA:
            continue
        if field.name in unread:
            values[field.name] = _read(hints[field.name], unread.pop(field.name), here)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise FieldError(f"{here}: is missing")
    for name, item in unread.items():
        _read(Any, item, f"{path}.{name}" if path else name)
    values[EXTRA] = unread
    return kind(**values)


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _read(kind: Any, value: Any, path: str) -> Any:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return _json_value(value, path)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in inner:
            return None
        return _read(next(part for part in inner if part is not type(None)), value, path)
    if dataclasses.is_dataclass(kind):
        return from_object(typing.cast(type, kind), value, path)
    if origin is list and isinstance(value, list):
        return [_read(inner[0], item, f"{path}[{n}]") for n, item in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise FieldError(f"{path}: key {key!r} is not a string")
        return {key: _read(inner[1], item, f"{path}.{key}") for key, item in value.items()}
    if kind is float and type(value) in (int, float):
        return _finite(float(value), path)
    if kind in (str, int, bool) and type(value) is kind:
        return value
    raise FieldError(f"{path}: expected {_NAMES.get(origin or kind, str(kind))}, found {_kind(value)}")


def _json_value(value: Any, path: str) -> Any:
    if value is None or type(value) in (str, int, bool):
        return value
    if type(value) is float:
        return _finite(value, path)
    if isinstance(value, list):
        return [_json_value(item, f"{path}[{n}]") for n, item in enumerate(value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: _json_value(item, f"{path}.{key}") for key, item in value.items()}
    raise FieldError(f"{path}: {type(value).__name__} cannot be written as JSON")


def _finite(value: float, path: str) -> float:
    if not math.isfinite(value):
        raise FieldError(f"{path}: {value} is not a finite number")
    return value


_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
_NAMES |= {dict: "an object", type(None): "null"}


def _kind(value: Any) -> str:
    shown = repr(value)
    return f"{_NAMES.get(type(value), type(value).__name__)} ({shown if len(shown) <= 40 else shown[:37] + '…'})"
