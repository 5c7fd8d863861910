"""Keep an old way of calling a function for one release, with a DeprecationWarning that names the new one."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
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


def warn(message: str, stacklevel: int = 3) -> None:
    """Issue a DeprecationWarning at the caller of the function that calls this one.

    ``stacklevel`` is 4 where that function is decorated with `renamed_arguments`.
    """
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)
