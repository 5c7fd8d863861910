"""Write `table.md` from the cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from adaptation.records import evaluation
from cell_store import Cells, write_text

from preserving.cells import DOMAINS, FINAL, GRID, sts7
from preserving.labels import CELLS, TASKS
from scions.evaluation import Interval, paired_difference, two_level_difference

BASE_STS7 = 78.875  # all-MiniLM-L6-v2 in the precision of these cells (final-*-base in results/domain_adaptation)


def write(cells: Cells) -> str:
    """Write the file from the cells that exist; gives its text."""
    text = "\n\n".join(part for part in (_final(cells), _grid(cells), _labels(cells)) if part) + "\n"
    write_text(cells.folder / "table.md", text)
    return text


def _final(cells: Cells) -> str:
    lines = [
        "## Domain and general scores (test rows, STS7), seed 0",
        "",
        "Difference to the plain run of the same method: paired bootstrap, 95 %. Loss: what STS7 lost against the "
        "base, and its share of the plain run's loss over the same domains.",
        "",
        "| way | " + " | ".join(DOMAINS) + " | difference | STS7 loss: " + ", ".join(DOMAINS) + " | share |",
        "|---" * (len(DOMAINS) + 4) + "|",
    ]
    for variant in FINAL:
        names = {d: f"final-{d}-{variant.name}-seed0" for d in DOMAINS}
        there = [d for d in DOMAINS if cells.has(names[d])]
        if not there:
            continue
        plain = "full" if variant.method == "full" else "plain"
        scores = {d: cells.load(names[d])["score"] for d in there}
        losses = {d: BASE_STS7 - sts7(cells.load(names[d])["sts"]) for d in there}
        against = {d: f"final-{d}-{plain}-seed0" for d in there}
        known = [d for d in there if cells.has(against[d])]
        difference, share = "", ""
        if variant.name != plain and known:
            pairs = [(evaluation(cells, against[d])[0], evaluation(cells, names[d])[0]) for d in known]
            each = {d: paired_difference(*pair, samples=300) for d, pair in zip(known, pairs, strict=True)}
            scores_told = {
                d: f"{scores[d]:.2f} ({each[d].value:+.2f})" if d in each else f"{scores[d]:.2f}" for d in there
            }
            difference = _signed(two_level_difference(pairs, samples=300))
            lost = np.mean([BASE_STS7 - sts7(cells.load(against[d])["sts"]) for d in known])
            share = f"{np.mean([losses[d] for d in known]) / lost:.2f}"
        else:
            scores_told = {d: f"{scores[d]:.2f}" for d in there}
        row = [
            variant.name,
            *(scores_told.get(d, "") for d in DOMAINS),
            difference,
        ]
        row += [", ".join(f"{losses[d]:.2f}" if d in losses else "-" for d in DOMAINS)]
        row += [share]
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


def _grid(cells: Cells) -> str:
    lines = ["## Choosing: dev rows and general rows outside STS7", "", "| way | " + " | ".join(DOMAINS) + " |"]
    lines += ["|---" * (len(DOMAINS) + 1) + "|"]
    found = False
    for variant in GRID:
        told = []
        for domain in DOMAINS:
            name = f"grid-{domain}-{variant.name}"
            found |= cells.has(name)
            told.append(cells.load(name)["told"] if cells.has(name) else "")
        lines.append(f"| {variant.name} | " + " | ".join(told) + " |")
    return "\n".join(lines) if found else ""


def _labels(cells: Cells) -> str:
    lines = [
        "## Few labels after unlabelled adaptation: macro-F1, mean of 20 draws (difference to none, 95 % over draws)",
        "",
        "| method | way | " + " | ".join(TASKS) + " |",
        "|---" * (len(TASKS) + 2) + "|",
    ]
    found = False
    for method, way in CELLS:
        told = []
        for task in TASKS:
            name = f"labels-{task}-{method}-{way}"
            if not cells.has(name):
                told.append("")
                continue
            found = True
            draws, base = _draws(cells, name), _draws(cells, f"labels-{task}-none-base")
            told.append(
                f"{draws.mean():.2f}" if method == "none" else f"{draws.mean():.2f} ({_signed(_over(draws - base))})"
            )
        lines.append(f"| {method} | {way} | " + " | ".join(told) + " |")
    return "\n".join(lines) if found else ""


def _draws(cells: Cells, name: str) -> np.ndarray:
    return cells.units(name)["draws"]


def _over(differences: np.ndarray) -> Interval:
    means = np.random.default_rng(0).choice(differences, (2000, len(differences))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Interval(float(differences.mean()), float(low), float(high))


def _signed(value: Any) -> str:
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"
