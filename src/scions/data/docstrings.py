"""Read the built-in corpus: public docstrings of installed scientific packages, and of the standard library."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from scions.data.groups import normalize
from scions.data.shapes import Shape, Splits, Table
from scions.errors import DataError

PACKAGES = ("numpy", "scipy", "sklearn", "torch", "transformers", "pandas")
PAIRS_PER_PACKAGE = 2000
_PARTS = (("train", 0.7), ("dev", 0.8), ("test", 1.0))
_SKIPPED_FOLDERS = {
    *("test", "tests", "testing", "_pytest", "idlelib", "lib2to3", "site-packages", "dist-packages"),
    *("externals", "_vendor", "third_party"),  # copies of other packages
}
_TEST_MODULE = re.compile(r"_*(py)?test(s|ing|er)?(_|$)|.*_tests?$|conftest$|_pytest")
_LARGEST_FILE = 1_000_000  # bytes; larger modules are generated tables
_UNDERLINE = re.compile(r"^\s*([-=~^*\"'`.+#])\1{2,}\s*$")
_WORD = re.compile(r"\w+(?:\.\w+)*")
_DROPPED_LINE = re.compile(r"^\s*(>>>|\.\.\.( |$)|\.\. )")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|cf|vs|etc|approx|resp)\.$", re.IGNORECASE)
MASK = "this object"
PASSAGE_CHARACTERS = 700  # enough to say what an object does; longer ones mostly cost time


@dataclass(frozen=True)
class Docstring:
    """A documented public function or class: its place, its summary, and the rest with its name masked."""

    module: str
    name: str
    summary: str
    body: str


def read_docstrings(packages: Sequence[str] | None = None, *, seed: int = 0) -> Splits:
    """Return RETRIEVAL tables: summary line -> the rest of the docstring, the object's name masked.

    Modules go to train, dev and test (70/10/20) by a hash of name and seed, so that another version of a package moves
    nothing else. Each part has its own corpus, and `group` is the module. At most 2000 pairs per package are read, its
    modules in the order of a hash of their names. Of near-duplicates (equal summaries, or bodies equal in their first
    200 characters) the first is used.

    Raises:
        DataError: a named package, or every default one, is missing.
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
        count = 0
        for module, path in sorted(iter_modules(root, package), key=lambda item: hash_key(item[0])):
            if count >= PAIRS_PER_PACKAGE:
                break
            for entry in iter_docstrings(module, path):
                summary, body = normalize(entry.summary), normalize(entry.body)[:200]
                if summary in summaries or body in bodies or count >= PAIRS_PER_PACKAGE:
                    continue
                summaries.add(summary)
                bodies.add(body)
                entries.append(entry)
                count += 1
        notes.append(f"docstrings: {count} pairs from {package}")
    if not entries:
        named = ", ".join(PACKAGES if packages is None else packages)
        raise DataError(f"docstrings: no usable docstrings in the source of {named}")
    parts: dict[str, list[Docstring]] = {name: [] for name, _ in _PARTS}
    for entry in entries:
        place = int(hash_key(seed, entry.module)[:8], 16) / 2**32
        parts[next(name for name, end in _PARTS if place < end)].append(entry)
    for name, members in parts.items():
        if not members:
            raise DataError(f"docstrings: too few modules to fill {name}; name more packages")
    tables = {name: _table(members, name) for name, members in parts.items()}
    return Splits(tables["train"], tables["dev"], tables["test"], notes)


def _package_root(package: str) -> Path | None:
    """Return the folder (or file) of a top-level package's source, without importing it."""
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
    """Return up to `n` distinct pairs of standard-library texts, from near to far.

    In turn a summary is paired with its own body, with another summary of its module, and with any summary.

    Raises:
        DataError: the standard library has no source files.
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


def _standard_library(limit: int, seed: int) -> list[Docstring]:
    """Return at least `limit` docstrings where there are that many, from whole modules in seeded order."""
    folder = Path(sysconfig.get_path("stdlib"))
    entries: list[Docstring] = []
    seen: set[str] = set()
    for name in sorted(sys.stdlib_module_names, key=lambda name: hash_key(seed, name)):
        root = folder / name if (folder / name).is_dir() else folder / f"{name}.py"
        if name.startswith("_") or name in ("test", "idlelib", "lib2to3") or not root.exists():
            continue
        for module, path in iter_modules(root, name):
            for entry in iter_docstrings(module, path):
                if normalize(entry.summary) not in seen:
                    seen.add(normalize(entry.summary))
                    entries.append(entry)
        if len(entries) >= limit:
            break
    return entries


def hash_key(*words: object) -> str:
    """Return a sort key for a stable, seeded order that does not depend on what else is installed."""
    return hashlib.sha256("\0".join(map(str, words)).encode()).hexdigest()


def iter_modules(root: Path, name: str) -> Iterator[tuple[str, Path]]:
    """Yield (dotted name, file) of the package's modules, without tests and copies of other packages."""
    if root.is_file():
        yield name, root
        return
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if _SKIPPED_FOLDERS & set(parts) or any(_TEST_MODULE.match(part) for part in parts):
            continue
        yield ".".join([name, *(part for part in parts if part != "__init__")]), path


def iter_docstrings(module: str, path: Path) -> Iterator[Docstring]:
    """Yield the usable docstrings of one file in order; a file that cannot be parsed has none."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escapes in the source are no concern of the caller
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for name, text in _documented(tree.body, ""):
        docstring = parse_docstring(module, name, text)
        if docstring is not None:
            yield docstring


def _documented(body: Iterable[ast.stmt], prefix: str) -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, (ast.If, ast.Try)):
            yield from _documented([*node.body, *node.orelse], prefix)
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or node.name.startswith("_"):
            continue
        first = node.body[0]
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            yield prefix + node.name, first.value.value
        if isinstance(node, ast.ClassDef):
            yield from _documented(node.body, f"{prefix}{node.name}.")


def parse_docstring(module: str, qualified: str, text: str) -> Docstring | None:
    """Split a docstring into summary and masked body; None where either is too short.

    The summary is the first sentence of the first paragraph. The body is cut at about 700 characters; one that repeats
    the summary gives the answer away, so the docstring is not used.
    """
    name = qualified.rpartition(".")[2]
    paragraphs = [p for p in re.split(r"\n\s*\n", inspect.cleandoc(text)) if p.strip()]
    if paragraphs and re.match(rf"^{re.escape(name)}\s*\(", paragraphs[0]):
        paragraphs = paragraphs[1:]  # C functions open with their signature
    if not paragraphs:
        return None
    summary, rest = _first_sentence(" ".join(paragraphs[0].split()))
    body = " ".join([rest, *(_flat(paragraph) for paragraph in paragraphs[1:])]).strip()
    if name in body and len(name) > 1:  # one letter is a parameter or a formula more often than the object
        body = _WORD.sub(lambda match: _masked(match.group(), name), body)
    if len(summary.split()) < 3 or len(summary) > 300 or len(body.split()) < 10:
        return None
    if len(body) > PASSAGE_CHARACTERS:
        body = body[:PASSAGE_CHARACTERS].rpartition(" ")[0]
    if summary.rstrip(".").casefold() in body.casefold():
        return None
    return Docstring(module, qualified, summary, body)


def _masked(word: str, name: str) -> str:
    """Return `numpy.linalg.norm` as the mask, `norm.size` as mask.size, and other words unchanged."""
    parts = word.split(".")
    if name not in parts:
        return word
    last = len(parts) - 1 - parts[::-1].index(name)
    return ".".join([MASK, *parts[last + 1 :]])


def _first_sentence(paragraph: str) -> tuple[str, str]:
    for match in re.finditer(r"[.!?](?=\s|$)", paragraph):
        if not _ABBREVIATION.search(paragraph[: match.end()]):
            return paragraph[: match.end()], paragraph[match.end() :].strip()
    return paragraph, ""


def _flat(paragraph: str) -> str:
    lines = (line for line in paragraph.split("\n") if not _UNDERLINE.match(line) and not _DROPPED_LINE.match(line))
    return " ".join(" ".join(lines).split())
