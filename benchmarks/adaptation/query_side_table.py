"""Format the table of the query-side benchmark: gains with intervals, share of queries alone, speed."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
from cell_store import Cells, write_text

from adaptation.query_side_cells import SIDES
from adaptation.query_side_speed import SPEED_SIDES
from adaptation.records import evaluation
from scions.evaluation import Evaluation, Interval, interval, paired_difference

SAMPLES = 1000


def share_of_gain(base: Evaluation, part: Evaluation, whole: Evaluation) -> Interval | None:
    """(part - base) / (whole - base) x100, rows resampled together; None where the denominator may be 0."""
    if not paired_difference(base, whole).excludes_zero:
        return None
    rng, found = np.random.default_rng(0), []
    for _ in range(SAMPLES):
        drawn = rng.integers(base.n, size=base.n)
        b, p, w = (one.resampled(one.primary, drawn) for one in (base, part, whole))
        if w != b:
            found.append(100 * (p - b) / (w - b))
    low, high = np.percentile(found, [2.5, 97.5])
    return Interval(100 * (part.value - base.value) / (whole.value - base.value), float(low), float(high))


def write(cells: Cells) -> str:
    """Write table.md beside the cells; returns its text."""
    text = "\n".join(
        [
            "# Queries alone against both sides",
            "",
            "<!-- Written by benchmarks/query_side.py; run it again instead of changing this page. -->",
            "",
            "nDCG@10 x100 on held-out queries over all documents, with 95 % intervals; gains are paired differences to "
            "the base. Query-side embeds 0 documents anew. * the base has likely seen such data in its own training.",
            "",
            *_quality(cells),
            "",
            "Pairs a second, median of rounds in which the sides take turns; in brackets the ratio to "
            "sentence-transformers' full fine-tuning in fp32 on the same pairs (lowest to highest). With preparation: "
            "the documents' vectors computed once, and everything else the call does.",
            "",
            *_speed(cells),
            "",
        ]
    )
    cells.folder.mkdir(parents=True, exist_ok=True)
    write_text(cells.folder / "table.md", text)
    return text


def _quality(cells: Cells) -> list[str]:
    lines = [
        "| domain | documents | base | query-side | gain | two-sided | gain | share of the two-sided gain, % |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, domain in SIDES.items():
        cell_names = [f"final-{name}-base", f"final-{name}-query-side-seed0", f"final-{name}-two-sided-seed0"]
        if not all(cells.has(cell) for cell in cell_names) or any(cells.load(c)["score"] is None for c in cell_names):
            continue
        base, alone, both = (evaluation(cells, cell)[0] for cell in cell_names)
        share = share_of_gain(base, alone, both)
        documents = cells.load(f"index-{name}")["documents"] if cells.has(f"index-{name}") else "-"
        row = [
            name + ("*" if domain.seen else ""),
            documents,
            interval(base),
            interval(alone),
            _signed(paired_difference(base, alone)),
            interval(both),
            _signed(paired_difference(base, both)),
            "two-sided gain may be 0" if share is None else f"{share.value:.0f} [{share.low:.0f}, {share.high:.0f}]",
        ]
        lines.append(f"| {' | '.join(map(str, row))} |")
    return lines


def _speed(cells: Cells) -> list[str]:
    lines = ["| domain | side | batch | steps alone | with preparation | rounds |", "|---|---|---|---|---|---|"]
    found: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for cell in cells.all("speed"):
        found.setdefault((cell["domain"], cell["side"]), {})[cell["round"]] = cell
    for name in SIDES:
        theirs = found.get((name, "sentence-transformers"), {})
        for side in SPEED_SIDES:
            ours = found.get((name, side), {})
            rounds = sorted(set(ours) & set(theirs))
            if not rounds:
                continue
            columns = []
            for key in ("pairs_per_second", "pairs_per_second_with_preparation"):
                ratios = [ours[turn][key] / theirs[turn][key] for turn in rounds]
                median = statistics.median(ours[turn][key] for turn in rounds)
                spread = f"{statistics.median(ratios):.1f}x, {min(ratios):.1f} to {max(ratios):.1f}"
                columns.append(f"{median:.1f}" + ("" if side == "sentence-transformers" else f" ({spread})"))
            batch = ours[rounds[0]]["batch_size"]
            lines.append(f"| {name} | {side} | {batch} | {columns[0]} | {columns[1]} | {len(rounds)} |")
    return lines


def _signed(value: Interval) -> str:
    return f"{value.value:+.2f} [{value.low:+.2f}, {value.high:+.2f}]"
