"""Read retrieval tables from a BEIR folder: corpus.jsonl, queries.jsonl and qrels/*.tsv."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scions.data.columns import parse_number
from scions.data.files import check_text, excerpt, iter_lines, read_rows, shorten
from scions.data.shapes import Shape, Table, part_name
from scions.errors import DataError


def _file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def is_beir(folder: Path) -> bool:
    """Return whether the folder holds a corpus and queries."""
    return _file(folder, "corpus.jsonl") is not None and _file(folder, "queries.jsonl") is not None


def qrels_files(folder: Path) -> dict[str, Path]:
    """Return the qrels files by part; a file of another name is listed under its own stem."""
    files: dict[str, Path] = {}
    for path in sorted((folder / "qrels").glob("*")):
        stem, dot, kind = path.name.partition(".")
        if dot and kind.lower() in ("tsv", "tsv.gz"):
            part = part_name(stem)
            if part in files:
                raise DataError(f"{folder}: {files[part].name} and {path.name} are both judgements for {part}")
            files[part] = path
    return files


def _by_id(path: Path) -> tuple[dict[str, str], int]:
    """Return id -> text (title first, where there is one), and the number of entries without a text."""
    rows = read_rows(path)
    texts: dict[str, str] = {}
    blank = 0
    seen: set[str] = set()
    for i, row in enumerate(rows.rows):
        key = row.get("_id", row.get("id"))
        if key is None or key == "" or isinstance(key, (bool, float, list, dict)):
            raise DataError(f"{rows.where(i)}: an entry needs an '_id', found fields {', '.join(row) or 'none'}")
        name = str(key)
        if name in seen:
            raise DataError(f"{rows.where(i)}: duplicate _id {name!r} in {path.name}")
        seen.add(name)
        title, text = (check_text(row.get(field), rows.where(i), f"field {field!r}") for field in ("title", "text"))
        if title or text:
            texts[name] = f"{title} {text or ''}" if title else str(text)
        else:
            blank += 1
    if not texts:
        raise DataError(f"{path}: no entry has any text in its field 'text'")
    return texts, blank


def _judgements(path: Path) -> list[tuple[int, str, str, float]]:
    lines = []
    for line, content in iter_lines(path):
        if not content.strip():
            continue
        cells = content.split("\t")
        if len(cells) != 3:
            raise DataError(
                f"{path}:{line}: {len(cells)} fields; a judgement is query-id<TAB>corpus-id<TAB>score, "
                f"found {excerpt(content)}"
            )
        grade = parse_number(cells[2])
        if grade is None and line == 1:
            continue  # the header
        if grade is None or not -1e6 < grade < 1e6:
            raise DataError(f"{path}:{line}: the score must be a number, found {excerpt(cells[2])}")
        lines.append((line, cells[0], cells[1], grade))
    if not lines:
        raise DataError(f"{path}: has a header but no judgements")
    return lines


def _table(path: Path, queries: dict[str, str], corpus: dict[str, str], notes: list[str]) -> Table:
    judged = _judgements(path)
    relevant: dict[str, dict[str, float]] = {}
    unknown: list[int] = []  # lines
    not_relevant = 0
    for line, query, document, grade in judged:
        if query not in queries or document not in corpus:
            unknown.append(line)
        elif grade <= 0:
            not_relevant += 1
        else:
            relevant.setdefault(query, {})[document] = grade
    if len(unknown) == len(judged):
        _, query, document, _ = judged[0]
        raise DataError(
            f"{path}: all {len(judged)} judgements name ids that are neither in queries nor in corpus, "
            f"such as {query!r} and {document!r}; do the files belong together?"
        )
    notes = list(notes)
    if unknown:
        lines = shorten(unknown)
        notes.append(f"{path.name}: {len(unknown)} judgements with unknown or empty ids left out (lines {lines})")
    if not_relevant:
        notes.append(f"{path.name}: {not_relevant} judgements with score 0 or less left out: not relevant")
    if not relevant:
        raise DataError(f"{path}: no judgement has a score above 0, so no query has a relevant document")
    columns: dict[str, list[Any]] = {
        "query": [queries[key] for key in relevant],
        "relevant": list(relevant.values()),
    }
    own = sum(key in corpus and key not in judged for key, judged in relevant.items())
    if own:
        notes.append(
            f"{path.name}: {own} of {len(relevant)} queries have a document of their own id, which is left out of "
            "their ranking"
        )
    return Table(Shape.RETRIEVAL, columns, str(path), corpus=corpus, ids=list(relevant), notes=notes)


def read_beir(folder: Path) -> dict[str, Table]:
    """Return a table per qrels file; they share one corpus dict. Raises DataError naming file and line."""
    files = qrels_files(folder)
    if not files:
        raise DataError(
            f"{folder}: no judgements; a BEIR folder holds qrels/train.tsv, qrels/dev.tsv or qrels/test.tsv"
        )
    corpus, notes = _corpus(folder)
    queries, _ = _by_id(_file(folder, "queries.jsonl") or folder / "queries.jsonl")
    return {part: _table(path, queries, corpus, notes) for part, path in files.items()}


def _corpus(folder: Path) -> tuple[dict[str, str], list[str]]:
    corpus, blank = _by_id(_file(folder, "corpus.jsonl") or folder / "corpus.jsonl")
    return corpus, [f"corpus: {blank} documents without text left out"] if blank else []


def read_corpus(folder: Path) -> Table:
    """Return the folder's documents as plain texts; no judgements are needed."""
    corpus, notes = _corpus(folder)
    return Table(Shape.TEXTS, {"text": list(corpus.values())}, f"{folder} (corpus)", notes=notes)
