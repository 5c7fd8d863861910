"""Import one module as soon as another has been imported.

``import scions`` must not import PEFT, which takes seconds, and yet PEFT must know our tuner in either order.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def import_after(trigger: str, module: str) -> None:
    """Import ``module`` for its effects once the top-level module ``trigger`` is imported, at once if it already is."""
    if trigger in sys.modules:
        import_module(module)
    elif not any(isinstance(finder, _Finder) and finder.names == (trigger, module) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(trigger, module))


class _Finder(MetaPathFinder):
    """Leave finding ``trigger`` to the other finders, and import ``module`` once it has been executed."""

    def __init__(self, trigger: str, module: str) -> None:
        self.names = (trigger, module)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.names[0]:
            return None
        # importlib.util.find_spec calls this without importing: the finder stays until the module is executed.
        for finder in sys.meta_path:
            # A package installed as editable has a finder of its own.
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Loader(spec.loader, self)
                return spec
        return None


class _Loader(Loader):
    def __init__(self, loader: Loader, finder: _Finder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Hand the module back to its own loader, which resources and reloads need.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        self._loader.exec_module(module)
        import_module(self._finder.names[1])
