"""Print a training: its plan with reasons, its result with intervals, example queries before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.text import Text

from scions.cli.flags import with_flags
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
)
from scions.errors import Interrupted

if TYPE_CHECKING:
    from scions.evaluation.example_queries import ExampleQuery
    from scions.training import Plan, TrainResult

_EXAMPLES = 5


@dataclass(frozen=True)
class Ended:
    """How one of several trainings ended."""

    name: str
    result: TrainResult | None = None
    error: BaseException | None = None
    code: int = 0


def print_plan(name: str, plan: Plan, dry_run: bool = False) -> None:
    """Print the recipe with its reasons and, of a dry run, estimated time and memory."""
    recipe = plan.recipe
    reasons = {setting: with_flags(reason) for setting, reason in recipe.reasons.items()}
    counts = ", ".join(f"{count} {part}" for part, count in plan.rows.items())
    rows: list[Sequence[str]] = [
        ("base", plan.base, ""),
        ("shape", plan.shape, reasons.get("shape", "")),
        ("rows", counts, ""),
        ("objective", recipe.objective, reasons.get("objective", "")),
        ("method", plan.method, f"{plan.trainable_parameters:,} parameters trained"),
        *(
            [("query-side", f"{plan.documents:,} documents", "keep the base's vectors; only queries are trained")]
            if plan.query_side
            else []
        ),
        ("rank", str(plan.rank) if plan.rank else "-", f"{percent(plan.trainable_share)} of the base is trained"),
        ("batch size", str(recipe.batch_size), reasons.get("batch_size", "")),
        ("learning rate", f"{recipe.learning_rate:g}", reasons.get("learning_rate", "")),
        ("epochs", f"{recipe.epochs:g}", reasons.get("epochs", "")),
        ("max length", f"{recipe.max_length} tokens", reasons.get("max_length", "")),
        ("preserve", recipe.preserve, reasons.get("preserve", "")),
        ("steps", str(plan.steps), ""),
    ]
    if "distillation" in recipe.preserved:
        rows.insert(-1, ("general texts", recipe.general_texts, reasons.get("general_texts", "")))
    if plan.truncated:
        rows.append(("truncated", f"{plan.truncated} texts", "longer than max length: cut there"))
    if plan.seconds is not None:
        parts = {"training": plan.seconds, "scoring": plan.scoring_seconds, "trained baselines": plan.baseline_seconds}
        known = {part: seconds for part, seconds in parts.items() if seconds is not None}
        each = ", ".join(f"{part} {duration(seconds)}" for part, seconds in known.items())
        rows.append(("time", f"about {duration(sum(known.values()))}", f"{each}; from a few steps and texts"))
    if plan.memory_bytes is not None:
        rows.append(("memory", f"at least {size(plan.memory_bytes)}", "of the whole process at its peak"))
    print_table(f"Recipe for {name}", ("setting", "value", "reason"), rows)
    for note in plan.notes:
        print_note(note)
    if dry_run:
        print_line("Nothing was trained (--dry-run).")


def print_result(result: TrainResult) -> None:
    """Print base against adapter on held-out rows, what it cost, example queries, and the verdict last."""
    from scions.evaluation import Interval

    verdict, manifest, fitted = result.verdict, result.manifest, result.fitted
    rows: list[Sequence[Any]] = []
    for metric, base, adapter in verdict.metrics:
        deciding = metric == verdict.metric
        difference = signed(verdict.difference) if deciding else signed(adapter.value - base.value)
        rows.append((Text(metric, style="bold" if deciding else ""), figure(base), figure(adapter), difference))
    for baseline, score in verdict.baselines.items():
        rows.append((f"{verdict.metric}, {baseline}", "", figure(score), signed(score.value - verdict.base.value)))
    if verdict.general is not None:
        before, after, change = (Interval(**verdict.general[key]) for key in ("before", "after", "difference"))
        rows.append((f"general: {verdict.general['metric']}", figure(before), figure(after), signed(change)))
    if verdict.drift is not None:
        rows.append(("drift (100: unchanged)", "", figure(verdict.drift), ""))
    headings = ("held-out rows, 95 % intervals", "base", "adapter", "difference")
    print_table(f"{result.name}: base against adapter", headings, rows, numbers=(1, 2, 3))
    _print_examples(result.examples)
    cut = f", {fitted.truncated} texts cut" if fitted.truncated else ""
    rank = f", rank {manifest.rank}" if manifest.rank else ""
    print_line(
        f"Trained {percent(manifest.trainable_share)} of the parameters{rank} in {duration(fitted.seconds)} "
        f"({fitted.rows_per_second:.0f} rows/s{cut})."
    )
    for sentence in verdict.reindexing.sentences if verdict.reindexing is not None else ():
        print_line(with_flags(sentence))
    print_line(f"Published in {result.path}" if result.path else "Not published; --force would keep it.")
    print_line(with_flags(verdict.summary), style=f"bold {outcome(verdict.outcome).style}")


def print_summary(ended: Sequence[Ended]) -> None:
    """Print a row for each of several trainings."""
    rows: list[Sequence[Any]] = []
    for training in ended:
        if training.result is None:
            word = "stopped" if isinstance(training.error, (Interrupted, KeyboardInterrupt)) else "failed"
            reason = shortened(with_flags(str(training.error)), 60)
            rows.append((training.name, "", "", "", "", Text(word, style="red"), reason))
            continue
        verdict, path = training.result.verdict, training.result.path
        figures = (figure(verdict.base), figure(verdict.adapter), signed(verdict.difference))
        where = str(path) if path else "not published"
        rows.append((training.name, verdict.metric, *figures, outcome(verdict.outcome), where))
    headings = ("adapter", "metric", "base", "adapted", "difference", "verdict", "where")
    print_table("All trainings", headings, rows, numbers=(2, 3, 4))


def _print_examples(examples: Sequence[ExampleQuery]) -> None:
    if not examples:
        return
    rows = []
    for example in examples[:_EXAMPLES]:
        right = "" if example.before_right or example.after_right else shortened(example.right)
        before, after = _hit(example.hit_before, example.before_right), _hit(example.hit_after, example.after_right)
        rows.append((shortened(example.query), before, after, right))
    headings = ("query", "first hit of the base", "first hit with the adapter", "right would be")
    width = 4 if any(row[3] for row in rows) else 3
    title = "Held-out queries before and after"
    print_table(title, headings[:width], [row[:width] for row in rows])


def _hit(text: str, right: bool) -> Text:
    style = "green" if right else "red"
    return Text.assemble(("right: " if right else "wrong: ", style), shortened(text))
