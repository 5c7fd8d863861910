"""Write `table.md` and `summary.json` from the cells."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from cell_store import Cells, write_text

from adaptation import speed
from adaptation.domains import DOMAINS
from adaptation.markdown import METHODS, markdown
from adaptation.records import evaluation
from scions.evaluation import Evaluation, Interval, interval, paired_difference, two_level_difference

SEEDS = (0, 1, 2)
Row = dict[str, Any]


class MeanOfSeeds:
    """A metric of `[m]` units, mean over trainings."""

    def __init__(self, runs: Sequence[Evaluation], metric: str) -> None:
        self.units = [run.units[metric] for run in runs]

    def __call__(self, indices: np.ndarray) -> float:
        return float(np.mean([unit(indices) for unit in self.units]))


class Finals:
    """The final cells that exist."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        self._known: dict[str, tuple[Evaluation, np.ndarray | None]] = {}

    @staticmethod
    def name(domain: str, method: str, seed: int) -> str:
        plain = f"final-{domain}-{method}"
        return plain if method in ("base", "linear") else f"{plain}-seed{seed}"

    def has(self, domain: str, method: str, seed: int = 0) -> bool:
        if not self.cells.has(self.name(domain, method, seed)):
            return False
        return self.cells.load(self.name(domain, method, seed))["score"] is not None

    def record(self, domain: str, method: str, seed: int = 0) -> Row:
        return self.cells.load(self.name(domain, method, seed))

    def evaluation(self, domain: str, method: str, seed: int = 0) -> Evaluation:
        return self._loaded(domain, method, seed)[0]

    def unseen(self, domain: str) -> np.ndarray | None:
        return self._loaded(domain, "base", 0)[1]

    def seeds(self, domain: str, *methods: str) -> list[int]:
        """Seeds of which every one of these methods has a cell."""
        return [seed for seed in SEEDS if all(self.has(domain, method, seed) for method in methods)]

    def mean_of_seeds(self, domain: str, method: str, seeds: Sequence[int]) -> Evaluation:
        """One Evaluation whose primary metric is the mean over ``seeds``; the base and the map have only one."""
        runs = [self.evaluation(domain, method, seed) for seed in seeds]
        first = runs[0]
        scores = {first.primary: float(np.mean([run.value for run in runs]))}
        units: dict[str, Any] = {first.primary: MeanOfSeeds(runs, first.primary)}
        return Evaluation(first.shape, first.primary, first.n, scores, units, first.rows)

    def _loaded(self, domain: str, method: str, seed: int) -> tuple[Evaluation, np.ndarray | None]:
        name = self.name(domain, method, seed)
        if name not in self._known:
            self._known[name] = evaluation(self.cells, name)
        return self._known[name]


def write(cells: Cells) -> str:
    """Write both files, from the cells that exist; gives the table."""
    finals = Finals(cells)
    summary: dict[str, Any] = {
        "rows": _rows(finals),
        "seeds": _seeds(finals),
        "means": _means(finals),
        "comparisons": _comparisons(finals),
        "speed": speed.summary(cells.all("speed")),
        "domains": _domains(finals),
        "provenance": _provenance(cells),
    }
    cells.folder.mkdir(parents=True, exist_ok=True)
    write_text(cells.folder / "summary.json", json.dumps(summary, indent=1) + "\n")
    text = markdown(summary)
    write_text(cells.folder / "table.md", text)
    return text


def _rows(finals: Finals) -> list[Row]:
    rows = []
    for domain in DOMAINS:
        for method in METHODS:
            if not finals.has(domain, method):
                continue
            record, result = finals.record(domain, method), finals.evaluation(domain, method)
            fit = record.get("fit", {})
            row: Row = {
                "domain": domain,
                "method": method,
                "metric": result.primary,
                "score": asdict(interval(result)),
                "other_scores": {name: value for name, value in result.scores.items() if name != result.primary},
                "extra": {
                    name: {"score": extra["scores"][extra["primary"]], "rows": extra["n"]}
                    for name, extra in record.get("extra", {}).items()
                },
                "sts7": record["sts"]["STS7"],
                "share": record.get("trained", {}).get("share", 0.0),
                "rank": record.get("trained", {}).get("rank"),
                "learning_rate": record.get("learning_rate_name"),
                "training_rows": record["training_rows"],
                "rows_per_second": fit.get("rows_per_second"),
                "training_seconds": fit.get("seconds"),
                "wall_seconds": record["wall_seconds"],
                "peak_memory_mib": fit.get("peak_memory_mib"),
            }
            if method != "base" and finals.has(domain, "base"):
                base, unseen = finals.evaluation(domain, "base"), finals.unseen(domain)
                row["gain"] = asdict(paired_difference(base, result))
                if unseen is not None:
                    before, after = (e.resampled(e.primary, unseen) for e in (base, result))
                    row["unseen"] = {"rows": len(unseen), "base": before, "score": after}
            rows.append(row)
    return rows


def _seeds(finals: Finals) -> list[Row]:
    rows = []
    for domain in DOMAINS:
        for method in METHODS[2:]:
            seeds = finals.seeds(domain, method)
            if len(seeds) > 1:
                scores = [finals.evaluation(domain, method, seed).value for seed in seeds]
                sts = [finals.record(domain, method, seed)["sts"]["STS7"] for seed in seeds]
                rows.append(
                    {
                        "domain": domain,
                        "method": method,
                        "seeds": seeds,
                        "scores": scores,
                        "mean": float(np.mean(scores)),
                        "deviation": float(np.std(scores, ddof=1)),
                        "sts7": float(np.mean(sts)),
                    }
                )
    return rows


def _complete(finals: Finals, *methods: str) -> list[str]:
    return [domain for domain in DOMAINS if all(finals.has(domain, method) for method in methods)]


def _means(finals: Finals) -> list[Row]:
    """Over the domains where base, full fine-tuning and Houlsby have a cell, of each method that has one in all."""
    domains = _complete(finals, "base", "full", "houlsby")
    if not domains:
        return []
    methods = [method for method in METHODS if all(finals.has(domain, method) for domain in domains)]
    return [
        {
            "method": method,
            "domains": domains,
            "score": float(np.mean([finals.evaluation(domain, method).value for domain in domains])),
            "sts7": float(np.mean([finals.record(domain, method)["sts"]["STS7"] for domain in domains])),
        }
        for method in methods
    ]


def _comparisons(finals: Finals) -> list[Row]:
    found: list[Row] = []
    for name, first, second in (
        ("houlsby - full", "full", "houlsby"),
        ("houlsby - base", "base", "houlsby"),
        ("full - base", "base", "full"),
        ("houlsby - lora", "lora", "houlsby"),
        ("houlsby - pfeiffer", "pfeiffer", "houlsby"),
        ("houlsby - linear", "linear", "houlsby"),
    ):
        domains = _complete(finals, first, second)
        if not domains:
            continue
        single = [tuple(finals.evaluation(domain, method) for method in (first, second)) for domain in domains]
        seeds = {domain: finals.seeds(domain, first, second) for domain in domains}
        every = [
            tuple(finals.mean_of_seeds(domain, method, seeds[domain]) for method in (first, second))
            for domain in domains
        ]
        found.append(
            {
                "what": name,
                "domains": domains,
                "by_domain": {d: asdict(paired_difference(*pair)) for d, pair in zip(domains, single, strict=True)},
                "mean_seed_0": asdict(two_level_difference(single)),
                "mean_all_seeds": asdict(two_level_difference(every)),
                "seeds": seeds,
            }
        )
    _add_ratios(found)
    return found


def _add_ratios(found: list[Row]) -> None:
    """Houlsby's gain over full fine-tuning's, only where the latter's interval excludes zero."""
    by_name = {row["what"]: row for row in found}
    if not {"houlsby - base", "full - base"} <= set(by_name):
        return
    ours, theirs = by_name["houlsby - base"], by_name["full - base"]
    ratios = {
        domain: ours["by_domain"][domain]["value"] / gain["value"]
        for domain, gain in theirs["by_domain"].items()
        if domain in ours["by_domain"] and Interval(**gain).low > 0
    }
    ours["ratio_to_full"] = {"by_domain": ratios}
    if ours["domains"] == theirs["domains"] and Interval(**theirs["mean_seed_0"]).low > 0:
        ours["ratio_to_full"]["mean"] = ours["mean_seed_0"]["value"] / theirs["mean_seed_0"]["value"]


def _domains(finals: Finals) -> list[Row]:
    rows = []
    for name, domain in DOMAINS.items():
        if finals.has(name, "base"):
            record = finals.record(name, "base")
            rows.append(
                {"domain": name, "likely_seen_by_base": domain.seen, "test_rows": record["result"]["n"]}
                | {"removed_rows": record["removed_rows"]}
                | {key: record["overlap"][key] for key in ("test_texts", "also_in_train")}
                | {"unseen_rows": record["overlap"].get("unseen_rows")}
            )
    return rows


def _provenance(cells: Cells) -> list[Row]:
    """The distinct sources and machines, with how many cells came from each."""
    found: dict[str, Row] = {}
    for stage in ("grid", "final", "speed"):
        for cell in cells.all(stage):
            source = {key: value for key, value in cell["provenance"].items() if key != "command"}
            key = json.dumps(source, sort_keys=True)
            found.setdefault(key, source | {"cells": 0})["cells"] += 1
    return list(found.values())
