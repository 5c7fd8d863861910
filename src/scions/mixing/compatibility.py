"""Check that adapters can be compared or mixed: same base, placement, rank and first weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scions.errors import AdapterError
from scions.mixing.adapters import StoredAdapter

LORA = (
    "LoRA adapters cannot be mixed here: what LoRA adds is a product of two factors, and the average of products is "
    "not the product of averages; merge them with PEFT's own add_weighted_adapter"
)


def check_mixable(adapters: Sequence[StoredAdapter]) -> None:
    """Raise AdapterError where adapters cannot be averaged; names the first two that differ, and in what."""
    check_comparable(adapters)
    for adapter in adapters:
        if not adapter.is_bottleneck:
            raise AdapterError(f"{adapter.name}: {LORA}")
    _compare(adapters, _MIXING, "cannot be mixed")


def check_comparable(adapters: Sequence[StoredAdapter]) -> None:
    """Raise AdapterError where the same coordinate of two adapters has different meanings."""
    _compare(adapters, _COMPARING, "cannot be compared")
    shapes = [{name: list(tensor.shape) for name, tensor in m.tensors.items()} for m in adapters]
    for adapter, other in zip(adapters[1:], shapes[1:], strict=True):
        odd = sorted(n for n in shapes[0].keys() | other.keys() if shapes[0].get(n) != other.get(n))
        if odd:
            mine, its = (s.get(odd[0], "missing") for s in (shapes[0], other))
            raise AdapterError(
                f"{adapters[0].name} and {adapter.name} cannot be compared: tensor {odd[0]!r} differs: {mine} against "
                f"{its}"
            )


def obstacle(one: StoredAdapter, other: StoredAdapter) -> str | None:
    """Return why two comparable adapters cannot be mixed, None where they can."""
    try:
        check_mixable([one, other])
    except AdapterError as error:
        return str(error)
    return None


def _base(adapter: StoredAdapter) -> Any:
    base = adapter.manifest.base
    return f"{base.id} (weights {base.weights_sha256[:12]})"


def _config(name: str) -> Any:
    return lambda adapter: adapter.config.get(name)


def _modules(names: Any) -> Any:
    return sorted(map(str, names)) if isinstance(names, list) else names  # PEFT writes a set, in any order


_COMPARING: dict[str, tuple[Any, Any]] = {
    "base": (lambda m: m.manifest.base.weights_sha256, _base),
    "method": (lambda m: m.manifest.method, None),
    "placement": (_config("placement"), None),
    "layers": (_config("layers"), None),
    "target modules": (lambda m: _modules(m.config.get("target_modules")), None),
    "rank": (lambda m: m.config.get("rank", m.config.get("r")), None),
    "activation": (_config("activation"), None),
    "trained layer norms": (_config("train_norms"), None),
}
_MIXING: dict[str, tuple[Any, Any]] = {
    "initialisation": (lambda m: (m.manifest.initialisation.id, m.config.get("init_seed")), None),
    "query side": (lambda m: m.manifest.query_side, None),
    "pooling": (lambda m: m.manifest.pooling, None),
    "prompts": (lambda m: m.manifest.prompts, None),
}


def _compare(adapters: Sequence[StoredAdapter], fields: dict[str, tuple[Any, Any]], what: str) -> None:
    first = adapters[0]
    for adapter in adapters[1:]:
        for field, (value, shown) in fields.items():
            if value(first) != value(adapter):
                mine, other = (str((shown or value)(m)) for m in (first, adapter))
                raise AdapterError(
                    f"{first.name} and {adapter.name} {what}: their {field} differs: {mine} against {other}"
                )
