"""The built-in corpus: public docstrings of installed scientific packages, and of the standard library."""

from __future__ import annotations

import importlib.util
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from random import Random

from scions.data.groups import normalise
from scions.data.shapes import Shape, Splits, Table
from scions.data.sources import Docstring, docstrings, modules, order_key
from scions.errors import DataError

PACKAGES = ("numpy", "scipy", "sklearn", "torch", "transformers", "pandas")
PAIRS_PER_PACKAGE = 2000
_PARTS = (("train", 0.7), ("dev", 0.8), ("test", 1.0))


def read_docstrings(packages: Sequence[str] | None = None, *, seed: int = 0) -> Splits:
    """RETRIEVAL tables: summary line -> the rest of the docstring, the object's own name masked.
    Modules go to train, dev and test (70/10/20) by a hash of name and seed, so another version of a package
    moves nothing else. Each part has its own corpus, and `group` is the module. At most 2000 pairs a package
    are read, its modules in the order of a hash of their names. Of near-duplicates (equal summaries, or
    bodies equal in their first 200 characters) the first stays. Raises DataError where a named package, or
    every default one, is missing.
    """
    entries: list[Docstring] = []
    notes: list[str] = []
    summaries: set[str] = set()
    bodies: set[str] = set()
    for package in PACKAGES if packages is None else dict.fromkeys(packages):
        root = _package_root(package)
        if root is None and packages is not None:
            raise DataError(
                f"docstrings: package {package!r} is not installed as Python source; install or leave it out"
            )
        if root is None:
            notes.append(f"docstrings: {package} is not installed, left out")
            continue
        found = 0
        for module, path in sorted(modules(root, package), key=lambda item: order_key(item[0])):
            if found >= PAIRS_PER_PACKAGE:
                break
            for entry in docstrings(module, path):
                summary, body = normalise(entry.summary), normalise(entry.body)[:200]
                if summary in summaries or body in bodies or found >= PAIRS_PER_PACKAGE:
                    continue
                summaries.add(summary)
                bodies.add(body)
                entries.append(entry)
                found += 1
        notes.append(f"docstrings: {found} pairs from {package}")
    if not entries:
        named = ", ".join(PACKAGES if packages is None else packages)
        raise DataError(f"docstrings: no usable docstrings in the source of {named}")
    parts: dict[str, list[Docstring]] = {name: [] for name, _ in _PARTS}
    for entry in entries:
        place = int(order_key(seed, entry.module)[:8], 16) / 2**32
        parts[next(name for name, end in _PARTS if place < end)].append(entry)
    for name, members in parts.items():
        if not members:
            raise DataError(f"docstrings: too few modules to fill {name}; name more packages")
    tables = {name: _table(members, name) for name, members in parts.items()}
    return Splits(tables["train"], tables["dev"], tables["test"], notes)


def _package_root(package: str) -> Path | None:
    """The folder (or file) of a top-level package's source, found without importing it."""
    if not package.isidentifier():
        return None
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _table(entries: list[Docstring], part: str) -> Table:
    corpus: dict[str, str] = {}
    relevant: list[dict[str, float]] = []
    for entry in entries:
        key = f"{entry.module}:{entry.name}"
        while key in corpus:  # one name defined twice, for two platforms
            key += "'"
        corpus[key] = entry.body
        relevant.append({key: 1.0})
    return Table(
        Shape.RETRIEVAL,
        {"query": [entry.summary for entry in entries], "relevant": relevant},
        f"docstrings ({part})",
        corpus=corpus,
        group=[entry.module for entry in entries],
    )


def drift_pairs(n: int = 1000, seed: int = 0) -> list[tuple[str, str]]:
    """Up to `n` distinct pairs of standard-library texts, from near to far.

    In turn: a summary with its own body, with the summary of another object of its module, with that of any
    object.
    Raises DataError where the standard library is not there as source.
    """
    entries = _standard_library(max(n, 300), seed)
    if len(entries) < 2:
        raise DataError("drift: the standard library of this Python has no source files to read docstrings from")
    random = Random(seed)
    by_module: dict[str, list[Docstring]] = {}
    for entry in entries:
        by_module.setdefault(entry.module, []).append(entry)
    pairs: dict[tuple[str, str], None] = {}
    for turn in range(20 * max(n, 0)):  # bounded: a small library has fewer distinct pairs than asked for
        if len(pairs) >= n:
            break
        kind = len(pairs) % 3 if turn < 3 * n else turn % 3
        entry = entries[random.randrange(len(entries))]
        if kind == 0:
            other = entry.body
        else:
            pool = by_module[entry.module] if kind == 1 else entries
            other = pool[random.randrange(len(pool))].summary
        if other != entry.summary:
            pairs[(entry.summary, other)] = None
    return list(pairs)


def _standard_library(wanted: int, seed: int) -> list[Docstring]:
    """At least `wanted` docstrings where there are so many, from whole modules in seeded order."""
    folder = Path(sysconfig.get_path("stdlib"))
    entries: list[Docstring] = []
    seen: set[str] = set()
    for name in sorted(sys.stdlib_module_names, key=lambda one: order_key(seed, one)):
        root = folder / name if (folder / name).is_dir() else folder / f"{name}.py"
        if name.startswith("_") or name in ("test", "idlelib", "lib2to3") or not root.exists():
            continue
        for module, path in modules(root, name):
            for entry in docstrings(module, path):
                if normalise(entry.summary) not in seen:
                    seen.add(normalise(entry.summary))
                    entries.append(entry)
        if len(entries) >= wanted:
            break
    return entries
