"""Resolve the ``adapter`` and ``strength`` arguments to one adapter and one strength for each row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from scions.encoder.bank import find
from scions.engine.adapter_weights import AdapterWeights
from scions.errors import UsageError
from scions.routing.decision import AUTO, AUTO_ROWS
from scions.store.names import BASE


class _SetAdapter:
    def __repr__(self) -> str:
        return "<the choice of set_adapter>"


SET_ADAPTER: Any = _SetAdapter()


def adapter_rows(choice: Any, rows: int, adapters: Mapping[str, AdapterWeights]) -> list[AdapterWeights | None]:
    """Return the adapter of each row; None: the bare base.

    Args:
        choice: a name, ``"base"`` or None for all rows, an `AdapterWeights`, or a sequence of these, one a row.
        rows: how many rows there are.
        adapters: those to choose from.

    Raises:
        AdapterError: a name that is not loaded; lists those that are.
        UsageError: a sequence of another length, or something that is no name.
    """
    if choice is None or isinstance(choice, (str, AdapterWeights)):
        return [_adapter(choice, adapters)] * rows
    names = _list_of("adapter", choice, rows)
    resolved: dict[int, AdapterWeights | None] = {}
    for name in names:
        if id(name) not in resolved:
            resolved[id(name)] = _adapter(name, adapters)
    return [resolved[id(name)] for name in names]


def is_auto(choice: Any) -> bool:
    """Return whether the texts decide the adapter."""
    return isinstance(choice, str) and choice in (AUTO, AUTO_ROWS)


def default_name(name: str | Sequence[str] | None, adapters: Mapping[str, AdapterWeights]) -> str | None:
    """Return the name that `DomainEncoder.set_adapter` stores, None for the base; raises as it does."""
    if name is not None and not isinstance(name, str):
        if len(name) != 1:
            raise UsageError(
                f"set_adapter takes one adapter, got {len(name)}; encode takes a list with one adapter for each row"
            )
        (name,) = name
    if is_auto(name):
        raise UsageError(
            f"set_adapter({name!r}) would decide anew in every call, and put queries and documents into different "
            "spaces; decide once: set_adapter(encoder.route(texts).adapter)"
        )
    return None if name in (None, BASE) else find(adapters, str(name)).name


def strength_rows(strength: Any, rows: int) -> list[float]:
    """Return the strength of each row: ``strength`` is a number for all, or a sequence with one a row.

    Raises:
        UsageError: a sequence of another length, or something that is no finite number.
    """
    values = [strength] * rows if isinstance(strength, Real) else _list_of("strength", strength, rows)
    for row, value in enumerate(values, 1):
        number = isinstance(value, Real) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise UsageError(f"strength of row {row} is {value!r}; expected a finite number (1.0: as trained)")
    return [float(value) for value in values]


def _adapter(name: Any, adapters: Mapping[str, AdapterWeights]) -> AdapterWeights | None:
    if name is None or name == BASE:
        return None
    if isinstance(name, AdapterWeights):
        return name
    if not isinstance(name, str):
        raise UsageError(f"adapter {name!r} is a {type(name).__name__}; expected a name, or None for the bare base")
    if is_auto(name):
        raise UsageError(
            f"adapter {name!r} is a choice for all texts of one call of encode, and no adapter's name; "
            "encoder.route(texts).adapter is the name that 'auto' would choose"
        )
    return find(adapters, name)


def _list_of(what: str, values: Any, rows: int) -> Sequence[Any]:
    if hasattr(values, "tolist"):
        values = values.tolist()
    if not isinstance(values, Sequence):
        raise UsageError(f"{what} is a {type(values).__name__}; expected one for all rows, or a list of one a row")
    if len(values) != rows:
        raise UsageError(f"{what} has {len(values)} entries for {rows} rows; give one for all, or one for each")
    return values
