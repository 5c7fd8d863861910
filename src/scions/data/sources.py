"""Docstrings of Python source files, read by `ast`: nothing is imported or run."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_SKIPPED_FOLDERS = {
    "test",
    "tests",
    "testing",
    "_pytest",
    "idlelib",
    "lib2to3",
    "site-packages",
    "dist-packages",
} | {
    "externals",  # copies of other packages
    "_vendor",
    "third_party",
}
_TEST_MODULE = re.compile(r"_*(py)?test(s|ing|er)?(_|$)|.*_tests?$|conftest$|_pytest")
_LARGEST_FILE = 1_000_000  # bytes; larger modules are generated tables
_UNDERLINE = re.compile(r"^\s*([-=~^*\"'`.+#])\1{2,}\s*$")
_WORD = re.compile(r"\w+(?:\.\w+)*")
_DROPPED_LINE = re.compile(r"^\s*(>>>|\.\.\.( |$)|\.\. )")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|cf|vs|etc|approx|resp)\.$", re.IGNORECASE)
MASK = "this object"
PASSAGE_CHARACTERS = 700  # enough to tell what an object does; longer ones mostly cost time


@dataclass(frozen=True)
class Docstring:
    """A documented public function or class: its place, its summary, the rest with its name masked."""

    module: str
    name: str
    summary: str
    body: str


def order_key(*words: object) -> str:
    """A stable, seeded order that does not depend on what else is installed."""
    return hashlib.sha256("\0".join(map(str, words)).encode()).hexdigest()


def modules(root: Path, name: str) -> Iterator[tuple[str, Path]]:
    """(dotted name, file) of the package's modules; tests and copies of other packages are left out."""
    if root.is_file():
        yield name, root
        return
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if _SKIPPED_FOLDERS & set(parts) or any(_TEST_MODULE.match(part) for part in parts):
            continue
        yield ".".join([name, *(part for part in parts if part != "__init__")]), path


def docstrings(module: str, path: Path) -> Iterator[Docstring]:
    """The usable docstrings of one file, in file order; a file that cannot be parsed has none."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes are no business of the caller
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    for name, text in _documented(tree.body, ""):
        made = make(module, name, text)
        if made is not None:
            yield made


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


def make(module: str, qualified: str, text: str) -> Docstring | None:
    """Cut a docstring into summary and masked body; None where either is too short to be of use.
    The summary is the first sentence of the first paragraph. The body is cut at about 700 characters, and a
    body that repeats the summary is refused, because it would give the answer away.
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
    """`numpy.linalg.norm` -> mask; `norm.size` -> mask.size; other words as they are."""
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
