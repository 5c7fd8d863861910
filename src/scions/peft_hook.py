"""Make PEFT know the bottleneck adapter.

``peft.register_peft_method`` accepts only names of PEFT's own enum, so the tuner is written into the mappings that
function fills. transformers calls ``peft_type.value.lower()`` and PEFT compares with strings: the type must be an
``Enum`` that is a ``str`` and whose member's name equals its value. `tests/test_peft_hook.py` fails
loudly when any of this moves.

PEFT takes seconds to import, and ``import scions`` must not. So where PEFT is not loaded yet, registration waits
for whoever imports it first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from scions.adapters.peft_type import BOTTLENECK, PREFIX


def register() -> None:
    """Register the bottleneck tuner with PEFT: now where PEFT is loaded, else as soon as it is imported."""
    if "peft" in sys.modules:
        _fill_mappings()
    elif not any(isinstance(finder, _PeftFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _PeftFinder())


def _fill_mappings() -> None:
    from peft import mapping

    from scions.adapters.config import BottleneckConfig
    from scions.adapters.tuner import BottleneckModel

    mapping.PEFT_TYPE_TO_CONFIG_MAPPING[BOTTLENECK] = BottleneckConfig  # type: ignore[index]
    mapping.PEFT_TYPE_TO_TUNER_MAPPING[BOTTLENECK] = BottleneckModel  # type: ignore[index]
    mapping.PEFT_TYPE_TO_PREFIX_MAPPING[BOTTLENECK] = PREFIX  # type: ignore[index]


class _PeftFinder(MetaPathFinder):
    """Finds ``peft`` as usual, and registers the tuner once it has been executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "peft":
            return None
        # Also called by importlib.util.find_spec, which only asks: the finder stays until PEFT is executed.
        for finder in sys.meta_path:
            # The other finders are asked too: a package installed as editable has one of its own.
            spec = None if finder is self else finder.find_spec(fullname, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _RegisteringLoader(spec.loader, self)
                return spec
        return None


class _RegisteringLoader(Loader):
    def __init__(self, loader: Loader, finder: _PeftFinder) -> None:
        self._loader = loader
        self._finder = finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # From here on the module is an ordinary one: resources and reloads go to its own loader.
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)
        self._loader.exec_module(module)
        _fill_mappings()
