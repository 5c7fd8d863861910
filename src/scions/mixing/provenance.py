"""Manifest and publication of an adapter that was made of others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from scions.publishing.adapter_files import write_adapter
from scions.publishing.card import adapter_card
from scions.store import DataRecord, DomainStatistics, Initialization, Manifest, check_name, disk_errors, write_folder
from scions.store.atomic import check_replaceable
from scions.store.manifest import now
from scions.version import __version__


def derived_manifest(
    name: str,
    parents: Sequence[Manifest],
    source: str,
    tensors: Mapping[str, Tensor],
    *,
    initialisation: str | None = None,
    domain: DomainStatistics | None = None,
    rank: int | None = None,
    layers: int | None = None,
    extra: dict[str, Any] | None = None,
) -> Manifest:
    """Return the manifest of an adapter made of ``parents``: base, method and placement are the first one's.

    Args:
        name: of the adapter.
        parents: manifests of the adapters it was made of.
        source: the source of its data, as the manifest names it.
        tensors: its tensors; their values are counted.
        initialisation: id of its first weights; None: the first parent's, so that it mixes with the same adapters.
        domain: statistics of its training domain; None: unknown.
        rank, layers: where they differ from the first parent's.
        extra: provenance, beside the manifest's own keys.
    """
    first = parents[0]
    whole = first.trainable_parameters / first.trainable_share if first.trainable_share else 0.0
    count = sum(tensor.numel() for tensor in tensors.values())
    rows: Counter[str] = Counter()
    for parent in parents:
        rows.update(parent.data.rows)
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
            rows=dict(rows),
        ),
        max_length=max(parent.max_length for parent in parents),
        recipe={},
        scores={},
        domain=domain,
        versions={**first.versions, "scions": __version__},
        created=now(),
        extra=extra or {},
    )


def target_folder(name: str, adapters: Path, output: str | Path | None, force: bool) -> Path:
    """Return the folder that an adapter is published in: ``output/name``, or ``adapters/name`` without ``output``.

    Raises:
        ScionsError: the name cannot be used or is taken, or the parent folder cannot be written to.
    """
    check_name(name)
    folder = (adapters if output is None else Path(output)) / name
    check_replaceable(folder, force)
    disk_errors.check_writable(folder.parent)
    return folder


def publish_derived(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    manifest: Manifest,
    *,
    origin: str,
    facts: Sequence[str] = (),
    sparse: bool = False,
    force: bool = False,
) -> tuple[Path, Manifest]:
    """Publish an adapter made of others. Returns its folder and its manifest as written.

    Args:
        folder: of the adapter.
        tensors: by the names of an adapter's file.
        config: the content of ``adapter_config.json``.
        manifest: see `derived_manifest`.
        origin, facts: see `adapter_card`.
        sparse: see `write_adapter`.
        force: replace an adapter of that name.
    """
    card = adapter_card(manifest, origin=origin, facts=facts)

    def write(staging: Path) -> None:
        write_adapter(staging, tensors, config, manifest, sparse=sparse, card=card)

    path = write_folder(folder, write, force=force)
    return path, Manifest.read(path)
