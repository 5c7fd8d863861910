"""Labelled rows to train, dev and test: every part holds several labels, and rows that share one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

_TO_TRAIN = 2  # groups that a label keeps: a single row attracts nothing


def by_label(groups: Sequence[int], labels: Sequence[str], targets: dict[str, int], random: Random) -> dict[int, str]:
    """The part of each group that is held out; the others train. Empty where the labels are too small for that.

    Every label gives its share of each part. One whose share is less than two rows would stand there alone, and a
    label alone says nothing about whether its texts lie together: such labels take turns in giving two. Where nearly
    all have fewer than 4 rows, whole labels are held out.

    Args:
        groups: of each row.
        labels: of each row.
        targets: rows wanted in each held-out part.
        random: decides what goes where.
    """
    sizes = Counter(groups)
    first_label: dict[int, str] = {}
    for group, label in zip(groups, labels, strict=True):
        first_label.setdefault(group, label)
    members: dict[str, list[int]] = {}
    for group, label in first_label.items():
        members.setdefault(label, []).append(group)
    # Small labels that come first may leave a part with one label; the large ones first, there is more to give.
    for order in (sorted(members), sorted(members, key=lambda label: (-len(members[label]), label))):
        side = _shares(order, members, sizes, targets, random)
        if side:
            return side
    return _whole_labels(members, sizes, targets, random)


def _shares(
    order: list[str],
    members: dict[str, list[int]],
    sizes: Counter[int],
    targets: dict[str, int],
    random: Random,
) -> dict[int, str]:
    total = sum(sizes.values())
    side: dict[int, str] = {}
    held: dict[str, list[int]] = {name: [] for name in targets}  # rows of each label that stands in the part
    owed = dict.fromkeys(targets, 0.0)
    for label in order:
        own = members[label]
        if len(own) <= _TO_TRAIN:
            continue
        random.shuffle(own)
        rows = sum(sizes[group] for group in own)
        start, last = 0, len(own) - _TO_TRAIN
        for name in targets:
            share = rows * targets[name] / total
            if share < 2:
                owed[name] += share
            others = sum(len(found) < 2 for other, found in held.items() if other != name)
            want = _wanted(share, owed[name], held[name], last - start, others)
            taken = 0
            while want and start < last and (taken == 0 or taken + sizes[own[start]] <= want):
                side[own[start]] = name
                taken += sizes[own[start]]
                start += 1
            if taken:
                held[name].append(taken)
                owed[name] -= taken if share < 2 else 0
    return side if all(len(found) > 1 and max(found) > 1 for found in held.values()) else {}


def _wanted(share: float, owed: float, held: list[int], spare: int, others: int) -> int:
    """Rows that a part wants of a label: its share, or two when it is its turn or the part would be too poor."""
    if share >= 2:
        return int(share)
    if len(held) < 2:
        return max(1, min(2, spare - others))
    return 2 if spare >= 2 and (owed >= 2 or max(held) < 2) else 0


def _whole_labels(
    members: dict[str, list[int]], sizes: Counter[int], targets: dict[str, int], random: Random
) -> dict[int, str]:
    able = [label for label in sorted(members) if len(members[label]) >= 2]
    random.shuffle(able)
    side: dict[int, str] = {}
    for name, target in targets.items():
        rows = labels = 0
        while able and (labels < 2 or rows + sum(sizes[group] for group in members[able[-1]]) <= target):
            own = members[able.pop()]
            side.update(dict.fromkeys(own, name))
            rows, labels = rows + sum(sizes[group] for group in own), labels + 1
    return side if len(able) >= 2 else {}
