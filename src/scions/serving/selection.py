"""Which adapter each row of a request wants, and how strong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from scions.serving.errors import ApiError, not_found
from scions.serving.requests import EmbeddingsRequest

BASE = "base"


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
    """What a request's ``model`` names: None for the base alone.

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


def select(request: EmbeddingsRequest, base: str) -> tuple[list[Choice | None], list[float]]:
    """Adapter and strength of every row.

    Raises:
        ApiError: 400, a list of another length than the input, or two fields that say two things.
    """
    rows = len(request.input)
    model = parse_model(request.model, base)
    choices: list[Choice | None] = [model] * rows
    if request.adapter is not None:
        if model is not None:
            raise _wrong("adapter", f"model {request.model!r} names an adapter already; use model 'base' with adapter")
        names = _per_row(request.adapter, rows, "adapter")
        known = {name: None if name in (None, BASE) else Choice.parse(name) for name in set(names)}
        choices = [known[name] for name in names]
    strengths = [1.0] * rows
    if request.strength is not None:
        strengths = [float(value) for value in _per_row(request.strength, rows, "strength")]
    return choices, strengths


def _per_row(value: Any, rows: int, field: str) -> list[Any]:
    if not isinstance(value, list):
        return [value] * rows
    if len(value) != rows:
        raise _wrong(field, f"it has {len(value)} entries and input has {rows} rows; give one a row, or one for all")
    return value


def _wrong(field: str, problem: str) -> ApiError:
    return ApiError(400, f"{field}: {problem}.", code="invalid_body", param=field)
