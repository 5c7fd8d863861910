"""Mix adapters: choose members and weights, say what to expect, average, measure, publish with provenance."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scions.deprecation import renamed_arguments
from scions.errors import UsageError
from scions.evaluation import dev_score
from scions.merging.averaging import average, normalized
from scions.merging.signs import sign_difference
from scions.merging.tensor_sites import compared
from scions.merging.ties import DENSITY, ties
from scions.mixing.adapters import Member, first_weights, read_members
from scions.mixing.compatibility import check_mixable
from scions.mixing.conflict import Expectation, expectation
from scions.mixing.domain_weights import STRATEGIES, by_clusters, by_similarity
from scions.mixing.greedy import GreedySearch, Names, greedy
from scions.mixing.holdout import HoldoutRows, Measured, measure, read_rows
from scions.mixing.provenance import derived
from scions.publishing.adapter_files import write_adapter
from scions.publishing.card import mixed_card
from scions.routing.domains import Domains, combined
from scions.store import Manifest, check_name, default_root, disk_errors, write_folder
from scions.store.atomic import check_replaceable

if TYPE_CHECKING:
    from torch import Tensor

    from scions.mixing.trial import TrialBase

_NEEDS_DATA = ("similarity", "clusters", "greedy")


@dataclass(frozen=True)
class Mixture:
    """What `mix` came to.

    Attributes:
        name: its own.
        path: its folder; None where no mixture held, and nothing was published.
        weights: of the members that are in it, sum 1.
        strategy: how members and weights were chosen.
        expected: what the signs of those members said beforehand.
        measured: on each judging table; empty without data.
        search: the sets that greedy mixing tried; None for other strategies.
        manifest: as published.
    """

    name: str
    path: Path | None
    weights: dict[str, float]
    strategy: str
    expected: Expectation
    measured: tuple[Measured, ...]
    search: GreedySearch | None
    manifest: Manifest | None


@renamed_arguments(root="adapters", kept="density")
def mix(
    names: Sequence[str | Path],
    name: str,
    *,
    strategy: str = "uniform",
    weights: Sequence[float] | None = None,
    data: Sequence[str | Path] | str | Path = (),
    test: Sequence[str | Path] | str | Path = (),
    target: str | None = None,
    density: float | None = None,
    shape: str | None = None,
    seed: int = 0,
    base: str | None = None,
    adapters: str | Path | None = None,
    output: str | Path | None = None,
    force: bool = False,
    on_expectation: Callable[[Expectation], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
) -> Mixture:
    """Make one adapter of several, measure it and publish it.

    Args:
        names: two or more adapters, by name in the ``adapters`` folder, or by path.
        name: of the mixture; its folder is ``output/name``.
        strategy: ``uniform``; ``weighted`` by ``weights``; ``similarity`` or ``clusters``, by what the members' domains
            have to do with the texts of ``data``; ``greedy``, which chooses members on ``data``; ``ties``.
        weights: one an adapter, for ``weighted`` (and, if given, ``ties``).
        data: files of rows. Where the strategy chooses, part of them does (see `scions.mixing.holdout.read_rows`).
        test: files that judge, one for each of ``data``.
        target: the adapter that greedy mixing begins with; None: the pair with the least sign difference.
        density: share of each member's differences that TIES does not trim; None: `scions.merging.ties.DENSITY`.
        shape: of the data, where reading finds it ambiguous.
        seed: of splits.
        base: where the base lies, if not where the adapters say.
        adapters: folder of the adapters; None: `scions.store.default_root`.
        output: where the mixture goes; None: ``adapters``.
        force: replace an adapter of that name.
        on_expectation: told what the signs let one expect, before anything is mixed or measured.
        on_stage: told what happens.

    Returns:
        The mixture; its ``path`` is None where greedy mixing found that no addition to ``target`` holds.

    Raises:
        UsageError: an option that does not go with the strategy, or a name that is taken.
        AdapterError: adapters that cannot be mixed; says which differ in what.
        DataError: rows that cannot be read.
    """
    check_name(name)
    _check_options(strategy, weights, _listed(data), target, density, shape, base)
    density = DENSITY if density is None else density
    place = Path(adapters) if adapters is not None else default_root()
    folder = (Path(output) if output is not None else place) / name
    check_replaceable(folder, force)
    disk_errors.check_writable(folder.parent)
    members = read_members(names, place)
    check_mixable(members)
    if weights is not None:
        normalized(weights, len(members))
    say = on_stage or (lambda text: None)
    expected = _expected(members)
    if on_expectation is not None:
        on_expectation(expected)
    rows = read_rows(_listed(data), _listed(test), chooses=strategy in _NEEDS_DATA, seed=seed, shape=shape)
    trial_base = _trial_base(members[0], base, say) if rows else None
    search: GreedySearch | None = None
    shares = list(weights or [1.0] * len(members))
    if strategy == "greedy" and trial_base is not None:
        say("choosing members on the development rows")
        search = _search(members, rows, trial_base, target)
        if not search.is_mixture:
            return Mixture(name, None, {search.members[0]: 1.0}, strategy, expected, (), search, None)
        members = [next(m for m in members if m.name == chosen) for chosen in search.members]
        shares, expected = [1.0] * len(members), _expected(members)
    elif strategy in ("similarity", "clusters") and trial_base is not None:
        shares = _by_texts(strategy, members, rows, trial_base)
    used = [(m, w) for m, w in zip(members, normalized(shares, len(members)), strict=True) if w > 0]
    if len(used) < 2:
        raise UsageError(f"{strategy}: all of the weight falls on {used[0][0].name}: use that adapter as it is")
    if len(used) < len(members):
        expected = _expected([m for m, _ in used])
    tensors = mixed([m for m, _ in used], [w for _, w in used], strategy, density)
    manifest = _manifest(name, used, strategy, tensors, expected, search, density)
    measured: list[Measured] = []
    if trial_base is not None:
        say("measuring the mixture")
        measured, manifest = _measured(trial_base, rows, used, tensors, manifest)

    def write(staging: Path) -> None:
        nonlocal manifest
        manifest = write_adapter(staging, tensors, used[0][0].config, manifest)
        (staging / "README.md").write_text(mixed_card(manifest, *_told(used, strategy, expected)), encoding="utf-8")

    path = write_folder(folder, write, force=force)
    return Mixture(name, path, {m.name: w for m, w in used}, strategy, expected, tuple(measured), search, manifest)


def mixed(
    members: Sequence[Member], weights: Sequence[float], strategy: str, density: float = DENSITY
) -> dict[str, Tensor]:
    """The mixture's tensors; members must have passed `check_mixable`."""
    tensors = [m.tensors for m in members]
    if strategy != "ties":
        return average(tensors, weights)
    start = first_weights(members[0])
    biases = {n: 0 * tensor.float() for n, tensor in compared(tensors[0]).items() if n not in start}
    return ties(tensors, {**start, **biases}, weights, density)


def _check_options(
    strategy: str,
    weights: Sequence[float] | None,
    data: Sequence[str | Path],
    target: str | None,
    density: float | None,
    shape: str | None,
    base: str | None,
) -> None:
    if strategy not in STRATEGIES:
        raise UsageError(f"strategy {strategy!r} is unknown; choose from {', '.join(STRATEGIES)}")
    if strategy == "weighted" and weights is None:
        raise UsageError("strategy 'weighted' needs a weight for each adapter (--weights 0.7,0.3)")
    if weights is not None and strategy not in ("weighted", "ties"):
        raise UsageError(f"strategy {strategy!r} chooses its own weights; --weights goes with 'weighted' and 'ties'")
    if strategy in _NEEDS_DATA and not data:
        raise UsageError(f"strategy {strategy!r} chooses by rows: give --data FILE")
    if target is not None and strategy != "greedy":
        raise UsageError(f"--target is where greedy mixing begins; strategy {strategy!r} has no use for it")
    if density is not None and strategy != "ties":
        raise UsageError(f"density=... is the share that TIES does not trim; strategy {strategy!r} has no use for it")
    if not data and (shape is not None or base is not None):
        raise UsageError(f"{'--shape' if shape is not None else '--base'} has no use without rows: give --data FILE")


def _listed(paths: Sequence[str | Path] | str | Path) -> list[str | Path]:
    return [paths] if isinstance(paths, (str, Path)) else list(paths)


def _trial_base(member: Member, base: str | None, say: Callable[[str], None]) -> TrialBase:
    from scions.mixing.trial import TrialBase

    say("loading the base")
    return TrialBase.of(member, base)


def _expected(members: Sequence[Member]) -> Expectation:
    return expectation([m.name for m in members], sign_difference([compared(m.tensors) for m in members]))


def _search(
    members: Sequence[Member], rows: Sequence[HoldoutRows], trial_base: TrialBase, target: str | None
) -> GreedySearch:
    by_name = {m.name: m for m in members}

    def fraction(names: Names) -> float:
        return sign_difference([compared(by_name[n].tensors) for n in names]).fraction

    def score(names: Names) -> float:
        chosen = [by_name[n] for n in names]
        tensors = average([m.tensors for m in chosen], [1.0] * len(chosen))
        encoder = trial_base.trial(tensors, chosen[0].config, chosen[0].manifest)
        return float(np.mean([dev_score(encoder, one.choosing) for one in rows]))

    return greedy([m.name for m in members], fraction, score, target)


def _by_texts(
    strategy: str, members: Sequence[Member], rows: Sequence[HoldoutRows], trial_base: TrialBase
) -> list[float]:
    domains = Domains.of({m.name: m.manifest for m in members})
    texts = list(dict.fromkeys(text for one in rows for text in one.choosing.texts()))
    vectors = trial_base.domain_vectors(texts)
    return by_similarity(vectors, domains) if strategy == "similarity" else by_clusters(vectors, domains)


def _manifest(
    name: str,
    used: Sequence[tuple[Member, float]],
    strategy: str,
    tensors: dict[str, Tensor],
    expected: Expectation,
    search: GreedySearch | None,
    density: float,
) -> Manifest:
    parents = [m.manifest for m, _ in used]
    domains = [parent.domain for parent in parents if parent.domain is not None]
    record: dict[str, Any] = {
        "strategy": strategy,
        "members": [{"name": m.name, "weight": w, "fingerprint": m.fingerprint} for m, w in used],
        "expected_sign_difference": expected.fraction,
    }
    if strategy == "ties":
        record["kept"] = density
    if search is not None:
        record["tried"] = [{**asdict(trial), "members": list(trial.members)} for trial in search.trials]
    return derived(
        name,
        parents,
        f"mixture of {', '.join(m.name for m, _ in used)}",
        tensors,
        domain=combined(domains, [w for _, w in used]) if len(domains) == len(parents) else None,
        extra={"mixture": record},
    )


def _measured(
    trial_base: TrialBase,
    rows: Sequence[HoldoutRows],
    used: Sequence[tuple[Member, float]],
    tensors: dict[str, Tensor],
    manifest: Manifest,
) -> tuple[list[Measured], Manifest]:
    from dataclasses import replace

    from scions.evaluation.verdict import judge

    members = {m.name: trial_base.published(m) for m, _ in used}
    found = measure(rows, trial_base.bare(), members, trial_base.trial(tensors, used[0][0].config, manifest))
    measured = [one for one, _, _ in found]
    record = {**manifest.extra["mixture"], "measured": [asdict(one) for one in measured]}
    _, before, after = found[0]
    return measured, replace(manifest, scores=judge(before, after).to_dict(), extra={"mixture": record})


def _told(used: Sequence[tuple[Member, float]], strategy: str, expected: Expectation) -> tuple[str, list[str]]:
    names = ", ".join(f"`{m.name}` ({w:.2f})" for m, w in used)
    return f"a mixture ({strategy}) of {names}.", [f"before mixing: {expected.sentence}"]
