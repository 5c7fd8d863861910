"""Keep old names of functions, classes and arguments for one release; a DeprecationWarning names the new one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, TypeVar

_F = TypeVar("_F", bound=Callable[..., Any])


def renamed_arguments(**names: str) -> Callable[[_F], _F]:
    """Accept renamed keyword arguments: ``@renamed_arguments(old="new")``.

    Raises:
        TypeError: on a call that gives an argument by both names.
    """

    def decorate(function: _F) -> _F:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old, new in names.items():
                if old not in kwargs:
                    continue
                if new in kwargs:
                    raise TypeError(f"{function.__name__}() got both {new!r} and its old name {old!r}")
                warn(f"{function.__name__}({old}=...) is deprecated; use {new}=...")
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call  # type: ignore[return-value]

    return decorate


def renamed_names(module: str, lazy: Mapping[str, str] | None = None, **names: str) -> Callable[[str], Any]:
    """Return a module's ``__getattr__`` that keeps old names: ``renamed_names(__name__, Old="scions.room.file.New")``.

    ``lazy`` maps further names to the modules that they are imported from on first use.
    """

    def get(name: str) -> Any:
        if lazy is not None and name in lazy:
            return getattr(import_module(lazy[name]), name)
        if name in names:
            warn(f"{module}.{name} is deprecated; use {names[name]}")
            place, _, new = names[name].rpartition(".")
            return getattr(import_module(place), new)
        raise AttributeError(f"module {module!r} has no attribute {name!r}")

    return get


def warn(message: str, stacklevel: int = 3) -> None:
    """Issue a DeprecationWarning at the caller of the function that calls this one.

    ``stacklevel`` is 4 where that function is decorated with `renamed_arguments`.
    """
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)
