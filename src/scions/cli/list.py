"""`scions list`: the adapters there are."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from scions.cli.options import AdaptersFolder


def list_(
    adapters: AdaptersFolder = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show the adapters there are: base, method, scores, verdict; broken ones with what is wrong.

    \b
    Example:
      scions list
      scions list --json | jq '.[].name'
    """
    from scions.store import default_root, list_adapters

    place = adapters or default_root()
    rows = [_described(entry) for entry in list_adapters(place)]
    if json:
        import json as format

        typer.echo(format.dumps(rows, indent=2, ensure_ascii=False))
        return
    from scions.cli.render import outcome, percent, print_line, print_table, size, table

    if not rows:
        print_line(f"{place} holds no adapters. Train one: scions train --data FILE --name NAME")
        return
    headings = ("adapter", "base", "method", "trained", "score", "before", "after", "verdict", "created", "size")
    good = [row for row in rows if row["problem"] is None]
    if good:
        cells = (
            (
                row["name"],
                row["base"],
                f"{row['method']}, query-side" if row["query_side"] else row["method"],
                percent(row["trainable_share"]),
                row["metric"] or "-",
                _two(row["before"]),
                _two(row["after"]),
                outcome(row["verdict"] or "-"),
                row["created"][:10],
                size(row["bytes"]),
            )
            for row in good
        )
        print_table(table(f"Adapters in {place}", headings, cells, numbers=(3, 5, 6, 9)))
    for row in rows:
        if row["problem"] is not None:
            print_line(f"{row['name']}: broken: {row['problem']}", style="red")


def headline(scores: dict[str, Any]) -> tuple[str | None, float | None, float | None, str | None]:
    """Deciding metric, before, after and verdict out of a manifest's ``scores``; None for what they do not hold."""
    metric, metrics = scores.get("metric"), scores.get("metrics")
    both = metrics.get(metric) if isinstance(metrics, dict) and isinstance(metric, str) else None
    before, after = (_value(both, side) for side in ("base", "adapter"))
    verdict = scores.get("outcome")
    return (
        metric if isinstance(metric, str) else None,
        before,
        after,
        verdict if isinstance(verdict, str) else None,
    )


def _value(both: Any, side: str) -> float | None:
    score = both.get(side) if isinstance(both, dict) else None
    value = score.get("value") if isinstance(score, dict) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _described(entry: Any) -> dict[str, Any]:
    manifest = entry.manifest
    metric, before, after, verdict = headline(manifest.scores) if manifest else (None, None, None, None)
    return {
        "name": entry.name,
        "path": str(entry.path),
        "problem": entry.problem,
        "base": manifest.base.id if manifest else None,
        "method": manifest.method if manifest else None,
        "query_side": manifest.query_side if manifest else None,
        "rank": manifest.rank if manifest else None,
        "trainable_share": manifest.trainable_share if manifest else None,
        "metric": metric,
        "before": before,
        "after": after,
        "verdict": verdict,
        "created": manifest.created if manifest else None,
        "bytes": _bytes(entry.path),
    }


def _bytes(folder: Path) -> int:
    total = 0
    for place, _, names in os.walk(folder):  # passes over what must not be read, where rglob would stop
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(place, name)).st_size
    return total


def _two(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
