"""Held-out rows of a mixture or pruned adapter: dev rows to choose by, test rows to score on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scions.data import Table, read, read_splits
from scions.data.leaks import drop_shared_rows
from scions.data.splits import split_by_shares
from scions.errors import DataError, UsageError
from scions.evaluation import Interval, evaluate, interval, paired_difference
from scions.evaluation.verdict import Verdict, judge
from scions.mixing.trial import AdaptedEncoder


@dataclass(frozen=True)
class HoldoutRows:
    """``dev`` may choose members and weights; ``test`` chooses nothing and is scored once. They share no row."""

    dev: Table
    test: Table


@dataclass(frozen=True)
class HoldoutScores:
    """Scores on one table of test rows, x100 with 95 % intervals.

    ``members`` and ``result`` are scores; ``difference`` is the result's to the base, ``to_best`` to the best member.
    """

    source: str
    metric: str
    base: Interval
    members: dict[str, Interval]
    result: Interval
    difference: Interval
    to_best: Interval | None


def check_row_options(data: object, shape: str | None, base: str | None) -> None:
    """Raise UsageError where options of rows are given without rows."""
    for name, value in (("shape", shape), ("base", base)):
        if value is not None and not data:
            raise UsageError(f"`{name}=...` has no use without rows: give `data=...`")


def read_holdout(
    data: Sequence[str | Path], test: Sequence[str | Path], *, chooses: bool, seed: int = 0, shape: str | None = None
) -> list[HoldoutRows]:
    """Read dev and test rows for each of ``data``.

    With a file of ``test`` for each, those are the test rows, and rows that are also in them are left out of dev.
    Otherwise a folder or the built-in corpus has its own dev and test parts. A single file is split in halves by group
    where ``chooses``, and is test as a whole where not.

    Raises:
        UsageError: another number of ``test`` files than of ``data``.
        DataError: a file that cannot be read, is too small to be halved, or has only rows that are also in its test.
    """
    if test and len(test) != len(data):
        raise UsageError(f"each `data=...` needs its `test=...`: found {len(data)} of data and {len(test)} of test")
    held_out = []
    for i, source in enumerate(map(str, data)):
        if test:
            dev, judges = read(source, shape=shape, part="dev"), read(test[i], shape=shape, part="test")
            dev = drop_shared_rows(dev, judges)[0] if chooses else dev
            if not len(dev):
                raise DataError(f"{source}: every row also stands in {test[i]}; dev and test must not share rows")
            held_out.append(HoldoutRows(dev, judges))
        elif Path(source).is_dir() or (source.partition(":")[0] == "docstrings" and not Path(source).exists()):
            splits = read_splits(source, shape=shape, seed=seed)
            held_out.append(HoldoutRows(splits.dev, splits.test))
        else:
            table = read(source, shape=shape)
            parts = split_by_shares(table, {"test": 0.5}, seed)[0] if chooses else {"train": table, "test": table}
            held_out.append(HoldoutRows(parts["train"], parts["test"]))
    return held_out


def score_holdout(
    rows: Sequence[HoldoutRows], base: AdaptedEncoder, members: Mapping[str, AdaptedEncoder], result: AdaptedEncoder
) -> tuple[list[HoldoutScores], Verdict]:
    """Score everything on the test rows. Returns the scores of each table, and the verdict on the first."""
    scores, verdicts = [], []
    for table in (pair.test for pair in rows):
        before, after = evaluate(base, table), evaluate(result, table)
        verdict = judge(before, after)
        own = {name: evaluate(encoder, table) for name, encoder in members.items()}
        best = max(own.values(), key=lambda evaluation: evaluation.value, default=None)
        scores.append(
            HoldoutScores(
                source=Path(table.source).name,
                metric=verdict.metric,
                base=verdict.base,
                members={name: interval(evaluation) for name, evaluation in own.items()},
                result=verdict.adapter,
                difference=verdict.difference,
                to_best=None if best is None else paired_difference(best, after),
            )
        )
        verdicts.append(verdict)
    return scores, verdicts[0]
