"""How often the verdict is wrong where nothing differs: python benchmarks/calibration.py

Pairs of encoders are simulated that are equally good: each is a common truth with noise of its own. A draw counts as a
false "better" (or "worse") where `paired_difference` says so. Cells: metric x kind of difference x number of units.

    dense    every unit differs a little
    sparse   three units differ
    tied     results take few values, most units tie
    heavy    noise from Student's t with 2 degrees of freedom
    grouped  units in groups of five that share their noise

``power`` cells hold how often a true difference is found, beside scipy's permutation_test and BCa bootstrap.
``domains`` cells hold how often the interval of `two_level_difference` lies above 0 without a difference. Written cell
by cell to benchmarks/results/calibration, so that a run that was broken off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from adaptation.records import ROOT, provenance
from cell_store import Cells, write_text

from scions.data.shapes import Shape
from scions.evaluation import Evaluation, metrics, paired_difference, two_level_difference
from scions.evaluation.paired_test import randomization_test
from scions.evaluation.scores import BinaryOfUnits, MeanOfUnits, SpearmanOfUnits, VMeasureOfUnits

METRICS = ("mean", "spearman", "average_precision", "v_measure")
KINDS = ("dense", "sparse", "tied", "heavy", "grouped")
SIZES = (10, 20, 64, 500)
CLUSTERINGS = 3
SHIFT = 0.1  # the true difference of the power cells, in units of the mean metric


def noise(kind: str, n: int, groups: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One encoder's own noise, `[n]`."""
    if kind == "sparse":
        values = np.zeros(n)
        changed = rng.choice(n, 3, replace=False)
        values[changed] = rng.normal(size=3)
        return values
    if kind == "heavy":
        return rng.standard_t(2, n) * 0.5
    if kind == "grouped":
        return rng.normal(size=int(groups.max()) + 1)[groups]
    return rng.normal(size=n)


def units(metric: str, kind: str, n: int, groups: np.ndarray, rng: np.random.Generator, shift: float = 0.0) -> Any:
    """The units of two encoders, the second better by ``shift`` (of the mean metric)."""

    def rounded(values: np.ndarray) -> np.ndarray:
        return np.round(values) if kind == "tied" else values

    if metric == "mean":
        truth = rng.normal(0.5, 0.3, n)
        two = [np.clip(truth + 0.3 * noise(kind, n, groups, rng) + more, 0, 1) for more in (0.0, shift)]
        return [MeanOfUnits(np.round(2 * v) / 2 if kind == "tied" else v) for v in two]
    if metric == "spearman":
        gold = rng.integers(0, 6, n).astype(float)
        gold[:2] = 0, 5
        truth = gold + rng.normal(0, 1.5, n)
        return [SpearmanOfUnits(rounded(truth + noise(kind, n, groups, rng)), gold) for _ in range(2)]
    if metric == "average_precision":
        labels = (rng.random(n) < 0.4).astype(np.int64)
        labels[:2] = 1, 0
        truth = labels + rng.normal(0, 0.7, n)
        return [
            BinaryOfUnits(metrics.average_precision, rounded(truth + noise(kind, n, groups, rng)), labels)
            for _ in range(2)
        ]
    count = max(2, min(10, n // 6))
    labels = metrics.dense_codes(rng.integers(0, count, n))

    def clusters() -> np.ndarray:
        wrong = np.abs(noise(kind, n, groups, rng)) > 1
        moved = (
            rng.integers(0, count, int(groups.max()) + 1)[groups] if kind == "grouped" else rng.integers(0, count, n)
        )
        # The clusterings of one encoder agree in most units, as k-means from several starts does.
        again = rng.random((CLUSTERINGS, n)) < 0.05
        return np.where(again, rng.integers(0, count, (CLUSTERINGS, n)), np.where(wrong, moved, labels))

    return [VMeasureOfUnits(labels, clusters()) for _ in range(2)]


def evaluations(metric: str, two: Any, groups: np.ndarray) -> list[Evaluation]:
    """The same as evaluations."""
    n, every = len(groups), np.arange(len(groups))
    return [Evaluation(Shape.SCORED, metric, n, {metric: 100 * u(every)}, {metric: u}, "", groups) for u in two]


def direction(metric: str, two: Any, groups: np.ndarray) -> int:
    """What `paired_difference` decides; its interval is computed only where the test alone does not settle it."""
    if randomization_test(two[0], two[1], groups).p > 0.05:
        return 0
    return paired_difference(*evaluations(metric, two, groups)).direction


def grouping(kind: str, n: int) -> np.ndarray:
    return np.arange(n) // 5 if kind == "grouped" else np.arange(n)


def null_cell(metric: str, kind: str, n: int, draws: int) -> dict[str, Any]:
    """Shares of draws that are called better and worse where neither is."""
    rng, groups = np.random.default_rng(n), grouping(kind, n)
    said = [direction(metric, units(metric, kind, n, groups, rng), groups) for _ in range(draws)]
    better, worse = said.count(1) / draws, said.count(-1) / draws
    return {"metric": metric, "kind": kind, "n": n, "draws": draws, "better": better, "worse": worse}


def power_cell(kind: str, n: int, draws: int) -> dict[str, Any]:
    """How often a true difference of ``SHIFT`` is found, by us and by scipy's tests."""
    from scipy.stats import bootstrap, permutation_test

    rng, groups = np.random.default_rng(n), grouping(kind, n)
    found = {"ours": 0, "permutation": 0, "bca": 0}
    for _ in range(draws):
        two = units("mean", kind, n, groups, rng, SHIFT)
        gains = two[1].values - two[0].values
        found["ours"] += direction("mean", two, groups) == 1
        flips = permutation_test(
            (gains,), np.mean, permutation_type="samples", n_resamples=999, rng=rng, vectorized=True
        )
        found["permutation"] += bool(flips.pvalue <= 0.05 and gains.mean() > 0)
        if np.ptp(gains) > 0:
            found["bca"] += bool(bootstrap((gains,), np.mean, n_resamples=999, rng=rng).confidence_interval.low > 0)
    return {
        "kind": kind,
        "n": n,
        "draws": draws,
        "shift": SHIFT,
        **{name: count / draws for name, count in found.items()},
    }


def domains_cell(domains: int, draws: int) -> dict[str, Any]:
    """How often the mean over domains is said to differ, where domains differ by chance alone."""
    rng, above, below = np.random.default_rng(domains), 0, 0
    for _ in range(draws):
        pairs = []
        for _ in range(domains):
            gain, base = rng.normal(0, 0.02), rng.random(100)
            two = (MeanOfUnits(base), MeanOfUnits(base + gain + rng.normal(0, 0.1, 100)))
            pairs.append(evaluations("mean", two, np.arange(100)))
        interval = two_level_difference([(one, other) for one, other in pairs])
        above, below = above + (interval.low > 0), below + (interval.high < 0)
    return {"domains": domains, "draws": draws, "above": above / draws, "below": below / draws}


def table(cells: Cells) -> str:
    """The committed cells as Markdown."""
    lines = ["| metric | difference | n | false better | false worse |", "|---|---|---|---|---|"]
    for cell in cells.all("null"):
        lines.append(
            f"| {cell['metric']} | {cell['kind']} | {cell['n']} | {cell['better']:.2%} | {cell['worse']:.2%} |"
        )
    lines += ["", f"| true difference of {SHIFT} | n | ours | permutation test | BCa |", "|---|---|---|---|---|"]
    for cell in cells.all("power"):
        lines.append(
            f"| {cell['kind']} | {cell['n']} | {cell['ours']:.1%} | {cell['permutation']:.1%} | {cell['bca']:.1%} |"
        )
    lines += ["", "| domains | interval above 0 | below 0 |", "|---|---|---|"]
    lines += [f"| {cell['domains']} | {cell['above']:.2%} | {cell['below']:.2%} |" for cell in cells.all("domains")]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--metrics", nargs="+", default=METRICS, choices=METRICS)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    options = parser.parse_args()
    folder = ROOT / "benchmarks" / "results" / "calibration"
    cells = Cells(folder, provenance())
    jobs: dict[str, Any] = {}
    for n in options.sizes:
        for metric in options.metrics:
            for kind in KINDS:
                jobs[f"null-{metric}-{kind}-{n}"] = (null_cell, metric, kind, n, options.draws)
        if "mean" in options.metrics:
            for kind in ("dense", "heavy"):
                jobs[f"power-{kind}-{n}"] = (power_cell, kind, n, min(options.draws, 500))
    for domains in (5, 8, 14):
        jobs[f"domains-{domains}"] = (domains_cell, domains, options.draws)
    for name, (cell, *arguments) in jobs.items():
        if cells.has(name):
            continue
        start = time.perf_counter()
        result = cell(*arguments)
        cells.write(name, {**result, "seconds": round(time.perf_counter() - start, 1)})
        print(name, result, flush=True)
    write_text(folder / "table.md", table(cells))


if __name__ == "__main__":
    main()
