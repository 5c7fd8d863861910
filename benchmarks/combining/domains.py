"""Twelve domains of four kinds of task, small enough that an adapter trains in a minute."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from scions.data import Shape, Table, read, read_splits
from scions.data.leaks import drop_duplicates, drop_shared_rows
from scions.training.best_epoch import sample_dev_rows


@dataclass(frozen=True)
class Domain:
    """``source``: a folder of the data, or the built-in corpus. ``kind``: domains of one kind have one task.

    ``rows``: at most so many train, where texts are long. ``epochs``: times through.
    """

    name: str
    kind: str
    source: str
    beir: bool = False
    rows: int = 2000
    epochs: float = 3


DOCUMENTS = 500  # of a corpus: all that is relevant, and others
DOCSTRINGS = ("numpy", "scipy", "sklearn", "torch", "pandas", "transformers")
DOMAINS = {
    domain.name: domain
    for domain in (
        *(Domain(f"doc-{name}", "docstrings", f"docstrings:{name}", rows=1000, epochs=2) for name in DOCSTRINGS),
        Domain("medquad", "search", "medquad", beir=True, rows=500, epochs=1),
        Domain("cosqa", "search", "cosqa", beir=True, rows=500, epochs=2),
        Domain("banking77", "labels", "banking77"),
        Domain("stackoverflow", "labels", "stackoverflow"),
        Domain("trec", "labels", "tasks/trec"),
        Domain("patents", "scores", "patents"),
    )
}


@dataclass(frozen=True)
class Parts:
    """Rows that train, that choose, and that judge."""

    train: Table
    dev: Table
    test: Table


@cache
def load(name: str, data: Path, rows: int, held_out: int) -> Parts:
    """A domain's parts, at most ``rows`` to train on and ``held_out`` in dev and in test (300 queries of a search)."""
    domain = DOMAINS[name]
    if domain.source.startswith("docstrings"):
        splits = read_splits(domain.source)
        train, dev, test = splits.train, splits.dev, splits.test
    else:
        folder = data / domain.source
        places = {p: folder if domain.beir else folder / f"{p}.jsonl" for p in ("train", "dev", "test")}
        train, dev, test = (read(path, part=part if domain.beir else None) for part, path in places.items())
        dev, _ = drop_shared_rows(dev, test)
        train = drop_duplicates(train)
        for other in (dev, test):
            train, _ = drop_shared_rows(train, other)
    chosen = np.random.default_rng(0).permutation(len(train))[: min(rows, domain.rows)].tolist()
    return Parts(
        train.take(chosen),
        sample_dev_rows(dev, 0, held_out, DOCUMENTS),
        sample_dev_rows(test, 1, held_out, DOCUMENTS),
    )


def metric(table: Table) -> str | None:
    """What is compared: the shape's primary metric; of labelled rows the smooth one (k-means jumps about)."""
    return "same_label_ap" if table.shape is Shape.LABELLED else None
