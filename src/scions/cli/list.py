"""`scions list`: list the adapters of a folder."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from scions.cli.options import AdaptersFolder
from scions.store import AdapterEntry, disk_errors


def list_(
    adapters: AdaptersFolder = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List adapters with base, method, scores and verdict, and broken ones with their problem.

    \b
    Example:
      scions list
      scions list --json | jq '.[].name'
    """
    from scions.store import default_root, list_adapters

    place = adapters or default_root()
    rows = [_row(entry) for entry in list_adapters(place)]
    if json:
        import json as format

        typer.echo(format.dumps(rows, indent=2, ensure_ascii=False))
        return
    from scions.cli.render import figure, outcome, percent, print_line, print_table, size

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
                figure(row["before"]),
                figure(row["after"]),
                outcome(row["verdict"] or "-"),
                row["created"][:10],
                size(row["bytes"]),
            )
            for row in good
        )
        print_table(f"Adapters in {place}", headings, cells, numbers=(3, 5, 6, 9))
    for row in rows:
        if row["problem"] is not None:
            print_line(f"{row['name']}: broken: {row['problem']}", style="red")


def _row(entry: AdapterEntry) -> dict[str, Any]:
    """Return what is listed of an adapter; None for what a broken one does not hold."""
    manifest = entry.manifest
    scores = manifest.scores if manifest else {}
    metric = _item(scores, "metric", str)
    both = _item(_item(scores, "metrics", dict), metric, dict)
    before, after = (_item(_item(both, side, dict), "value", (int, float)) for side in ("base", "adapter"))
    return {
        "name": entry.name,
        "path": str(entry.path),
        "problem": entry.problem,
        "base": manifest.base.id if manifest else None,
        **{key: getattr(manifest, key, None) for key in ("method", "query_side", "rank", "trainable_share")},
        "metric": metric,
        "before": None if before is None else float(before),
        "after": None if after is None else float(after),
        "verdict": _item(scores, "outcome", str),
        "created": manifest.created if manifest else None,
        "bytes": disk_errors.folder_size(entry.path),
    }


def _item(mapping: Any, key: Any, kind: type | tuple[type, ...]) -> Any:
    """Return an item of that type, else None: scores in a manifest may hold anything."""
    value = mapping.get(key) if isinstance(mapping, dict) else None
    return value if isinstance(value, kind) and not isinstance(value, bool) else None
