"""Mix adapters: choose members and weights, predict, average, score on held-out rows, publish."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from scions.deprecation import renamed_arguments
from scions.errors import UsageError
from scions.evaluation import tasks
from scions.merging.averaging import average, normalized
from scions.merging.signs import sign_difference
from scions.merging.tensor_sites import compared
from scions.merging.ties import DENSITY, ties
from scions.mixing.adapters import StoredAdapter, read_several
from scions.mixing.compatibility import check_mixable
from scions.mixing.conflict import Expectation, expect
from scions.mixing.domain_weights import STRATEGIES, cluster_weights, similarity_weights
from scions.mixing.greedy import GreedySearch, Names, greedy
from scions.mixing.holdout import HoldoutRows, HoldoutScores, check_row_options, read_holdout, score_holdout
from scions.mixing.provenance import derived_manifest, publish_derived, target_folder
from scions.mixing.trial import TrialBase
from scions.routing.domains import Domains, combined, domain_vectors
from scions.store import Manifest, default_root

_NEEDS_DATA = ("similarity", "clusters", "greedy")


@dataclass(frozen=True)
class Mixture:
    """The result of `mix`.

    Attributes:
        name: of the mixture.
        path: its folder; None where no mixture held and nothing was published.
        weights: of its members, sum 1.
        strategy: how members and weights were chosen.
        expected: what the signs of its members predicted.
        measured: scores on each table of test rows; empty without data.
        search: the sets that greedy mixing tried; None for other strategies.
        manifest: as published.
    """

    name: str
    path: Path | None
    weights: dict[str, float]
    strategy: str
    expected: Expectation
    measured: tuple[HoldoutScores, ...]
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
    """Make one adapter of several, score it and publish it.

    Args:
        names: two or more adapters, by name in the ``adapters`` folder or by path.
        name: of the mixture; its folder is ``output/name``.
        strategy: ``uniform``; ``weighted`` by ``weights``; ``similarity`` or ``clusters``, by the members' training
            domains and the texts of ``data``; ``greedy``, which chooses members on ``data``; ``ties``.
        weights: one per adapter, for ``weighted`` and, if given, ``ties``.
        data: files of rows: dev where the strategy chooses, and test (see `scions.mixing.holdout.read_holdout`).
        test: files of test rows, one for each of ``data``.
        target: the adapter that greedy mixing starts from; None: the pair with the least sign difference.
        density: share of each member's differences that TIES does not trim; None: `scions.merging.ties.DENSITY`.
        shape: of the data, where reading it is ambiguous.
        seed: of splits.
        base: folder or id of the base; None: the one the adapters name.
        adapters: folder of the adapters; None: `scions.store.default_root`.
        output: folder that the mixture is published in; None: ``adapters``.
        force: replace an adapter of that name.
        on_expectation: called with what the signs predict, before anything is mixed or scored.
        on_stage: called with what is being done.

    Returns:
        The mixture; its ``path`` is None where no addition to ``target`` held.

    Raises:
        UsageError: an option that does not go with the strategy, or a name that is taken.
        AdapterError: adapters that cannot be mixed; names what differs.
        DataError: rows that cannot be read.
    """
    _check_options(strategy, weights, _listed(data), target, density)
    check_row_options(data, shape, base)
    density = DENSITY if density is None else density
    place = Path(adapters) if adapters is not None else default_root()
    folder = target_folder(name, place, output, force)
    members = read_several(names, place)
    check_mixable(members)
    if weights is not None:
        normalized(weights, len(members))
    stage = on_stage or (lambda text: None)
    expected = _expected(members)
    if on_expectation is not None:
        on_expectation(expected)
    rows = read_holdout(_listed(data), _listed(test), chooses=strategy in _NEEDS_DATA, seed=seed, shape=shape)
    trial_base: TrialBase | None = None
    if rows:
        stage("loading the base")
        trial_base = TrialBase.of(members[0], base)
    search: GreedySearch | None = None
    shares = list(weights or [1.0] * len(members))
    if strategy == "greedy" and trial_base is not None:
        stage("choosing members on the development rows")
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
    tensors, config = mix_tensors([m for m, _ in used], [w for _, w in used], strategy, density), used[0][0].config
    manifest = _manifest(name, used, strategy, tensors, expected, search, density)
    measured: list[HoldoutScores] = []
    if trial_base is not None:
        stage("measuring the mixture")
        encoders = {m.name: trial_base.published(m) for m, _ in used}
        result = trial_base.trial(tensors, config, manifest)
        measured, verdict = score_holdout(rows, trial_base.bare(), encoders, result)
        record = {**manifest.extra["mixture"], "measured": [asdict(scores) for scores in measured]}
        manifest = replace(manifest, scores=verdict.to_dict(), extra={"mixture": record})
    listed = ", ".join(f"`{m.name}` ({w:.2f})" for m, w in used)
    path, manifest = publish_derived(
        folder,
        tensors,
        config,
        manifest,
        origin=f"a mixture ({strategy}) of {listed}.",
        facts=[f"before mixing: {expected.sentence}"],
        force=force,
    )
    return Mixture(name, path, {m.name: w for m, w in used}, strategy, expected, tuple(measured), search, manifest)


def mix_tensors(
    members: Sequence[StoredAdapter], weights: Sequence[float], strategy: str, density: float = DENSITY
) -> dict[str, Tensor]:
    """Return the tensors of a mixture; its members must have passed `check_mixable`."""
    tensors = [m.tensors for m in members]
    if strategy != "ties":
        return average(tensors, weights)
    start = members[0].first_weights()
    biases = {n: 0 * tensor.float() for n, tensor in compared(tensors[0]).items() if n not in start}
    return ties(tensors, {**start, **biases}, weights, density)


def _check_options(
    strategy: str,
    weights: Sequence[float] | None,
    data: Sequence[str | Path],
    target: str | None,
    density: float | None,
) -> None:
    if strategy not in STRATEGIES:
        raise UsageError(f"strategy {strategy!r} is unknown; choose from {', '.join(STRATEGIES)}")
    if strategy == "weighted" and weights is None:
        raise UsageError("strategy 'weighted' needs a weight for each adapter: give `weights=...`")
    if weights is not None and strategy not in ("weighted", "ties"):
        raise UsageError(
            f"strategy {strategy!r} chooses its own weights; `weights=...` goes with 'weighted' and 'ties'"
        )
    if strategy in _NEEDS_DATA and not data:
        raise UsageError(f"strategy {strategy!r} chooses by rows: give `data=...`")
    if target is not None and strategy != "greedy":
        raise UsageError(f"`target=...` is where greedy mixing starts; strategy {strategy!r} has no use for it")
    if density is not None and strategy != "ties":
        raise UsageError(f"`density=...` is the share that TIES does not trim; strategy {strategy!r} has no use for it")


def _listed(paths: Sequence[str | Path] | str | Path) -> list[str | Path]:
    return [paths] if isinstance(paths, (str, Path)) else list(paths)


def _expected(members: Sequence[StoredAdapter]) -> Expectation:
    return expect([m.name for m in members], sign_difference([compared(m.tensors) for m in members]))


def _search(
    members: Sequence[StoredAdapter], rows: Sequence[HoldoutRows], trial_base: TrialBase, target: str | None
) -> GreedySearch:
    by_name = {m.name: m for m in members}

    def fraction(names: Names) -> float:
        return sign_difference([compared(by_name[n].tensors) for n in names]).fraction

    def score(names: Names) -> float:
        chosen = [by_name[n] for n in names]
        tensors = average([m.tensors for m in chosen], [1.0] * len(chosen))
        encoder = trial_base.trial(tensors, chosen[0].config, chosen[0].manifest)
        return float(np.mean([tasks.dev_score(encoder, pair.dev) for pair in rows]))

    return greedy([m.name for m in members], fraction, score, target)


def _by_texts(
    strategy: str, members: Sequence[StoredAdapter], rows: Sequence[HoldoutRows], trial_base: TrialBase
) -> list[float]:
    domains = Domains.of({m.name: m.manifest for m in members})
    texts = list(dict.fromkeys(text for pair in rows for text in pair.dev.texts()))
    vectors = domain_vectors(trial_base.encoder, texts)
    return similarity_weights(vectors, domains) if strategy == "similarity" else cluster_weights(vectors, domains)


def _manifest(
    name: str,
    used: Sequence[tuple[StoredAdapter, float]],
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
    return derived_manifest(
        name,
        parents,
        f"mixture of {', '.join(m.name for m, _ in used)}",
        tensors,
        domain=combined(domains, [w for _, w in used]) if len(domains) == len(parents) else None,
        extra={"mixture": record},
    )
