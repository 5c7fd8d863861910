"""Split a table into train, dev and test by group, and labelled rows label by label."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from random import Random

from scions.data.files import shorten
from scions.data.groups import group_rows
from scions.data.shapes import Shape, Splits, Table
from scions.errors import DataError, UsageError

CAPS = {"dev": 2000, "test": 3000}  # rows; more would make every check slower and hardly more certain
FEWEST_ROWS = 20
# Plain texts are scored by their halves, which takes this many texts of this many words in each held-out part.
PLAIN_TEXTS, PLAIN_WORDS = 20, 8
FEWEST_PLAIN_ROWS = 4 * PLAIN_TEXTS  # dev, test, and at least as much to train
_TO_TRAIN = 2  # groups of each label that train: a single row has nothing to be near to


def split(table: Table, *, seed: int = 0, dev_share: float = 0.1, test_share: float = 0.2) -> Splits:
    """Split a table by group into train, dev and test.

    Dev holds at most 2000 rows and test 3000 (the rest trains); of TEXTS they hold at least 20 of 8 words or more,
    where that leaves half to train. LABELLED is split label by label (see `stratify`).

    Args:
        table: the rows.
        seed: decides what goes where.
        dev_share: share of the rows, 0 to 1.
        test_share: likewise.

    Raises:
        DataError: fewer than 20 rows or 3 groups, or labels of too few rows.
        UsageError: shares that leave nothing to train on.
    """
    parts, notes = split_by_shares(table, {"test": test_share, "dev": dev_share}, seed)
    return Splits(parts["train"], parts["dev"], parts["test"], notes)


def split_by_shares(table: Table, shares: dict[str, float], seed: int) -> tuple[dict[str, Table], list[str]]:
    """Split the named shares off a table by group; the rest is `train`. Return parts and notes. Raises as `split`."""
    if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        listed = ", ".join(f"{name} {share}" for name, share in shares.items())
        raise UsageError(f"shares must lie between 0 and 1 and leave something to train on; found {listed}")
    if len(table) < FEWEST_ROWS:
        raise DataError(
            f"{table.source}: {len(table)} rows; figures on held-out rows need at least {FEWEST_ROWS} rows "
            "(50 or more recommended). Add rows, or name separate files with `test=...` and `dev=...`"
        )
    groups, notes = group_rows(table)
    sizes = Counter(groups)
    needed = len(shares) + 1
    if len(sizes) < needed:
        raise DataError(
            f"{table.source}: all {len(table)} rows fall into {len(sizes)} group(s) that must stay together, "
            f"and {needed} are needed to hold out {' and '.join(shares)}; "
            "name separate files with `test=...` and `dev=...`"
        )
    targets = {name: min(CAPS[name], max(1, round(share * len(table)))) for name, share in shares.items()}
    if table.shape is Shape.TEXTS:
        targets = _enough_to_halve(table, targets)
    if table.shape is Shape.LABELLED and table.group is None:
        side = stratify(groups, table.columns["label"], targets, Random(seed))
        if not side:
            raise _labels_too_small(table, list(shares))
    else:
        side = _greedy(sizes, targets, Random(seed))
    rows: dict[str, list[int]] = {name: [] for name in ("train", *shares)}
    for index, group in enumerate(groups):
        rows[side.get(group, "train")].append(index)
    counts = ", ".join(f"{name} {len(rows[name])}" for name in rows)
    notes.append(f"split by group with seed {seed}: {len(sizes)} groups; rows: {counts}")
    return {name: table.take(indices) for name, indices in rows.items()}, notes


def _enough_to_halve(table: Table, targets: dict[str, int]) -> dict[str, int]:
    """Raise the targets to what plain texts need, where that leaves at least half of them to train."""
    long = sum(len(text.split()) >= PLAIN_WORDS for text in table.columns["text"]) / len(table)
    if not long:
        return targets
    # With short texts among them, half as many again: the number of long ones in a part is random.
    need = math.ceil(PLAIN_TEXTS / long * (1.0 if long == 1 else 1.5))
    raised = {name: max(target, min(need, CAPS[name])) for name, target in targets.items()}
    return raised if 2 * sum(raised.values()) <= len(table) else targets


def _labels_too_small(table: Table, parts: list[str]) -> DataError:
    counts = Counter(table.columns["label"])
    small = [f"{label!r} ({count})" for label, count in counts.items() if count < 4]
    some = f"; too small: {shorten(small)}" if small else ""
    return DataError(
        f"{table.source}: {len(table)} rows of {len(counts)} labels cannot be split: a label needs 4 rows, 2 to train "
        f"and 1 each for dev and test, and a part at least two labels and two rows of one{some}. "
        f"Add rows, name separate files with {' and '.join(f'`{part}=...`' for part in parts)}, or leave the labels "
        "out with `shape='texts'`"
    )


def _greedy(sizes: Counter[int], targets: dict[str, int], random: Random) -> dict[int, str]:
    """Fill each part with whole groups in random order, never beyond its target."""
    order = sorted(sizes)
    random.shuffle(order)
    room = dict(targets)
    side: dict[int, str] = {}
    for group in order:
        for name in room:
            if sizes[group] <= room[name]:
                side[group] = name
                room[name] -= sizes[group]
                break
    for name in targets:
        if name not in side.values():  # every group is larger than the part: take the smallest one left
            left = [group for group in order if group not in side]
            if left:
                side[min(left, key=lambda group: sizes[group])] = name
    if set(targets) <= set(side.values()) and len(side) < len(sizes):
        return side
    # only a few groups: the smallest ones are held out, the largest trains
    by_size = sorted(order, key=lambda group: sizes[group])
    return dict(zip(by_size, sorted(targets, key=lambda name: targets[name]), strict=False))


def stratify(groups: Sequence[int], labels: Sequence[str], targets: dict[str, int], random: Random) -> dict[int, str]:
    """Return the part of each group that is held out; the others train. Empty where the labels are too small.

    Every label gives its share to each part. A single row of a label cannot show whether its texts lie together, so
    labels whose share is less than two rows take turns in giving two. Where nearly all have fewer than 4 rows, whole
    labels are held out.

    Args:
        groups: of each row.
        labels: of each row.
        targets: number of rows in each held-out part.
        random: decides what goes where.
    """
    sizes = Counter(groups)
    first_label: dict[int, str] = {}
    for group, label in zip(groups, labels, strict=True):
        first_label.setdefault(group, label)
    members: dict[str, list[int]] = {}
    for group, label in first_label.items():
        members.setdefault(label, []).append(group)
    # Small labels first may leave a part with one label; then the large ones come first.
    for order in (sorted(members), sorted(members, key=lambda label: (-len(members[label]), label))):
        side = _take_shares(order, members, sizes, targets, random)
        if side:
            return side
    return _hold_out_labels(members, sizes, targets, random)


def _take_shares(
    order: list[str],
    members: dict[str, list[int]],
    sizes: Counter[int],
    targets: dict[str, int],
    random: Random,
) -> dict[int, str]:
    total = sum(sizes.values())
    side: dict[int, str] = {}
    held: dict[str, list[int]] = {name: [] for name in targets}  # rows of each label in the part
    owed = dict.fromkeys(targets, 0.0)
    for label in order:
        of_label = members[label]
        if len(of_label) <= _TO_TRAIN:
            continue
        random.shuffle(of_label)
        rows = sum(sizes[group] for group in of_label)
        start, last = 0, len(of_label) - _TO_TRAIN
        for name in targets:
            share = rows * targets[name] / total
            if share < 2:
                owed[name] += share
            others = sum(len(counts) < 2 for other, counts in held.items() if other != name)
            target = _rows_to_take(share, owed[name], held[name], last - start, others)
            taken = 0
            while target and start < last and (taken == 0 or taken + sizes[of_label[start]] <= target):
                side[of_label[start]] = name
                taken += sizes[of_label[start]]
                start += 1
            if taken:
                held[name].append(taken)
                owed[name] -= taken if share < 2 else 0
    return side if all(len(counts) > 1 and max(counts) > 1 for counts in held.values()) else {}


def _rows_to_take(share: float, owed: float, held: list[int], spare: int, others: int) -> int:
    """Return how many rows of a label a part takes: its share, or two in turn or where the part has too few labels."""
    if share >= 2:
        return int(share)
    if len(held) < 2:
        return max(1, min(2, spare - others))
    return 2 if spare >= 2 and (owed >= 2 or max(held) < 2) else 0


def _hold_out_labels(
    members: dict[str, list[int]], sizes: Counter[int], targets: dict[str, int], random: Random
) -> dict[int, str]:
    labels = [label for label in sorted(members) if len(members[label]) >= 2]
    random.shuffle(labels)
    side: dict[int, str] = {}
    for name, target in targets.items():
        rows = count = 0
        while labels and (count < 2 or rows + sum(sizes[group] for group in members[labels[-1]]) <= target):
            groups = members[labels.pop()]
            side.update(dict.fromkeys(groups, name))
            rows, count = rows + sum(sizes[group] for group in groups), count + 1
    return side if len(labels) >= 2 else {}
