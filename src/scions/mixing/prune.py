"""A smaller adapter of an adapter: pruned, measured where rows are given, published with its provenance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scions.deprecation import renamed_arguments
from scions.errors import AdapterError, UsageError
from scions.evaluation import Interval, evaluate, interval
from scions.merging.sparsity import layers_of, prune_layers, prune_neurons, prune_values
from scions.mixing.adapters import UNITS, Member, first_weights, read_member
from scions.mixing.compatibility import check_mixable
from scions.mixing.holdout import Measured, measure, read_rows
from scions.mixing.provenance import derived
from scions.publishing.adapter_files import write_adapter
from scions.publishing.card import mixed_card
from scions.store import Manifest, check_name, default_root, disk_errors, write_folder
from scions.store.atomic import check_replaceable
from scions.store.weights import find_weights_file

if TYPE_CHECKING:
    from torch import Tensor

    from scions.data import Table
    from scions.mixing.trial import TrialBase

STRATEGIES = ("magnitude", "sign-aware", "neurons", "layers")
CURVE = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)


@dataclass(frozen=True)
class Pruned:
    """An adapter with parts taken out.

    Attributes:
        tensors: by the names of an adapter's file.
        config: the content of its ``adapter_config.json``.
        sparse: whether it is to be stored as what differs from the first values.
        sparsity: share of the bottlenecks' matrix values that are gone.
        initialisation: the id of its first weights: another one where its units are no longer those of other adapters.
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
    """What `prune` came to.

    Attributes:
        path: of the pruned adapter.
        sparsity: share of the bottlenecks' matrix values that are gone.
        bytes_before, bytes_after: of the weights' files.
        rank, layers: where they changed.
        measured: on the rows given; None without. Its one member is the unpruned adapter.
        curve: the unpruned adapter, then rising sparsities; empty where no curve was asked for.
        base: the base's score, where there is a curve.
        metric: of the curve.
    """

    name: str
    path: Path
    strategy: str
    sparsity: float
    bytes_before: int
    bytes_after: int
    rank: int | None
    layers: int | None
    measured: Measured | None
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
    """Prune an adapter and publish the result under a name of its own.

    Args:
        name_or_path: the adapter.
        name: of the pruned one; its folder is ``output/name``.
        sparsity, strategy: see `pruned`.
        against: adapters whose signs count, for ``sign-aware``.
        data: rows to measure both on: nothing is chosen by them.
        curve: score several sparsities on ``data`` too.
        shape: of the data, where reading finds it ambiguous.
        base: where the base lies, if not where the adapter says.
        adapters: folder of the adapters; None: `scions.store.default_root`.
        output: where the result goes; None: ``adapters``.
        force: replace an adapter of that name.
        on_stage: told what happens.

    Raises:
        UsageError: an option out of range, a name that is taken, or a curve without rows.
        AdapterError: the adapter is damaged or cannot be pruned this way, or ``against`` does not fit it.
        DataError: rows that cannot be read.
    """
    check_name(name)
    if curve and data is None:
        raise UsageError("a curve of scores needs rows: give --data FILE")
    if data is None and (shape is not None or base is not None):
        raise UsageError(f"{'--shape' if shape is not None else '--base'} has no use without rows: give --data FILE")
    place = Path(adapters) if adapters is not None else default_root()
    folder = (Path(output) if output is not None else place) / name
    check_replaceable(folder, force)
    disk_errors.check_writable(folder.parent)
    member = read_member(name_or_path, place)
    others = [read_member(other, place) for other in against]
    if others:
        check_mixable([member, *others])
    made = pruned(member, sparsity, strategy, others)
    manifest = _manifest(name, member, made, strategy, [other.name for other in others])
    measured, points, before, metric = None, [], None, None
    if data is not None:
        say = on_stage or (lambda text: None)
        rows = read_rows([data], [], chooses=False, shape=shape)
        say("loading the base")
        from scions.mixing.trial import TrialBase

        trial_base = TrialBase.of(member, base)
        say("measuring base, adapter and pruned adapter")
        result = trial_base.trial(made.tensors, made.config, manifest, sparse=made.sparse)
        measured, manifest = _judged(
            measure(rows, trial_base.bare(), {member.name: trial_base.published(member)}, result), manifest
        )
        metric = measured.metric
        if curve:
            before = measured.base
            start = Point(0.0, measured.members[member.name], find_weights_file(member.folder).stat().st_size)
            points = [start, *_curve(member, strategy, others, trial_base, rows[0].judging, say)]

    def write(staging: Path) -> None:
        nonlocal manifest
        manifest = write_adapter(staging, made.tensors, made.config, manifest, sparse=made.sparse)
        what = f"`{member.name}`, pruned ({strategy})."
        facts = [f"{made.sparsity:.1%} of its matrix values are gone"]
        (staging / "README.md").write_text(mixed_card(manifest, what, facts), encoding="utf-8")

    path = write_folder(folder, write, force=force)
    return Pruning(
        name=name,
        path=path,
        strategy=strategy,
        sparsity=made.sparsity,
        bytes_before=find_weights_file(member.folder).stat().st_size,
        bytes_after=find_weights_file(path).stat().st_size,
        rank=made.rank,
        layers=made.layers,
        measured=measured,
        curve=tuple(points),
        base=before,
        metric=metric,
        manifest=manifest,
    )


def pruned(member: Member, sparsity: float, strategy: str, against: Sequence[Member] = ()) -> Pruned:
    """Take ``sparsity`` (0 to below 1) of an adapter's bottlenecks out; layer norms and biases stay.

    Args:
        member: a bottleneck adapter.
        sparsity: share of the matrices' values; units and layers are whole, so theirs is the nearest share that
            leaves at least one.
        strategy: ``magnitude``: of each matrix the values that training moved least; ``sign-aware``: the same, but what
            ``against`` contradict in sign counts for less; ``neurons``: the units that add least, as many at every
            site, so that the rank becomes smaller; ``layers``: all that lies in the lower layers, norms too.
        against: adapters of the same base, places and first weights, for ``sign-aware``.

    Raises:
        UsageError: a sparsity or strategy out of range, or ``against`` where it does not belong.
        AdapterError: not a bottleneck, one that has fewer units or layers than pruning needs, or one whose first
            values are not known because units were taken out before.
    """
    if strategy not in STRATEGIES:
        raise UsageError(f"strategy {strategy!r} is unknown; choose from {', '.join(STRATEGIES)}")
    if not 0 < sparsity < 1:
        raise UsageError(f"sparsity must lie between 0 and 1 (0.9 takes nine of ten values out), found {sparsity}")
    if bool(against) != (strategy == "sign-aware"):
        needed = "needs adapters to compare signs with (--against)" if not against else "takes no --against"
        raise UsageError(f"strategy {strategy!r} {needed}")
    if not member.is_bottleneck:
        raise AdapterError(f"{member.name}: is {member.manifest.method}; only bottleneck adapters can be pruned")
    if strategy == "neurons":
        return _fewer_neurons(member, sparsity)
    if strategy == "layers":
        return _fewer_layers(member, sparsity)
    tensors, gone = prune_values(member.tensors, first_weights(member), sparsity, [m.tensors for m in against])
    return Pruned(tensors, dict(member.config), True, gone, member.manifest.initialisation.id)


def _fewer_neurons(member: Member, sparsity: float) -> Pruned:
    rank = int(member.config["rank"])
    keep = max(1, round(rank * (1 - sparsity)))
    if keep >= rank:
        raise AdapterError(f"{member.name}: has rank {rank}: a sparsity of {sparsity:g} takes no whole unit out of it")
    # Units of different adapters no longer lie over each other, so it must not be mixed.
    start = f"{UNITS}{member.fingerprint[:16]}"
    tensors = prune_neurons(member.tensors, keep)
    return Pruned(tensors, {**member.config, "rank": keep}, False, 1 - keep / rank, start, rank=keep)


def _fewer_layers(member: Member, sparsity: float) -> Pruned:
    if member.config.get("target_modules") is not None:
        raise AdapterError(f"{member.name}: its places are named one by one, so no layers can be left out")
    layers = layers_of(member.tensors)
    keep = max(1, round(len(layers) * (1 - sparsity)))
    if keep >= len(layers):
        raise AdapterError(
            f"{member.name}: sits in {len(layers)} layers: a sparsity of {sparsity:g} takes no whole layer out of them"
        )
    tensors, gone = prune_layers(member.tensors, layers[-keep:])
    start = member.manifest.initialisation.id
    return Pruned(tensors, {**member.config, "layers": keep}, False, gone, start, layers=keep)


def _manifest(name: str, member: Member, made: Pruned, strategy: str, against: list[str]) -> Manifest:
    record: dict[str, Any] = {
        "of": member.name,
        "fingerprint": member.fingerprint,
        "strategy": strategy,
        "sparsity": made.sparsity,
        "scores_before": member.manifest.scores,
    }
    if against:
        record["against"] = against
    return derived(
        name,
        [member.manifest],
        member.manifest.data.source,
        made.tensors,
        initialisation=made.initialisation,
        domain=member.manifest.domain,
        rank=made.rank,
        layers=made.layers,
        extra={"pruned": record},
    )


def _judged(found: list[Any], manifest: Manifest) -> tuple[Measured, Manifest]:
    from scions.evaluation.verdict import judge

    measured, before, after = found[0]
    record = {**manifest.extra["pruned"], "measured": asdict(measured)}
    return measured, replace(manifest, scores=judge(before, after).to_dict(), extra={"pruned": record})


def _curve(
    member: Member,
    strategy: str,
    against: Sequence[Member],
    trial_base: TrialBase,
    table: Table,
    say: Callable[[str], None],
) -> list[Point]:
    import tempfile

    points: list[Point] = []
    for sparsity in CURVE:
        try:
            made = pruned(member, sparsity, strategy, against)
        except AdapterError:  # takes no whole unit or layer out
            continue
        if points and abs(points[-1].sparsity - made.sparsity) < 1e-3:
            continue
        say(f"scoring at {made.sparsity:.0%}")
        manifest = _manifest(member.name, member, made, strategy, [])
        with tempfile.TemporaryDirectory() as folder:
            write_adapter(Path(folder), made.tensors, made.config, manifest, sparse=made.sparse)
            size = find_weights_file(folder).stat().st_size
        encoder = trial_base.trial(made.tensors, made.config, manifest, sparse=made.sparse)
        points.append(Point(made.sparsity, interval(evaluate(encoder, table)), size))
    return points
