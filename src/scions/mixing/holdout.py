"""Rows that choose and rows that judge, and what an adapter made of others is worth on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scions.data import Table, read, read_splits
from scions.data.leaks import drop_shared_rows
from scions.data.splits import split_by_shares
from scions.errors import DataError, UsageError
from scions.evaluation import Evaluation, Interval, evaluate, interval, paired_difference
from scions.mixing.trial import AdaptedEncoder


@dataclass(frozen=True)
class HoldoutRows:
    """``choosing`` may settle things; ``judging`` settles nothing and is scored once. Neither shares a row."""

    choosing: Table
    judging: Table


@dataclass(frozen=True)
class Measured:
    """One table's figures, x100 with 95 % intervals.

    ``members`` and ``result`` are scores; ``difference`` is the result's to the base, ``to_best`` to the best member.
    """

    source: str
    metric: str
    base: Interval
    members: dict[str, Interval]
    result: Interval
    difference: Interval
    to_best: Interval | None


def read_rows(
    data: Sequence[str | Path], test: Sequence[str | Path], *, chooses: bool, seed: int = 0, shape: str | None = None
) -> list[HoldoutRows]:
    """A pair of tables for each file of ``data``.

    With a file of ``test`` for each, those judge, and what stands in them too chooses nothing. Otherwise a folder's (or
    the built-in corpus') dev part chooses and its test part judges; of a single file, where something is to be chosen,
    one half by group does either, and where nothing is, the whole file judges.

    Raises:
        UsageError: another number of ``test`` files than of ``data``.
        DataError: a file that cannot be read, is too small to be halved, or has no row to choose by but those that
            judge.
    """
    if test and len(test) != len(data):
        raise UsageError(f"each --data needs its --test: found {len(data)} --data and {len(test)} --test")
    found = []
    for place, given in enumerate(data):
        path = str(given)
        if test:
            choosing = read(path, shape=shape, part="dev" if Path(path).is_dir() else None)
            judge = str(test[place])
            judging = read(judge, shape=shape, part="test" if Path(judge).is_dir() else None)
            choosing = drop_shared_rows(choosing, judging)[0] if chooses else choosing
            if not len(choosing):
                raise DataError(f"{path}: every row also stands in {judge}; rows that choose must not judge")
            found.append(HoldoutRows(choosing, judging))
        elif Path(path).is_dir() or (path.partition(":")[0] == "docstrings" and not Path(path).exists()):
            splits = read_splits(path, shape=shape, seed=seed)
            found.append(HoldoutRows(splits.dev, splits.test))
        else:
            table = read(path, shape=shape)
            if not chooses:
                found.append(HoldoutRows(table, table))
                continue
            parts, _ = split_by_shares(table, {"test": 0.5}, seed)
            found.append(HoldoutRows(parts["train"], parts["test"]))
    return found


def measure(
    rows: Sequence[HoldoutRows], base: AdaptedEncoder, members: Mapping[str, AdaptedEncoder], result: AdaptedEncoder
) -> list[tuple[Measured, Evaluation, Evaluation]]:
    """Score everything on the judging rows; with each `Measured` the evaluations of base and result."""
    found = []
    for one in rows:
        table = one.judging
        before, after = evaluate(base, table), evaluate(result, table)
        scored = {name: evaluate(encoder, table) for name, encoder in members.items()}
        best = max(scored.values(), key=lambda e: e.value, default=None)
        measured = Measured(
            source=Path(table.source).name,
            metric=before.primary,
            base=interval(before),
            members={name: interval(e) for name, e in scored.items()},
            result=interval(after),
            difference=paired_difference(before, after),
            to_best=None if best is None else paired_difference(best, after),
        )
        found.append((measured, before, after))
    return found
