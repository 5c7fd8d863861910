"""The adapter and strength that a request asks for, row by row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scions.routing.decision import AUTO, AUTO_ROWS
from scions.serving.errors import invalid, not_found
from scions.serving.http.requests import EmbeddingsRequest
from scions.store.names import BASE


@dataclass(frozen=True)
class Choice:
    """An adapter by name; ``version`` None means its newest."""

    name: str
    version: str | None = None

    @classmethod
    def parse(cls, text: str) -> Choice:
        """Read ``legal`` or ``legal@3f2a…``."""
        name, at, version = text.partition("@")
        if at and not version:
            raise not_found(text)
        return cls(name, version or None)


def parse_model(model: str, base: str) -> Choice | None:
    """Return the adapter that a request's ``model`` names; None for the base alone.

    Args:
        model: ``base``, the base's own id, ``legal``, or ``base:legal``, each adapter also with ``@version``.
        base: the base's id.
    """
    for name in (BASE, base):
        if model == name:
            return None
        if model.startswith(f"{name}:"):
            return Choice.parse(model.removeprefix(f"{name}:"))
    return Choice.parse(model)


@dataclass(frozen=True)
class RowChoices:
    """Adapter and strength of every row; with ``auto`` (`AUTO`, `AUTO_ROWS`) the texts decide on the adapters."""

    choices: list[Choice | None]
    strengths: list[float]
    auto: str | None = None


def select(request: EmbeddingsRequest, base: str) -> RowChoices:
    """Read adapters and strengths from a request.

    Raises:
        ApiError: 400, a list of another length than the input, or two fields that contradict each other.
    """
    rows = len(request.input)
    model = parse_model(request.model, base)
    auto = None if model is None or model.version is not None else _auto(model.name)
    choices: list[Choice | None] = [model] * rows
    if request.adapter is not None:
        if model is not None:
            raise invalid("adapter", f"model {request.model!r} names an adapter already; use model 'base' with adapter")
        names = _per_row(request.adapter, rows, "adapter")
        auto = _auto(request.adapter)
        wrong = None if auto else next((name for name in names if _auto(name)), None)
        if wrong is not None:
            raise invalid("adapter", f'{wrong!r} is for a whole request, not for a row; give "adapter": "{wrong}"')
        parsed = {name: None if name in (None, BASE) else Choice.parse(name) for name in set(names)}
        choices = [parsed[name] for name in names]
    strengths = [1.0] * rows
    if request.strength is not None:
        strengths = [float(value) for value in _per_row(request.strength, rows, "strength")]
    if request.collection is not None and auto != AUTO:
        raise invalid("collection", f'it stores the decision of "adapter": "{AUTO}" and goes with nothing else')
    return RowChoices([None] * rows if auto else choices, strengths, auto)


def _auto(name: Any) -> str | None:
    return name if isinstance(name, str) and name in (AUTO, AUTO_ROWS) else None


def _per_row(value: Any, rows: int, field: str) -> list[Any]:
    if not isinstance(value, list):
        return [value] * rows
    if len(value) != rows:
        raise invalid(field, f"it has {len(value)} entries and input has {rows} rows; give one a row, or one for all")
    return value
