"""Write results.json, table.md and a scatter plot from the cells."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from adaptation.records import provenance
from cell_store import Cells, write_text
from scipy.stats import pearsonr, spearmanr

FEATURES = {
    "signs": "fraction of sign difference",
    "signs_up": "the same, `up` projections only",
    "signs_updates": "the same, of the updates",
    "weight_cosine": "cosine of the weights",
    "update_cosine": "cosine of the updates",
    "effect_cosine": "cosine of what they do to similarities",
    "domain_cosine": "cosine of the domains' means",
    "update_size": "size of the updates",
}
DRAWS = 1000
CLEAR = 2.5


def write(cells: Cells, folder: Path) -> str:
    """Write all three; returns the table."""
    mixtures = [cell for cell in cells.all("uniform") if _mean(cell) is not None]
    singles = cells.all("single")
    results = {
        "provenance": provenance(),
        "adapters": singles,
        "correlations": correlations(mixtures, {one["domain"] for one in singles if _clear(one["gain"])}),
        "starts": cells.all("apart"),
        "greedy": cells.all("greedy"),
        "novel": cells.all("novel"),
        "routing": cells.load("routing") if cells.has("routing") else None,
        "pruned": cells.all("pruned"),
        "speed": cells.load("speed") if cells.has("speed") else None,
        "mixtures": len(mixtures),
    }
    text = _table(results)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "results.json", json.dumps(results, indent=1) + "\n")
    write_text(folder / "table.md", text)
    if mixtures:
        _scatter(mixtures, folder / "signs.png")
    return text


def _clear(gain: Sequence[float]) -> bool:
    """Whether a gain is `CLEAR` standard errors or more: a share of a smaller one is mostly noise."""
    value, low, high = gain
    return value >= CLEAR * (high - low) / 3.92


def correlations(mixtures: Sequence[dict[str, Any]], clear: set[str]) -> list[dict[str, Any]]:
    """Of every feature with the mean retained gain, by size: pooled, of members with clear gains, and by kind."""
    rows = []
    groups: dict[str, Callable[[dict[str, Any]], bool]] = {"pooled": lambda cell: True}
    groups["clear gains"] = lambda cell: clear.issuperset(cell["members"])
    for kind in sorted({kind for cell in mixtures for kind in cell["kinds"]}):
        groups[kind] = lambda cell, kind=kind: cell["kinds"] == [kind]
    groups["different kinds"] = lambda cell: len(cell["kinds"]) > 1
    for size in sorted({cell["size"] for cell in mixtures}):
        for group, belongs in groups.items():
            some = [cell for cell in mixtures if cell["size"] == size and belongs(cell)]
            if len(some) < 6:
                continue
            kept = np.array([_mean(cell) for cell in some], dtype=float)
            for feature in FEATURES:
                x = np.array([cell["features"][feature] for cell in some])
                rows.append(
                    {"size": size, "group": group, "n": len(some), "feature": feature} | _related(x, kept, some)
                )
    return rows


def _related(x: np.ndarray, y: np.ndarray, cells: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Pearson and Spearman. Adapters are drawn, not mixtures: two that share an adapter are not independent."""
    names = sorted({name for cell in cells for name in cell["members"]})
    rng, found = np.random.default_rng(0), {"pearson": [], "spearman": []}
    for _ in range(DRAWS):
        count = np.bincount(rng.integers(len(names), size=len(names)), minlength=len(names))
        times = [int(np.prod([count[names.index(name)] for name in cell["members"]])) for cell in cells]
        rows = np.repeat(np.arange(len(cells)), times)
        if len(set(rows.tolist())) < 4 or np.ptp(x[rows]) == 0 or np.ptp(y[rows]) == 0:
            continue
        found["pearson"].append(pearsonr(x[rows], y[rows]).statistic)
        found["spearman"].append(spearmanr(x[rows], y[rows]).statistic)
    values = {"pearson": pearsonr(x, y).statistic, "spearman": spearmanr(x, y).statistic}
    return {
        name: [float(value), *(float(b) for b in np.nanpercentile(found[name], [2.5, 97.5]))]
        if found[name]
        else [float(value)]
        for name, value in values.items()
    }


def _mean(cell: dict[str, Any]) -> float | None:
    kept = [value for value in cell["retained"].values() if value is not None]
    return float(np.mean(kept)) if len(kept) == cell["size"] else None


def _scatter(mixtures: Sequence[dict[str, Any]], path: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for size, marker in ((2, "o"), (3, "^"), (4, "s")):
        for inside, colour in ((True, "#2f855a"), (False, "#c05621")):
            some = [cell for cell in mixtures if cell["size"] == size and (len(cell["kinds"]) == 1) == inside]
            label = f"{size} of {'one kind' if inside else 'different kinds'}"
            x, y = [c["features"]["signs"] for c in some], [_mean(c) for c in some]
            axes.scatter(x, y, marker=marker, color=colour, alpha=0.7, s=28, label=label)
    axes.axhline(1, linestyle=":", color="#9aa5b1")
    axes.axhline(0, linestyle=":", color="#9aa5b1")
    axes.set_xlabel("set-wise fraction of sign difference")
    axes.set_ylabel("mean retained gain of the members")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)


def _table(results: dict[str, Any]) -> str:
    lines = [
        "# Combining adapters",
        "",
        "Written by benchmarks/mixing.py. Scores x100; brackets are 95 % intervals.",
        "",
    ]
    lines += ["## Adapters", "", "| domain | kind | metric | base | own adapter | gain |", "|---|---|---|---|---|---|"]
    for one in results["adapters"]:
        lines.append(
            f"| {one['domain']} | {one['kind']} | {one['metric']} | {one['base']:.2f} | {one['own']:.2f} | "
            f"{_interval(one['gain'], 2)}{'' if one['counts'] else ' (counts for nothing below)'} |"
        )
    lines += ["", f"## What tells how much a mixture keeps ({results['mixtures']} uniform mixtures)", ""]
    lines += ["| members | within | mixtures | what | Pearson | Spearman |", "|---|---|---|---|---|---|"]
    for row in results["correlations"]:
        cells = (row["size"], row["group"], row["n"], FEATURES[row["feature"]])
        lines.append(f"| {' | '.join(map(str, cells))} | {_interval(row['pearson'])} | {_interval(row['spearman'])} |")
    if results["starts"]:
        lines += _starts(results["starts"])
    if results["greedy"]:
        ways = list(results["greedy"][0]["kept"])
        lines += ["", "## Greedy mixing: mean share of the members' own gains that is kept", ""]
        lines += [f"| target | members | {' | '.join(ways)} | least of greedy's |", "|---" * (len(ways) + 3) + "|"]
        for one in results["greedy"]:
            least = min((v for v in one["of_each"].values() if v is not None), default=float("nan"))
            members = " ".join(one["members"]) + ("" if one["size"] > 1 else " (no mixture holds)")
            lines.append(_greedy_row(one, ways, members, least))
        mixed = [one for one in results["greedy"] if one["size"] > 1]
        if mixed:
            means = [float(np.mean([one["kept"][way] for one in mixed])) for way in ways]
            lines.append(f"| mean of {len(mixed)} mixtures | | {' | '.join(f'{m:.3f}' for m in means)} | |")
    if results["novel"]:
        lines += ["", "## A domain without an adapter", ""]
        lines += [
            "| domain | base | most similar adapter | soup (mixture) | soup (cosine) | its own | texts of no domain |",
            "|---|---|---|---|---|---|---|",
        ]
        for one in results["novel"]:
            lines.append(
                f"| {one['domain']} | {one['base']:.2f} | {one['single']['adapter']} {one['single']['score']:.2f} | "
                f"{_soup(one['mixture'])} | {_soup(one['cosine'])} | {one['own']:.2f} | {one['of_no_domain']:.2f} |"
            )
        lines.append(_novel_mean(results["novel"]))
    if results["routing"]:
        lines += _routing(results["routing"])
    if results["pruned"]:
        lines += [
            "",
            "## Pruned",
            "",
            "| domain | strategy | sparsity | bytes | share of the gain kept |",
            "|---|---|---|---|---|",
        ]
        for one in results["pruned"]:
            cells = (one["domain"], one["strategy"], f"{one['sparsity']:.3f}", f"{one['bytes']:.3f}x")
            lines.append(f"| {' | '.join(cells)} | {_interval(one['kept'], 3)} |")
    if results["speed"]:
        lines += ["", "| speed | texts a second | to the whole adapter |", "|---|---|---|"]
        for side, one in results["speed"]["sides"].items():
            spread = f"{one['to_whole']:.3f} [{one['spread'][0]:.3f}, {one['spread'][1]:.3f}]"
            lines.append(f"| {side} | {one['texts_per_second']:.0f} | {spread} |")
    return "\n".join(lines) + "\n"


def _starts(pairs: Sequence[dict[str, Any]]) -> list[str]:
    lines = ["", f"## First weights in common or not ({len(pairs)} uniform pairs)", ""]
    lines += ["| first weights | fraction of sign difference | mean retained gain |", "|---|---|---|"]
    for name, way in (("in common", "together"), ("each its own", "apart")):
        signs = np.mean([one[f"signs_{way}"] for one in pairs])
        kept = np.mean([value for one in pairs for value in one[f"kept_{way}"].values()])
        lines.append(f"| {name} | {signs:.3f} | {kept:.2f} |")
    return lines


def _greedy_row(one: dict[str, Any], ways: list[str], members: str, least: float) -> str:
    shown = " | ".join(f"{one['kept'][way]:.3f}" for way in ways)
    return f"| {one['target']} | {members} | {shown} | {least:.3f} |"


def _soup(one: dict[str, Any]) -> str:
    return f"{one['score']:.2f} ({len(one['weights'])})"


def _novel_mean(novel: Sequence[dict[str, Any]]) -> str:
    base, single = ([one["base"] for one in novel], [one["single"]["score"] for one in novel])
    cells = [f"{np.mean(base):.2f}", f"{np.mean(single):.2f}"]
    for by in ("mixture", "cosine"):
        soup = [one[by]["score"] for one in novel]
        wins = sum(a >= b for a, b in zip(soup, single, strict=True))
        over = sum(a >= b for a, b in zip(soup, base, strict=True))
        cells.append(f"{np.mean(soup):.2f}; not below single in {wins}, base in {over} of {len(novel)}")
    return f"| mean | {' | '.join(cells)} | {np.mean([one['own'] for one in novel]):.2f} | |"


def _routing(record: dict[str, Any]) -> list[str]:
    lines = [
        "",
        "## Routing",
        "",
        "| texts a decision | right | mean confidence | calibration error | STS to the base |",
        "|---|---|---|---|---|",
    ]
    for size in ("1", "20"):
        one = record[size]
        cells = (one["mean_right"], one["mean_confidence"], one["calibration_error"], one["mean_to_base"])
        lines.append(f"| {size} | {' | '.join(f'{cell:.3f}' for cell in cells)} |")
    regression = np.mean(list(record["regression"].values()))
    lines += [
        "",
        f"A logistic regression on texts of all domains, none of them the base: {regression:.3f} of single texts.",
    ]
    lines += ["", "| domain | right of 1 | right of 20 | routed score | own adapter |", "|---|---|---|---|---|"]
    for name, routed in record["routed"].items():
        right = [f"{record[size]['right'][name]:.3f}" for size in ("1", "20")]
        lines.append(f"| {name} | {' | '.join(right)} | {routed['score']:.2f} | {routed['own']:.2f} |")
    return lines


def _interval(values: Sequence[float], digits: int = 2) -> str:
    if len(values) < 3:
        return f"{values[0]:.{digits}f}"
    return f"{values[0]:.{digits}f} [{values[1]:.{digits}f}, {values[2]:.{digits}f}]"
