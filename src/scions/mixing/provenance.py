"""The files of an adapter that was made of others, and what its manifest takes over from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scions.store import DataRecord, DomainStatistics, Initialization, Manifest
from scions.store.manifest import now
from scions.version import __version__

if TYPE_CHECKING:
    from torch import Tensor


def derived(
    name: str,
    parents: Sequence[Manifest],
    source: str,
    tensors: Mapping[str, Tensor],
    *,
    initialisation: str | None = None,
    domain: DomainStatistics | None = None,
    scores: dict[str, Any] | None = None,
    rank: int | None = None,
    layers: int | None = None,
    extra: dict[str, Any] | None = None,
) -> Manifest:
    """The manifest of an adapter made of ``parents``: base, method and places are the first one's.

    Args:
        name: its own.
        parents: manifests of what it was made of.
        source: what stands as the source of its data.
        tensors: its tensors, which are counted.
        initialisation: None: the first parent's, so that it mixes with the same adapters.
        domain: what it is for; None: unknown.
        scores: what was measured of it.
        rank, layers: where they changed.
        extra: provenance, kept beside the manifest's own keys.
    """
    first = parents[0]
    whole = first.trainable_parameters / first.trainable_share if first.trainable_share else 0.0
    count = sum(tensor.numel() for tensor in tensors.values())
    rows: dict[str, int] = {}
    for parent in parents:
        for part, number in parent.data.rows.items():
            rows[part] = rows.get(part, 0) + number
    shapes = {parent.data.shape for parent in parents}
    return replace(
        first,
        name=name,
        placement=first.placement if layers is None else {**first.placement, "layers": layers},
        rank=first.rank if rank is None else rank,
        trainable_parameters=count,
        trainable_share=min(1.0, count / whole) if whole else first.trainable_share,
        initialisation=first.initialisation
        if initialisation is None
        else Initialization(seed=first.initialisation.seed, id=initialisation),
        data=DataRecord(
            source=source,
            fingerprint=first.data.fingerprint if len(parents) == 1 else "",
            shape=shapes.pop() if len(shapes) == 1 else "mixed",
            rows=rows,
        ),
        max_length=max(parent.max_length for parent in parents),
        recipe={},
        scores=scores or {},
        domain=domain,
        versions={**first.versions, "scions": __version__},
        created=now(),
        extra=extra or {},
    )
