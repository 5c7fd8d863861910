"""Train, dev and test by group: what hangs together stays together, and the seed decides what goes where."""

from __future__ import annotations

from collections import Counter
from random import Random

from scions.data.groups import group_rows
from scions.data.shapes import Shape, Splits, Table
from scions.errors import DataError, UsageError

CAPS = {"dev": 2000, "test": 3000}  # rows; more would make every check slower and hardly surer
FEWEST_ROWS = 20


def split(table: Table, *, seed: int = 0, dev_share: float = 0.1, test_share: float = 0.2) -> Splits:
    """Split a table by group into train, dev and test.
    Dev holds at most 2000 rows and test 3000 (the rest trains); LABELLED is stratified, so that each class
    with at least three groups stands in all three parts, even where that exceeds the caps. Raises DataError
    below 20 rows or 3 groups, UsageError for shares that leave nothing to train on.
    """
    parts, notes = hold_out(table, {"test": test_share, "dev": dev_share}, seed)
    return Splits(parts["train"], parts["dev"], parts["test"], notes)


def hold_out(table: Table, shares: dict[str, float], seed: int) -> tuple[dict[str, Table], list[str]]:
    """Take the named parts off a table by group; what is left is `train`. Raises as `split`."""
    if any(not 0 < share < 1 for share in shares.values()) or sum(shares.values()) >= 1:
        asked = ", ".join(f"{name} {share}" for name, share in shares.items())
        raise UsageError(f"shares must lie between 0 and 1 and leave something to train on; found {asked}")
    if len(table) < FEWEST_ROWS:
        raise DataError(
            f"{table.source}: {len(table)} rows; figures on held-out rows need at least {FEWEST_ROWS} rows "
            "(50 or more recommended). Add rows, or name separate files with --test and --dev"
        )
    groups, notes = group_rows(table)
    sizes = Counter(groups)
    needed = len(shares) + 1
    if len(sizes) < needed:
        raise DataError(
            f"{table.source}: all {len(table)} rows fall into {len(sizes)} group(s) that must stay together, "
            f"and {needed} are needed to hold out {' and '.join(shares)}; "
            "name separate files with --test and --dev"
        )
    targets = {name: min(CAPS[name], max(1, round(share * len(table)))) for name, share in shares.items()}
    side: dict[int, str] = {}
    if table.shape is Shape.LABELLED and table.group is None:
        side = _stratified(groups, table.columns["label"], targets, Random(seed))
    if not set(shares) <= set(side.values()):  # no class is large enough to stand on every side
        side = _greedy(sizes, targets, Random(seed))
    rows: dict[str, list[int]] = {name: [] for name in ("train", *shares)}
    for index, group in enumerate(groups):
        rows[side.get(group, "train")].append(index)
    counts = ", ".join(f"{name} {len(rows[name])}" for name in rows)
    notes.append(f"split by group with seed {seed}: {len(sizes)} groups; rows: {counts}")
    return {name: table.take(indices) for name, indices in rows.items()}, notes


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
        if name not in side.values():  # every group is larger than the part: the smallest one left makes it up
            left = [group for group in order if group not in side]
            if left:
                side[min(left, key=lambda group: sizes[group])] = name
    if set(targets) <= set(side.values()) and len(side) < len(sizes):
        return side
    # only a handful of groups: the smallest ones are held out, the largest trains
    by_size = sorted(order, key=lambda group: sizes[group])
    return dict(zip(by_size, sorted(targets, key=lambda name: targets[name]), strict=False))


def _stratified(groups: list[int], labels: list[str], targets: dict[str, int], random: Random) -> dict[int, str]:
    """The same share of each label to each part; at least one group where a label has one for every side."""
    sizes = Counter(groups)
    first_label: dict[int, str] = {}
    for group, label in zip(groups, labels, strict=True):
        first_label.setdefault(group, label)
    members: dict[str, list[int]] = {}
    for group, label in first_label.items():
        members.setdefault(label, []).append(group)
    side: dict[int, str] = {}
    for label in sorted(members):
        own = members[label]
        if len(own) <= len(targets):
            continue
        random.shuffle(own)
        rows = sum(sizes[group] for group in own)
        start = 0
        for position, name in enumerate(targets):
            # floor: rounding up over many classes would run past the caps
            want = max(1, rows * targets[name] // len(groups))
            last = len(own) - (len(targets) - position)  # leave one group for each side still to fill
            taken = 0
            while start < last and (taken == 0 or taken + sizes[own[start]] <= want):
                side[own[start]] = name
                taken += sizes[own[start]]
                start += 1
    return side
