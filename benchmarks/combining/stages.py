"""The stages of the benchmark; a cell that exists is not measured again."""

from __future__ import annotations

import statistics
import time
from itertools import combinations
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from combining.workshop import Names, Workshop
from scions.evaluation import Evaluation
from scions.merging.signs import sign_difference
from scions.merging.tensor_sites import compared
from scions.mixing.domain_weights import cluster_shares
from scions.mixing.greedy import greedy
from scions.mixing.prune import prune_adapter
from scions.mixing.select import propose
from scions.publishing.adapter_files import write_adapter
from scions.routing.decision import calibration_for, decide, decide_rows

FLOOR = 0.9  # share of the members' own gain below which greedy mixing goes no further
SAMPLED = {3: 60, 4: 40}
STARTS = ("doc-numpy", "doc-pandas", "doc-torch", "doc-transformers", "banking77", "stackoverflow")
STS = ("sts13", "sts16", "stsb_test", "sickr")


def adapters(shop: Workshop) -> None:
    for name in shop.names:
        if not shop.cells.has(f"adapter-{name}") or not (shop.adapters / name / "scions.json").is_file():
            shop.cells.write(f"adapter-{name}", shop.train(name))
            _say(f"adapter {name}")
    for name in shop.names:
        gain = shop.gain(name)["gain"]
        _say(f"{name}: {gain[0]:+.2f} [{gain[1]:+.2f}, {gain[2]:+.2f}]")


def subsets(names: Names) -> list[Names]:
    """All pairs; of each larger size so many sets drawn by chance, and half as many again of docstrings alone."""
    found: list[Names] = list(combinations(names, 2))
    rng = np.random.default_rng(0)
    for size, count in SAMPLED.items():
        every = list(combinations(names, size))
        inside = [s for s in every if all(name.startswith("doc-") for name in s)]
        for pool, share in ((inside, count // 2), (every, count)):
            order = rng.permutation(len(pool))
            found += [pool[i] for i in order if pool[i] not in found][:share]
    return list(dict.fromkeys(found))


def mixtures(shop: Workshop) -> None:
    chosen = subsets(shop.names)
    for number, names in enumerate(chosen, 1):
        start = time.perf_counter()
        known = shop.cells.has(f"uniform-{'+'.join(sorted(names))}")
        cell = shop.mixture(names)
        if not known:
            kept = [v for v in cell["retained"].values() if v is not None]
            mean = f"{np.mean(kept):.2f}" if kept else "-"
            _say(f"{number}/{len(chosen)} {'+'.join(names)}: signs {cell['features']['signs']:.3f}, kept {mean}, "
                 f"{time.perf_counter() - start:.0f} s")  # fmt: skip


def starts(shop: Workshop) -> None:
    """The same domains with first weights of their own: what is left of pairs that began apart."""
    names = [name for name in STARTS if name in shop.names and shop.gain(name)["counts"]]
    for number, name in enumerate(names, 1):
        if not shop.cells.has(f"adapter-own-{name}") or not (shop.adapters / f"own-{name}" / "scions.json").is_file():
            shop.cells.write(f"adapter-own-{name}", shop.train(name, own_start=number))
    for pair in combinations(sorted(names), 2):
        if shop.cells.has(f"apart-{'+'.join(pair)}"):
            continue
        apart = tuple(f"own-{name}" for name in pair)
        soup = shop.soup(apart)
        kept = {}
        for name, called in zip(pair, apart, strict=True):
            base, own = (
                shop.gain(name)["base"],
                shop.value(called, shop.trial_base.published(shop.member(called)), name),
            )
            kept[name] = (shop.score(soup, name).value - base) / (own - base)
        together = shop.mixture(pair)
        record = {"members": pair, "kept_apart": kept, "kept_together": together["retained"]}
        record["signs_apart"] = sign_difference([compared(shop.member(n).tensors) for n in apart]).fraction
        record["signs_together"] = together["features"]["signs"]
        shop.cells.write(f"apart-{'+'.join(pair)}", record)
        _say(f"apart {pair}: {kept}")


def greedily(shop: Workshop) -> None:
    """From each domain that gained; rivals of the same size that hold the same target."""
    gained = tuple(name for name in shop.names if shop.gain(name)["counts"])
    tensors = {name: compared(shop.member(name).tensors) for name in gained}
    for target in gained:
        if shop.cells.has(f"greedy-{target}") or len(gained) < 3:
            continue
        found = greedy(
            gained,
            lambda names: sign_difference([tensors[n] for n in names]).fraction,
            lambda names: 1.0 if len(names) == 1 else shop.dev_retained(names),
            target,
            holds=lambda before, now: now >= FLOOR,
            limit=4,
        )
        record: dict[str, Any] = {"target": target, "members": found.members, "size": len(found.members)}
        record["tried"] = [{"members": t.members, "signs": t.fraction, "dev": t.score} for t in found.trials]
        # Where the floor stops it at once, the pair it tried is compared all the same, and said to be below the floor.
        members = found.members if found.is_mixture else found.trials[1].members
        size = len(members)
        order = np.argsort(-shop.domains.similarities()[shop.domains.names.index(target)])
        similar = [
            shop.domains.names[i] for i in order if shop.domains.names[i] in gained and shop.domains.names[i] != target
        ]
        others = [(target, *rest) for rest in combinations([n for n in gained if n != target], size - 1)]
        drawn = np.random.default_rng(0).permutation(len(others))[:8]
        record["kept"] = {
            "greedy": _kept(shop.mixture(members)),
            "uniform of the most similar": _kept(shop.mixture((target, *similar[: size - 1]))),
            "uniform, any": float(np.mean([_kept(shop.mixture(others[i])) for i in drawn])),
            "ties of greedy's": _kept(shop.mixture(members, "ties")),
            "ties of the most similar": _kept(shop.mixture((target, *similar[: size - 1]), "ties")),
        }
        record["of_each"] = shop.mixture(members)["retained"]
        shop.cells.write(f"greedy-{target}", record)
        _say(f"greedy from {target}: {members}, {record['kept']}")


def novel(shop: Workshop) -> None:
    """Each domain in turn has no adapter: the proposed soup, the most similar adapter, and the base."""
    for name in shop.names:
        if shop.cells.has(f"novel-{name}"):
            continue
        rest = [n for n in shop.names if n != name]
        from scions.routing.domains import Domains

        domains = Domains.of({n: shop.member(n).manifest for n in rest})
        texts = shop.parts(name).train.texts()  # of a search, queries come first: drawn, not the first hundred
        vectors = shop.trial_base.bare().encode(
            [texts[i] for i in np.random.default_rng(0).permutation(len(texts))[:100]]
        )
        base = shop.gain(name)["base"]
        record: dict[str, Any] = {"domain": name, "base": base, "own": shop.gain(name)["own"]}
        record["of_no_domain"] = float(cluster_shares(vectors, domains)[0])
        for by in ("mixture", "cosine"):
            found = propose(vectors, domains, by=by)
            soup = shop.score(shop.average_of(found.weights), name).value if found.weights else base
            record[by] = {"weights": found.weights, "score": soup}
        nearest = rest[int(np.argmax(domains.cosines(vectors)))]
        single = shop.value(f"cross-{nearest}-{name}", shop.trial_base.published(shop.member(nearest)), name)
        record["single"] = {"adapter": nearest, "score": single}
        shop.cells.write(f"novel-{name}", record)
        _say(f"novel {name}: base {base:.2f}, single {single:.2f}, soup {record['mixture']['score']:.2f}")


def routing(shop: Workshop) -> None:
    """As `adapter="auto"` decides, with the thresholds it has; on test texts and STS sentences."""
    if shop.cells.has("routing"):
        return
    from scions.data import read

    base, rng = shop.trial_base.bare(), np.random.default_rng(0)

    def vectors(texts: list[str], most: int = 400) -> np.ndarray:
        distinct = list(dict.fromkeys(texts))
        return base.encode([distinct[i] for i in rng.permutation(len(distinct))[:most]])

    def queries(table: Any) -> list[str]:
        return table.columns["query"] if "query" in table.columns else table.texts()

    test = {name: vectors(queries(shop.parts(name).test)) for name in shop.names}
    train = {name: vectors(shop.parts(name).train.texts()) for name in shop.names}
    sts = {name: vectors(read(shop.data / "sts" / f"{name}.jsonl").texts()) for name in STS}
    # What more than a mean a domain would buy: a regression trained on texts of all of them.
    rival = LogisticRegression(C=10, max_iter=300)
    rival.fit(np.concatenate(list(train.values())), np.repeat(list(train), [len(texts) for texts in train.values()]))
    regression = {name: float((rival.predict(texts) == name).mean()) for name, texts in test.items()}
    record: dict[str, Any] = {"regression": regression}
    chosen: dict[str, list[str | None]] = {}
    for size in (1, 20):
        settled = calibration_for(size)

        def choices(texts: np.ndarray, size: int = size, settled: Any = settled) -> list[Any]:
            if size == 1:
                return decide_rows(texts, shop.domains, settled)
            return [decide(texts[rng.integers(len(texts), size=size)], shop.domains, settled) for _ in range(100)]

        right, sure, fallback, outside = {}, [], {}, []
        for name, texts in test.items():
            found = choices(texts)
            right[name] = float(np.mean([d.adapter == name for d in found]))
            sure += [(d.confidence, d.adapter == name) for d in found]
            if size > 1:
                chosen[name] = [d.adapter for d in found]
        for name, texts in sts.items():
            picks = choices(texts)
            fallback[name] = float(np.mean([d.adapter is None for d in picks]))
            outside += [(d.confidence, d.adapter is None) for d in picks]
        record[str(size)] = {
            "least": settled.least,
            "temperature": settled.temperature,
            "right": right,
            "mean_right": float(np.mean(list(right.values()))),
            "mean_confidence": float(np.mean([confidence for confidence, _ in sure])),
            "calibration_error": _calibration_error(sure + outside),
            "to_base": fallback,
            "mean_to_base": float(np.mean(list(fallback.values()))),
        }
        _say(f"routing of {size}: {record[str(size)]['mean_right']:.3f}, base {record[str(size)]['mean_to_base']:.3f}")
    routed = {}
    for name, picks in chosen.items():
        values = {}
        for pick in set(picks):
            if pick is None:
                values[pick] = shop.gain(name)["base"]
            elif pick == name:
                values[pick] = shop.gain(name)["own"]
            else:
                values[pick] = shop.value(f"cross-{pick}-{name}", shop.trial_base.published(shop.member(pick)), name)
        routed[name] = {"score": float(np.mean([values[p] for p in picks])), "own": shop.gain(name)["own"]}
    shop.cells.write("routing", record | {"routed": routed})


def _calibration_error(sure: list[tuple[float, bool]]) -> float:
    """Expected calibration error over ten bins of confidence (Guo et al. 2017, arXiv 1706.04599, eq. 3)."""
    confidence, right = (np.array(column, dtype=float) for column in zip(*sure, strict=True))
    bins = np.minimum((10 * confidence).astype(int), 9)
    gaps = [(bins == b).mean() * abs(confidence[bins == b].mean() - right[bins == b].mean()) for b in set(bins)]
    return float(np.sum(gaps))


def pruning(shop: Workshop) -> None:
    import tempfile
    from pathlib import Path

    from scions.store.weights import find_weights_file

    order = shop.domains.similarities()
    for name in shop.names:
        single = shop.gain(name)
        member = shop.member(name)
        near = [shop.domains.names[i] for i in np.argsort(-order[shop.domains.names.index(name)])[1:3]]
        before = after = None
        for strategy, share in (
            ("magnitude", 0.9),
            ("sign-aware", 0.9),
            ("neurons", 0.9),
            ("neurons", 0.5),
            ("layers", 0.5),
        ):
            cell = f"pruned-{name}-{strategy}-{share:g}"
            if shop.cells.has(cell) or not single["counts"]:
                continue
            if before is None or after is None:
                before = shop.score(shop.trial_base.bare(), name)
                after = shop.score(shop.trial_base.published(member), name)
            made = prune_adapter(
                member, share, strategy, [shop.member(n) for n in near] if strategy == "sign-aware" else ()
            )
            with tempfile.TemporaryDirectory() as folder:
                write_adapter(Path(folder), made.tensors, made.config, member.manifest, sparse=made.sparse)
                size = find_weights_file(folder).stat().st_size
            result = shop.score(
                shop.trial_base.trial(made.tensors, made.config, member.manifest, sparse=made.sparse), name
            )
            record: dict[str, Any] = {"domain": name, "strategy": strategy, "asked": share, "sparsity": made.sparsity}
            record["bytes"] = size / find_weights_file(member.folder).stat().st_size
            record["score"], record["kept"] = result.value, kept_gain(before, after, result)
            shop.cells.write(cell, record)
            kept, low, high = record["kept"]
            _say(f"{cell}: kept {kept:.3f} [{low:.3f}, {high:.3f}], {record['bytes']:.3f}x bytes")
    _speed(shop)


def kept_gain(base: Evaluation, own: Evaluation, other: Evaluation, samples: int = 300) -> tuple[float, float, float]:
    """Share of the gain that is left, with its 95 % interval over paired resamples of the rows."""
    rng, found = np.random.default_rng(0), []
    for _ in range(samples):
        rows = rng.integers(base.n, size=base.n)
        b, o, x = (e.resampled(e.primary, rows) for e in (base, own, other))
        if o - b:
            found.append((x - b) / (o - b))
    low, high = np.percentile(found, [2.5, 97.5])
    return (other.value - base.value) / (own.value - base.value), float(low), float(high)


def _speed(shop: Workshop, rounds: int = 5) -> None:
    """Texts a second of base, whole and pruned adapters, in turns within one process."""
    if shop.cells.has("speed"):
        return
    name = shop.names[0]
    member = shop.member(name)
    sides: dict[str, Any] = {"base": shop.trial_base.bare(), "whole": shop.trial_base.published(member)}
    for strategy, share in (("magnitude", 0.9), ("neurons", 0.5), ("neurons", 0.9), ("layers", 0.5)):
        made = prune_adapter(member, share, strategy)
        sides[f"{strategy} {share:g}"] = shop.trial_base.trial(
            made.tensors, made.config, member.manifest, sparse=made.sparse
        )
    texts = (shop.parts(name).test.texts() * 4)[:256]
    for encoder in sides.values():
        encoder.encode(texts[:100])
    times: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(rounds):
        for side, encoder in sides.items():
            start = time.perf_counter()
            encoder.encode(texts)
            times[side].append(time.perf_counter() - start)
    ratios = {side: [w / t for w, t in zip(times["whole"], taken, strict=True)] for side, taken in times.items()}
    record = {
        side: {"texts_per_second": len(texts) / statistics.median(taken), "to_whole": statistics.median(ratios[side]),
               "spread": [min(ratios[side]), max(ratios[side])]}
        for side, taken in times.items()
    }  # fmt: skip
    shop.cells.write("speed", {"texts": len(texts), "rounds": rounds, "sides": record})
    _say(f"speed: { ({side: round(r['to_whole'], 3) for side, r in record.items()}) }")


def _kept(cell: dict[str, Any]) -> float:
    return float(np.mean([value for value in cell["retained"].values() if value is not None]))


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
