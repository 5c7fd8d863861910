"""What a training shows: its plan with reasons, its result with intervals, queries before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from scions.cli.render import (
    duration,
    figure,
    outcome,
    percent,
    print_line,
    print_note,
    print_table,
    shortened,
    signed,
    size,
    table,
)

_EXAMPLES = 5


@dataclass(frozen=True)
class Ended:
    """How one of several trainings ended."""

    name: str
    result: Any = None
    error: Exception | None = None
    code: int = 0


def print_plan(name: str, plan: Any, dry_run: bool = False) -> None:
    """The recipe with its reasons; of a dry run, also what it would take."""
    recipe, reasons = plan.recipe, plan.recipe.reasons
    parts = ", ".join(f"{count} {part}" for part, count in plan.rows.items())
    rows: list[Sequence[str]] = [
        ("base", plan.base, ""),
        ("shape", plan.shape, reasons.get("shape", "")),
        ("rows", parts, ""),
        ("objective", recipe.objective, reasons.get("objective", "")),
        ("method", plan.method, f"{plan.trainable_parameters:,} parameters trained"),
        ("rank", str(plan.rank) if plan.rank else "-", f"{percent(plan.trainable_share)} of the base is trained"),
        ("batch size", str(recipe.batch_size), reasons.get("batch_size", "")),
        ("learning rate", f"{recipe.learning_rate:g}", reasons.get("learning_rate", "")),
        ("epochs", f"{recipe.epochs:g}", reasons.get("epochs", "")),
        ("max length", f"{recipe.max_length} tokens", reasons.get("max_length", "")),
        ("steps", str(plan.steps), ""),
    ]
    if plan.truncated:
        rows.append(("truncated", f"{plan.truncated} texts", "longer than max length: cut there"))
    if plan.seconds is not None:
        rows.append(("time", f"about {duration(plan.seconds)}", "estimated"))
    if plan.memory_bytes is not None:
        rows.append(("memory", f"about {size(plan.memory_bytes)}", "estimated"))
    print_table(table(f"Recipe for {name}", ("setting", "value", "reason"), rows))
    for note in plan.notes:
        print_note(note)
    if dry_run:
        print_line("Nothing was trained (--dry-run).")


def print_result(result: Any) -> None:
    """Base against adapter on held-out rows, what it cost, example queries, and the verdict last."""
    verdict = result.verdict
    rows: list[Sequence[Any]] = []
    for metric, base, adapter in result.metrics:
        deciding = metric == verdict.metric
        difference = signed(verdict.difference) if deciding else signed(adapter.value - base.value)
        rows.append((Text(metric, style="bold" if deciding else ""), figure(base), figure(adapter), difference))
    for rival, score in (verdict.rivals or {}).items():
        rows.append((f"{verdict.metric}, {rival}", "", figure(score), signed(score.value - verdict.base.value)))
    if verdict.general:
        before, after = verdict.general["before"], verdict.general["after"]
        change = signed(_number(after) - _number(before))
        rows.append((f"general: {verdict.general['metric']}", figure(before), figure(after), change))
    if verdict.drift is not None:
        rows.append(("drift (100: unchanged)", "", figure(verdict.drift), ""))
    headings = ("held-out rows, 95 % intervals", "base", "adapter", "difference")
    print_table(table(f"{result.name}: base against adapter", headings, rows, numbers=(1, 2, 3)))
    _print_examples(result.examples)
    for note in result.notes:
        print_note(note)
    cut = f", {result.truncated} texts cut" if result.truncated else ""
    rank = f", rank {result.rank}" if result.rank else ""
    print_line(
        f"Trained {percent(result.trainable_share)} of the parameters{rank} in {duration(result.seconds)} "
        f"({result.rows_per_second:.0f} rows/s{cut})."
    )
    print_line(f"Published in {result.path}" if result.path else "Not published; --force would keep it.")
    print_line(f"{verdict.outcome}: {verdict.summary}", style=f"bold {outcome(verdict.outcome).style}")


def print_summary(ended: Sequence[Ended]) -> None:
    """One row for each of several trainings."""
    rows: list[Sequence[Any]] = []
    for one in ended:
        if one.error is not None:
            rows.append((one.name, "", "", "", "", Text("failed", style="red"), shortened(str(one.error), 60)))
            continue
        verdict = one.result.verdict
        where = str(one.result.path) if one.result.path else "not published"
        judged = outcome(verdict.outcome)
        figures = (figure(verdict.base), figure(verdict.adapter), signed(verdict.difference))
        rows.append((one.name, verdict.metric, *figures, judged, where))
    headings = ("adapter", "metric", "base", "adapted", "difference", "verdict", "where")
    print_table(table("All trainings", headings, rows, numbers=(2, 3, 4)))


def _print_examples(examples: Sequence[tuple[str, str, str, str | None, bool, bool]]) -> None:
    if not examples:
        return
    rows = []
    for query, before, after, right, before_right, after_right in examples[:_EXAMPLES]:
        sought = shortened(right) if right is not None and not (before_right or after_right) else ""
        rows.append((shortened(query), _hit(before, before_right), _hit(after, after_right), sought))
    headings = ["query", "first hit of the base", "first hit with the adapter", "right would be"]
    if not any(row[3] for row in rows):
        headings, rows = headings[:3], [row[:3] for row in rows]  # type: ignore[misc]
    print_table(table("Held-out queries before and after", headings, rows))


def _hit(text: str, right: bool) -> Text:
    style = "green" if right else "red"
    return Text.assemble(("right: " if right else "wrong: ", style), shortened(text))


def _number(value: Any) -> float:
    return float(getattr(value, "value", value))
