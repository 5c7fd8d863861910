"""Train the domains' adapters, combine them and score the results, each in a cell."""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Sequence
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from adaptation.cells import recipe_for
from adaptation.records import packed
from cell_store import Cells

from combining.domains import DOMAINS, Parts, load, metric
from scions.data import Shape, Table, drift_pairs, fingerprint
from scions.evaluation import Evaluation, dev_score, evaluate, paired_difference
from scions.evaluation.label_tasks import labelled
from scions.merging.averaging import average
from scions.merging.signs import sign_difference, weight_cosine
from scions.merging.tensor_sites import compared
from scions.mixing.adapters import StoredAdapter, read_stored
from scions.mixing.compare import effect, similarity_changes
from scions.mixing.mix import mix_tensors
from scions.mixing.trial import AdaptedEncoder, TrialBase
from scions.routing.domains import Domains
from scions.store import Base, DataRecord, DomainStatistics, Initialization, Manifest, base_fingerprint, load_base
from scions.store.base import DEFAULT_BASE
from scions.training.fit import fit
from scions.training.trainable import make_trainable

Names = tuple[str, ...]


class Workshop:
    """Everything the stages share. ``rows`` and ``held_out`` cap the parts of each domain."""

    def __init__(
        self, cells: Cells, data: Path, adapters: Path, rows: int, held_out: int, names: Sequence[str]
    ) -> None:
        self.cells, self.data, self.adapters = cells, data, adapters
        self.rows, self.held_out, self.names = rows, held_out, tuple(names)
        self._members: dict[str, StoredAdapter] = {}

    def parts(self, name: str) -> Parts:
        return load(name, self.data, self.rows, self.held_out)

    # Adapters.

    def train(self, name: str, own_start: int | None = None) -> dict[str, Any]:
        """Train a domain's adapter and publish it; returns its record.

        ``own_start``: not from the common first weights, but from others of the same distribution, by this seed; the
        adapter is then called ``own-<name>``.
        """
        import torch

        from scions.adapters.peft_type import FILE_PREFIX
        from scions.publishing.adapter_files import adapter_tensors, write_adapter
        from scions.store import write_folder

        parts = self.parts(name)
        torch.manual_seed(0)
        model = load_base()
        sha = base_fingerprint(model)
        domain = self._statistics(parts.train)
        recipe = recipe_for(parts.train, "houlsby", epochs=DOMAINS[name].epochs)
        trained = make_trainable(model, "houlsby")
        called = name if own_start is None else f"own-{name}"
        if own_start is not None:
            _redraw(trained.parameters, own_start)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
            done = fit(model, trained, parts.train, parts.dev, recipe, run=Path(folder), seed=0)
        network: Any = model[0].auto_model
        config = network.peft_config["default"].to_dict()
        config = {**config, "peft_type": "BOTTLENECK", "base_model_name_or_path": DEFAULT_BASE, "inference_mode": True}
        manifest = Manifest(
            name=called,
            base=Base(
                id=DEFAULT_BASE,
                weights_sha256=sha,
                architecture=str(network.config.model_type),
                hidden_size=int(network.config.hidden_size),
                layers=int(network.config.num_hidden_layers),
            ),
            method="houlsby",
            placement={"placement": "houlsby", "layers": None},
            rank=trained.rank,
            trainable_parameters=trained.count,
            trainable_share=trained.share,
            initialisation=Initialization(seed=own_start or 0, id=f"benchmark-{trained.rank}-{own_start or 0}"),
            data=DataRecord(
                source=name,
                fingerprint=fingerprint(parts.train),
                shape=parts.train.shape.value,
                rows={"train": len(parts.train)},
            ),
            pooling="mean",
            max_length=int(model.max_seq_length or 256),
            seed=0,
            space_fingerprint="",
            domain=domain,
        )
        tensors = {FILE_PREFIX + key: value.detach() for key, value in adapter_tensors(network).items()}
        write_folder(
            self.adapters / called, lambda folder: write_adapter(folder, tensors, config, manifest) and None, force=True
        )
        return {
            "domain": name,
            "kind": DOMAINS[name].kind,
            "rows": len(parts.train),
            "rank": trained.rank,
            "recipe": {key: value for key, value in recipe.to_dict().items() if key != "reasons"},
            "seconds": round(done.seconds, 1),
            "history": done.history,
        }

    def _statistics(self, train: Table) -> DomainStatistics:
        texts = train.texts()
        chosen = np.random.default_rng(0).permutation(len(texts))[:1000]
        vectors = self.trial_base.bare().encode([texts[i] for i in chosen])
        mean = vectors.mean(axis=0)
        variance = float(((vectors - mean) ** 2).mean())
        return DomainStatistics(mean=[float(x) for x in mean], spherical_variance=variance, n=len(chosen))

    @cached_property
    def trial_base(self) -> TrialBase:
        # In the precision that is fast here, base and adapters alike.
        return TrialBase(DEFAULT_BASE, base_fingerprint(load_base()), dtype=None)

    def member(self, name: str) -> StoredAdapter:
        if name not in self._members:
            self._members[name] = read_stored(self.adapters / name)
        return self._members[name]

    def rooted(self, tensors: Any, like: str) -> AdaptedEncoder:
        member = self.member(like)
        return self.trial_base.trial(tensors, member.config, member.manifest)

    def soup(self, names: Names, strategy: str = "uniform", weights: Sequence[float] | None = None) -> AdaptedEncoder:
        chosen = [self.member(n) for n in names]
        return self.rooted(mix_tensors(chosen, weights or [1 / len(chosen)] * len(chosen), strategy), names[0])

    # Scores.

    def score(self, encoder: Any, name: str) -> Evaluation:
        """On a domain's test rows, by the metric that is compared."""
        table = self.parts(name).test
        if table.shape is not Shape.LABELLED:
            return evaluate(encoder, table)
        found = labelled(encoder, table, clusterings=1)
        return Evaluation(found.shape, "same_label_ap", found.n, found.scores, found.units, found.rows)

    def value(self, name: str, encoder: Any, domain: str) -> float:
        """The score, from the cell ``name`` where that is there."""
        if not self.cells.has(name):
            self.cells.write(name, {"score": self.score(encoder, domain).value})
        return float(self.cells.load(name)["score"])

    def gain(self, name: str) -> dict[str, Any]:
        """Base and own adapter on a domain's test and dev rows: cell ``single-<name>``."""
        cell = f"single-{name}"
        if not self.cells.has(cell):
            base, own = self.trial_base.bare(), self.trial_base.published(self.member(name))
            before, after = self.score(base, name), self.score(own, name)
            difference = paired_difference(before, after, samples=300)
            dev = self.parts(name).dev
            record = {
                "domain": name,
                "kind": DOMAINS[name].kind,
                "metric": metric(self.parts(name).test) or before.primary,
                "base": before.value,
                "own": after.value,
                "gain": [difference.value, difference.low, difference.high],
                "counts": difference.low > 0,
                "dev_base": dev_score(base, dev),
                "dev_own": dev_score(own, dev),
            }
            self.cells.write(cell, record, packed(before))
        return self.cells.load(cell)

    def retained(self, name: str, score: float) -> float | None:
        """Share of the domain's own gain; None where that gain may be none."""
        single = self.gain(name)
        return (score - single["base"]) / (single["own"] - single["base"]) if single["counts"] else None

    def dev_retained(self, names: Names) -> float:
        """The least share of a member's own gain on dev rows: what greedy mixing goes by."""
        cell = f"dev-{'+'.join(sorted(names))}"
        if not self.cells.has(cell):
            soup = self.soup(tuple(sorted(names)))
            found = []
            for name in names:
                single = self.gain(name)
                span = single["dev_own"] - single["dev_base"]
                if span > 0:
                    found.append((dev_score(soup, self.parts(name).dev) - single["dev_base"]) / span)
            self.cells.write(cell, {"retained": float(min(found, default=0.0))})
        return float(self.cells.load(cell)["retained"])

    def mixture(self, names: Names, strategy: str = "uniform") -> dict[str, Any]:
        """A mixture on its members' test rows, with what might explain the result: cell ``<strategy>-a+b``."""
        names = tuple(sorted(names))
        cell = f"{strategy}-{'+'.join(names)}"
        if not self.cells.has(cell):
            soup = self.soup(names, strategy)
            scores = {name: self.score(soup, name).value for name in names}
            kept = {name: self.retained(name, value) for name, value in scores.items()}
            record = {"members": names, "size": len(names), "strategy": strategy, "scores": scores, "retained": kept}
            record["kinds"] = sorted({DOMAINS[name].kind for name in names})
            self.cells.write(cell, record | {"features": self.features(names)})
        return self.cells.load(cell)

    def features(self, names: Names) -> dict[str, float]:
        """Fractions of sign difference (set-wise), and other likenesses (means over pairs)."""
        weights = [compared(self.member(n).tensors) for n in names]
        changes = [self.member(n).updates() for n in names]
        ups = [{key: t for key, t in w.items() if "bottleneck_up" in key} for w in weights]
        pairs = list(combinations(range(len(names)), 2))
        sizes = [sum(float(t.square().sum()) for t in change.values()) ** 0.5 for change in changes]
        means = self.domains
        similar = means.similarities()
        place = [means.names.index(n) for n in names]
        return {
            "signs": sign_difference(weights).fraction,
            "signs_up": sign_difference(ups).fraction,
            "signs_updates": sign_difference(changes).fraction,
            "weight_cosine": float(np.mean([weight_cosine(weights[i], weights[j]) for i, j in pairs])),
            "update_cosine": float(np.mean([weight_cosine(changes[i], changes[j]) for i, j in pairs])),
            "effect_cosine": float(
                np.mean([effect(self.change(names[i]), self.change(names[j])).cosine for i, j in pairs])
            ),
            "domain_cosine": float(np.mean([similar[place[i], place[j]] for i, j in pairs])),
            "update_size": float(np.mean(sizes)),
        }

    @cached_property
    def domains(self) -> Domains:
        return Domains.of({name: self.member(name).manifest for name in self.names})

    @cached_property
    def _common(self) -> tuple[list[str], np.ndarray]:
        texts = list(dict.fromkeys(text for pair in drift_pairs(200) for text in pair))[:200]
        return texts, self.trial_base.bare().encode(texts)

    def change(self, name: str) -> np.ndarray:
        """What an adapter does to the similarities of common texts."""
        cache = self.__dict__.setdefault("_changes", {})
        if name not in cache:
            texts, bare = self._common
            cache[name] = similarity_changes(bare, self.trial_base.published(self.member(name)).encode(texts))
        return cache[name]

    def average_of(self, weights: dict[str, float]) -> AdaptedEncoder:
        chosen = [self.member(n) for n in weights]
        return self.rooted(average([m.tensors for m in chosen], list(weights.values())), chosen[0].name)


def _redraw(parameters: dict[str, Any], seed: int) -> None:
    """Shuffle the first weights of every ``down``: others, of exactly the same distribution."""
    import torch

    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in parameters.items():
            if "bottleneck_down" in name and value.ndim > 1:
                value.copy_(value.flatten()[torch.randperm(value.numel(), generator=draw)].view_as(value))
