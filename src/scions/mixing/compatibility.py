"""Which adapters can be mixed: same base, same places, same first weights. Says what differs, and both values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scions.errors import AdapterError
from scions.mixing.adapters import Member

LORA = (
    "LoRA adapters cannot be mixed here: what LoRA adds is a product of two factors, and the average of products is "
    "not the product of averages; merge them with PEFT's own add_weighted_adapter"
)


def check_mixable(members: Sequence[Member]) -> None:
    """Raise AdapterError where the tensors' average would mean nothing; names the first two that do not fit."""
    check_comparable(members)
    for member in members:
        if not member.is_bottleneck:
            raise AdapterError(f"{member.name}: {LORA}")
    _compare(members, _MIXING, "cannot be mixed")


def check_comparable(members: Sequence[Member]) -> None:
    """Raise AdapterError where the adapters' coordinates do not stand for the same thing."""
    _compare(members, _COMPARING, "cannot be compared")
    shapes = [{name: list(tensor.shape) for name, tensor in m.tensors.items()} for m in members]
    for member, other in zip(members[1:], shapes[1:], strict=True):
        odd = sorted(n for n in shapes[0].keys() | other.keys() if shapes[0].get(n) != other.get(n))
        if odd:
            mine, its = (s.get(odd[0], "missing") for s in (shapes[0], other))
            raise AdapterError(
                f"{members[0].name} and {member.name} cannot be compared: tensor {odd[0]!r} differs: {mine} against "
                f"{its}"
            )


def obstacle(one: Member, other: Member) -> str | None:
    """Why two comparable adapters cannot be mixed all the same; None where they can."""
    try:
        check_mixable([one, other])
    except AdapterError as error:
        return str(error)
    return None


def _base(member: Member) -> Any:
    base = member.manifest.base
    return f"{base.id} (weights {base.weights_sha256[:12]})"


def _weights(member: Member) -> Any:
    return member.manifest.base.weights_sha256


def _config(name: str) -> Any:
    return lambda member: member.config.get(name)


def _modules(found: Any) -> Any:
    return sorted(map(str, found)) if isinstance(found, list) else found  # PEFT writes a set, in any order


_COMPARING: dict[str, tuple[Any, Any]] = {
    "base": (_weights, _base),
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


def _compare(members: Sequence[Member], fields: dict[str, tuple[Any, Any]], what: str) -> None:
    first = members[0]
    for member in members[1:]:
        for field, (value, shown) in fields.items():
            if value(first) != value(member):
                mine, other = (str((shown or value)(m)) for m in (first, member))
                raise AdapterError(
                    f"{first.name} and {member.name} {what}: their {field} differs: {mine} against {other}"
                )
