"""Scions: many domains from one frozen sentence-embedding model, one small adapter each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scions.deprecation import renamed_names as _renamed_names
from scions.errors import ScionsError
from scions.peft_hook import import_after as _import_after
from scions.version import __version__

if TYPE_CHECKING:
    from scions.adapters.config import BottleneckConfig
    from scions.encoder import DomainEncoder, load_encoder
    from scions.evaluation.side_by_side import evaluate
    from scions.mixing import compare, mix, prune, select
    from scions.training import train

__all__ = [
    "BottleneckConfig",
    "DomainEncoder",
    "ScionsError",
    "__version__",
    "compare",
    "evaluate",
    "load_encoder",
    "mix",
    "prune",
    "select",
    "train",
]

_LAZY = {
    "BottleneckConfig": "scions.adapters.config",
    "DomainEncoder": "scions.encoder",
    "compare": "scions.mixing",
    "evaluate": "scions.evaluation.side_by_side",
    "load_encoder": "scions.encoder",
    "mix": "scions.mixing",
    "prune": "scions.mixing",
    "select": "scions.mixing",
    "train": "scions.training",
}

_import_after("peft", "scions.adapters")

if not TYPE_CHECKING:  # so that a type checker knows these names alone
    __getattr__ = _renamed_names(__name__, _LAZY)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
