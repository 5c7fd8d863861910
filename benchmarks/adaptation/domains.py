"""Load the five domains, without training rows that are in dev or test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from scions.data import Table, read
from scions.data.groups import normalize
from scions.data.leaks import drop_duplicates, drop_shared_rows


@dataclass(frozen=True)
class Domain:
    """One domain. Files are relative to the data folder; a BEIR folder stands three times, once a part.

    ``batch_size``: other than the recipe's, where rows are long and few. ``seen``: the base was probably trained on
    such data. ``extra``: a further test that decides no mean.
    """

    name: str
    train: str
    dev: str
    test: str
    grid_rows: int = 2000
    rows: int = 8000
    epochs: float = 2
    batch_size: int | None = None
    seen: bool = False
    extra: str = ""

    @property
    def beir(self) -> bool:
        return self.train == self.test


def _folder(name: str, seen: bool = False) -> Domain:
    return Domain(name, *(f"{name}/{part}.jsonl" for part in ("train", "dev", "test")), seen=seen)


DOMAINS = {
    domain.name: domain
    for domain in (
        _folder("patents"),
        _folder("stackoverflow", seen=True),
        _folder("banking77"),
        Domain(
            "medical",
            "medical/rqe_train.jsonl",
            "medical/mqp_dev.jsonl",
            "medical/mqp_test.jsonl",
            grid_rows=600,
            rows=2000,
            extra="medical/rqe_test.jsonl",
        ),
        Domain("medquad", "medquad", "medquad", "medquad", grid_rows=600, rows=2000, epochs=1, batch_size=32),
    )
}


@dataclass
class Parts:
    """A domain's rows. ``train`` is what is trained on, ``whole_train`` all rows there are for it."""

    train: Table
    whole_train: Table
    dev: Table
    test: Table
    extra: Table | None
    removed: dict[str, int]


def load(domain: Domain, data: Path, rows: int, test_rows: int | None = None) -> Parts:
    """Read a domain; rows of train that stand in dev or a test are removed and counted; ``rows`` of the rest drawn.

    The draw does not depend on a training's seed, and a smaller draw is part of a larger one.
    """
    train, dev, test = (
        read(data / path, part=part if domain.beir else None)
        for path, part in ((domain.train, "train"), (domain.dev, "dev"), (domain.test, "test"))
    )
    extra = read(data / domain.extra) if domain.extra else None
    removed = {"duplicates": len(train)}
    train = drop_duplicates(train)
    removed["duplicates"] -= len(train)
    dev, removed["dev rows in test"] = drop_shared_rows(dev, test)
    train, removed["in dev"] = drop_shared_rows(train, dev)
    train, removed["in test"] = drop_shared_rows(train, test)
    if extra is not None:
        train, removed["in extra test"] = drop_shared_rows(train, extra)
    chosen = np.random.default_rng(0).permutation(len(train))[:rows].tolist()
    if test_rows:
        test = test.take(list(range(0, len(test), max(1, len(test) // test_rows))))
    return Parts(train.take(chosen), train, dev, test, extra, removed)


def overlap_counts(train: Table, test: Table) -> tuple[int, int, np.ndarray]:
    """Distinct texts of test, how many of them occur in train, and the test rows ``[m]`` none of whose texts does."""
    known = {normalize(text) for texts in train.row_texts() for text in texts}
    rows = [[normalize(text) for text in texts] for texts in test.row_texts()]
    distinct = {text for row in rows for text in row}
    unseen = [i for i, row in enumerate(rows) if not any(text in known for text in row)]
    return len(distinct), len(distinct & known), np.array(unseen, dtype=np.int64)
