"""Prune an adapter, score it on held-out rows, and publish the result."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from scions.data import Table
from scions.deprecation import renamed_arguments
from scions.errors import AdapterError, UsageError
from scions.evaluation import Interval, evaluate, interval
from scions.merging.sparsity import layers_of, prune_layers, prune_neurons, prune_values
from scions.mixing.adapters import UNITS, StoredAdapter, read_stored
from scions.mixing.compatibility import check_mixable
from scions.mixing.holdout import HoldoutScores, check_row_options, read_holdout, score_holdout
from scions.mixing.provenance import derived_manifest, publish_derived, target_folder
from scions.mixing.trial import TrialBase
from scions.publishing.adapter_files import write_adapter
from scions.store import Manifest, default_root
from scions.store.weights import find_weights_file

STRATEGIES = ("magnitude", "sign-aware", "neurons", "layers")
CURVE = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Pruned:
    """The parts of a pruned adapter.

    Attributes:
        tensors: by the names of an adapter's file.
        config: the content of its ``adapter_config.json``.
        sparse: whether only what differs from the first weights is stored.
        sparsity: share of the bottlenecks' matrix values that were pruned.
        initialisation: the id of its first weights; another one where its units no longer match other adapters'.
        rank, layers: where they changed.
    """

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    sparse: bool
    sparsity: float
    initialisation: str
    rank: int | None = None
    layers: int | None = None


@dataclass(frozen=True)
class Point:
    """A score (x100, with its interval) at a sparsity; ``bytes`` of the weights' file."""

    sparsity: float
    score: Interval
    bytes: int


@dataclass(frozen=True)
class Pruning:
    """The result of `prune`.

    Attributes:
        name, path: of the pruned adapter.
        strategy: how values were chosen.
        sparsity: share of the bottlenecks' matrix values that were pruned.
        bytes_before, bytes_after: of the weights' files.
        rank, layers: where they changed.
        measured: on the rows given, with the unpruned adapter as its one member; None without rows.
        curve: the unpruned adapter, then rising sparsities; empty where no curve was asked for.
        base: the base's score, where there is a curve.
        metric: of the curve.
        manifest: as published.
    """

    name: str
    path: Path
    strategy: str
    sparsity: float
    bytes_before: int
    bytes_after: int
    rank: int | None
    layers: int | None
    measured: HoldoutScores | None
    curve: tuple[Point, ...]
    base: Interval | None
    metric: str | None
    manifest: Manifest


@renamed_arguments(root="adapters")
def prune(
    name_or_path: str | Path,
    name: str,
    *,
    sparsity: float = 0.9,
    strategy: str = "magnitude",
    against: Sequence[str | Path] = (),
    data: str | Path | None = None,
    curve: bool = False,
    shape: str | None = None,
    base: str | None = None,
    adapters: str | Path | None = None,
    output: str | Path | None = None,
    force: bool = False,
    on_stage: Callable[[str], None] | None = None,
) -> Pruning:
    """Prune an adapter and publish the result under another name.

    Args:
        name_or_path: the adapter.
        name: of the pruned one; its folder is ``output/name``.
        sparsity, strategy: see `prune_adapter`.
        against: adapters whose signs count, for ``sign-aware``.
        data: held-out rows to score both on.
        curve: score several sparsities on ``data`` too.
        shape: of the data, where reading it is ambiguous.
        base: folder or id of the base; None: the one the adapter names.
        adapters: folder of the adapters; None: `scions.store.default_root`.
        output: folder that the result is published in; None: ``adapters``.
        force: replace an adapter of that name.
        on_stage: called with what is being done.

    Raises:
        UsageError: an option out of range, a name that is taken, or a curve without rows.
        AdapterError: the adapter is damaged or cannot be pruned this way, or ``against`` does not fit it.
        DataError: rows that cannot be read.
    """
    if curve and data is None:
        raise UsageError("a curve of scores needs rows: give `data=...`")
    check_row_options(data, shape, base)
    place = Path(adapters) if adapters is not None else default_root()
    folder = target_folder(name, place, output, force)
    adapter = read_stored(name_or_path, place)
    others = [read_stored(other, place) for other in against]
    if others:
        check_mixable([adapter, *others])
    pruned = prune_adapter(adapter, sparsity, strategy, others)
    manifest = _manifest(name, adapter, pruned, strategy, [other.name for other in others])
    bytes_before = find_weights_file(adapter.folder).stat().st_size
    scores: HoldoutScores | None = None
    points: list[Point] = []
    if data is not None:
        stage = on_stage or (lambda text: None)
        rows = read_holdout([data], [], chooses=False, shape=shape)
        stage("loading the base")
        trial_base = TrialBase.of(adapter, base)
        stage("measuring base, adapter and pruned adapter")
        result = trial_base.trial(pruned.tensors, pruned.config, manifest, sparse=pruned.sparse)
        (scores,), verdict = score_holdout(
            rows, trial_base.bare(), {adapter.name: trial_base.published(adapter)}, result
        )
        record = {**manifest.extra["pruned"], "measured": asdict(scores)}
        manifest = replace(manifest, scores=verdict.to_dict(), extra={"pruned": record})
        if curve:
            start = Point(0.0, scores.members[adapter.name], bytes_before)
            points = [start, *_curve(adapter, strategy, others, trial_base, rows[0].test, stage)]
    path, manifest = publish_derived(
        folder,
        pruned.tensors,
        pruned.config,
        manifest,
        origin=f"`{adapter.name}`, pruned ({strategy}).",
        facts=[f"{pruned.sparsity:.1%} of its matrix values are pruned"],
        sparse=pruned.sparse,
        force=force,
    )
    return Pruning(
        name=name,
        path=path,
        strategy=strategy,
        sparsity=pruned.sparsity,
        bytes_before=bytes_before,
        bytes_after=find_weights_file(path).stat().st_size,
        rank=pruned.rank,
        layers=pruned.layers,
        measured=scores,
        curve=tuple(points),
        base=scores.base if scores is not None and curve else None,
        metric=None if scores is None else scores.metric,
        manifest=manifest,
    )


def prune_adapter(
    adapter: StoredAdapter, sparsity: float, strategy: str, against: Sequence[StoredAdapter] = ()
) -> Pruned:
    """Prune a share of an adapter's bottlenecks; layer norms and biases stay.

    Args:
        adapter: a bottleneck adapter.
        sparsity: share of the matrices' values, above 0 and below 1; of units and layers, the nearest share that
            leaves at least one.
        strategy: ``magnitude``: the values of each matrix that training moved least; ``sign-aware``: the same, but
            values that ``against`` contradict in sign count for less; ``neurons``: the units that add least, as many
            at every site, so that the rank becomes smaller; ``layers``: everything in the lower layers, norms too.
        against: adapters of the same base, placement and first weights, for ``sign-aware``.

    Raises:
        UsageError: a sparsity or strategy out of range, or ``against`` with another strategy.
        AdapterError: not a bottleneck, one with fewer units or layers than pruning needs, or one whose first weights
            cannot be drawn again because units were pruned from it.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"strategy {strategy!r} is unknown; choose from {', '.join(STRATEGIES)}")
    if not 0 < sparsity < 1:
        raise UsageError(f"sparsity must lie between 0 and 1 (0.9 takes nine of ten values out), found {sparsity}")
    if bool(against) != (strategy == "sign-aware"):
        needed = "needs adapters to compare signs with: give `against=...`" if not against else "takes no `against=...`"
        raise UsageError(f"strategy {strategy!r} {needed}")
    if not adapter.is_bottleneck:
        raise AdapterError(f"{adapter.name}: is {adapter.manifest.method}; only bottleneck adapters can be pruned")
    if strategy == "neurons":
        return _fewer_neurons(adapter, sparsity)
    if strategy == "layers":
        return _fewer_layers(adapter, sparsity)
    start, other_tensors = adapter.first_weights(), [other.tensors for other in against]
    tensors, share = prune_values(adapter.tensors, start, sparsity, other_tensors)
    return Pruned(tensors, dict(adapter.config), True, share, adapter.manifest.initialisation.id)


def _fewer_neurons(adapter: StoredAdapter, sparsity: float) -> Pruned:
    rank = int(adapter.config["rank"])
    keep = max(1, round(rank * (1 - sparsity)))
    if keep >= rank:
        raise AdapterError(f"{adapter.name}: has rank {rank}: a sparsity of {sparsity:g} takes no whole unit out of it")
    # Its units no longer match those of other adapters, so it must not be mixed.
    start = f"{UNITS}{adapter.fingerprint[:16]}"
    tensors = prune_neurons(adapter.tensors, keep)
    return Pruned(tensors, {**adapter.config, "rank": keep}, False, 1 - keep / rank, start, rank=keep)


def _fewer_layers(adapter: StoredAdapter, sparsity: float) -> Pruned:
    if adapter.config.get("target_modules") is not None:
        raise AdapterError(f"{adapter.name}: its target modules are named one by one, so no layers can be left out")
    layers = layers_of(adapter.tensors)
    keep = max(1, round(len(layers) * (1 - sparsity)))
    if keep >= len(layers):
        raise AdapterError(
            f"{adapter.name}: sits in {len(layers)} layers: a sparsity of {sparsity:g} takes no whole layer out of them"
        )
    tensors, share = prune_layers(adapter.tensors, layers[-keep:])
    start = adapter.manifest.initialisation.id
    return Pruned(tensors, {**adapter.config, "layers": keep}, False, share, start, layers=keep)


def _manifest(name: str, adapter: StoredAdapter, pruned: Pruned, strategy: str, against: list[str]) -> Manifest:
    record: dict[str, Any] = {
        "of": adapter.name,
        "fingerprint": adapter.fingerprint,
        "strategy": strategy,
        "sparsity": pruned.sparsity,
        "scores_before": adapter.manifest.scores,
    }
    if against:
        record["against"] = against
    return derived_manifest(
        name,
        [adapter.manifest],
        adapter.manifest.data.source,
        pruned.tensors,
        initialisation=pruned.initialisation,
        domain=adapter.manifest.domain,
        rank=pruned.rank,
        layers=pruned.layers,
        extra={"pruned": record},
    )


def _curve(
    adapter: StoredAdapter,
    strategy: str,
    against: Sequence[StoredAdapter],
    trial_base: TrialBase,
    table: Table,
    stage: Callable[[str], None],
) -> list[Point]:
    points: list[Point] = []
    for sparsity in CURVE:
        try:
            pruned = prune_adapter(adapter, sparsity, strategy, against)
        except AdapterError:  # takes no whole unit or layer out
            continue
        if points and abs(points[-1].sparsity - pruned.sparsity) < 1e-3:
            continue
        stage(f"scoring at {pruned.sparsity:.0%}")
        manifest = _manifest(adapter.name, adapter, pruned, strategy, [])
        with tempfile.TemporaryDirectory() as folder:
            write_adapter(Path(folder), pruned.tensors, pruned.config, manifest, sparse=pruned.sparse)
            size = find_weights_file(folder).stat().st_size
        encoder = trial_base.trial(pruned.tensors, pruned.config, manifest, sparse=pruned.sparse)
        points.append(Point(pruned.sparsity, interval(evaluate(encoder, table)), size))
    return points
