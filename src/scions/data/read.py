"""Read a table, or train, dev and test, from a file, a folder or the built-in corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random

from scions.data.beir import is_beir, qrels_files, read_beir, read_corpus
from scions.data.columns import AmbiguousColumns, recognize
from scions.data.docstrings import read_docstrings
from scions.data.files import FORMATS, extension, missing_file, read_rows, shorten
from scions.data.leaks import drop_duplicates, drop_leaks, drop_shared_rows, text_overlap
from scions.data.shapes import PART_NAMES, Shape, Splits, Table, part_name
from scions.data.splits import split_by_shares
from scions.data.tables import build_table
from scions.errors import DataError, UsageError

BUILT_IN = "docstrings"


def read(
    path: str | Path,
    *,
    shape: Shape | str | None = None,
    columns: Mapping[str, str] | None = None,
    part: str | None = None,
) -> Table:
    """Read one file, or one part of a folder.

    A BEIR folder gives RETRIEVAL, or its documents as TEXTS. A folder of several parts needs `part`, so that training
    rows are not scored by mistake.

    Args:
        path: the file or folder.
        shape: settles what the column names leave open.
        columns: canonical names -> the file's.
        part: "train", "dev" or "test" of a folder; a file is read whole.

    Raises:
        DataError: the data cannot be read; names file and line.
        UsageError: an unknown shape, column name or part.
    """
    path = Path(path)
    wanted = None if shape is None else Shape.of(shape)
    if not path.exists():
        raise missing_file(path)
    if not path.is_dir():
        rows = read_rows(path)
        return build_table(rows, recognize(rows, wanted, columns))
    if is_beir(path):
        _check_beir_shape(path, wanted)
        if wanted is Shape.TEXTS:
            return read_corpus(path)
        return read_beir(path)[_choose_part(path, list(qrels_files(path)), part)]
    files = find_data_files(path)
    if not files:
        raise _unknown_folder(path)
    return read(files[_choose_part(path, list(files), part)], shape=wanted, columns=columns)


def read_splits(
    source: str,
    *,
    dev: str | None = None,
    test: str | None = None,
    shape: Shape | str | None = None,
    columns: Mapping[str, str] | None = None,
    seed: int = 0,
    limit: int | None = None,
) -> Splits:
    """Read train, dev and test; missing parts are split off train by group.

    Duplicate rows are removed, and so are rows of train that are in dev or test, and rows of dev that are in test.

    Args:
        source: a file, a folder, or the built-in corpus ("docstrings", "docstrings:numpy,scipy").
        dev: a file, or a folder with that part, used instead of the source's own. It may have another shape.
        test: likewise.
        shape: of train; for dev and test it only settles what their column names leave open.
        columns: canonical names -> the file's, of train; for dev and test they are used where the file has them.
        seed: decides the split and the rows of `limit`.
        limit: keep that many rows of train.

    Raises:
        DataError: the data cannot be read or split.
        UsageError: an unknown shape or column name, or a limit below 1.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1 row; found {limit}")
    wanted = None if shape is None else Shape.of(shape)
    replaced = {part: Path(path) for part, path in (("dev", dev), ("test", test)) if path is not None}
    notes: list[str] = []
    name, _, packages = str(source).partition(":")
    if name == BUILT_IN:
        if wanted not in (None, Shape.RETRIEVAL) or columns:
            raise UsageError(f"{source}: the built-in corpus has shape retrieval and no columns to choose")
        corpus = read_docstrings(
            [package.strip() for package in packages.split(",") if package.strip()] or None, seed=seed
        )
        tables = {"train": corpus.train, "dev": corpus.dev, "test": corpus.test}
        notes += corpus.notes
    else:
        tables = _read_parts(Path(source), wanted, columns, {"dev", "test"} - set(replaced))
    tables |= {part: _read_held_out(path, part, wanted, columns) for part, path in replaced.items()}
    tables = {part: drop_duplicates(table) for part, table in tables.items()}
    notes += [f"{part}: {note}" for part in PART_NAMES if part in tables for note in tables[part].notes]
    splits = _split_missing(tables, notes, seed)
    share = text_overlap(splits.train, splits.test)
    splits.notes.append(f"{100 * share:.1f} % of the distinct texts in test rows also occur in train, in other rows")
    if limit is not None and limit < len(splits.train):
        rows = sorted(Random(seed).sample(range(len(splits.train)), limit))
        splits.notes.append(f"train limited to {limit} of {len(splits.train)} rows")
        splits.train = splits.train.take(rows)
    return splits


def _read_parts(
    path: Path, shape: Shape | None, columns: Mapping[str, str] | None, held_out: set[str]
) -> dict[str, Table]:
    """Read train, and those of the `held_out` parts that the source has."""
    if not path.exists():
        raise missing_file(path)
    if not path.is_dir():
        return {"train": read(path, shape=shape, columns=columns)}
    if is_beir(path):
        _check_beir_shape(path, shape)
        if shape is Shape.TEXTS:  # the documents train; dev and test are judged queries
            tables = read_beir(path) if held_out & set(qrels_files(path)) else {}
            return {"train": read_corpus(path)} | {part: tables[part] for part in tables if part in held_out}
        tables = read_beir(path)
        if "train" not in tables:
            if len(tables) > 1 or set(tables) & {"dev", "test"}:
                raise DataError(f"{path}: no qrels/train.tsv to train on; the folder has qrels for {', '.join(tables)}")
            tables = {"train": next(iter(tables.values()))}
        return {part: table for part, table in tables.items() if part in {"train"} | held_out}
    files = find_data_files(path)
    if "train" not in files:
        raise _unknown_folder(path)
    parts = {"train": read(files["train"], shape=shape, columns=columns)}
    for part in sorted(held_out & set(files)):
        parts[part] = _read_held_out(files[part], part, shape, columns)
    return parts


def _read_held_out(path: Path, part: str, shape: Shape | None, columns: Mapping[str, str] | None) -> Table:
    """Read dev or test, whose shape is recognized for itself."""
    if path.is_dir():
        return read(path, part=part)
    if not columns or not path.exists() or not set(columns.values()) <= set(read_rows(path).columns):
        columns = None
    try:
        return read(path, columns=columns)
    except AmbiguousColumns:
        if shape in (None, Shape.RETRIEVAL):
            raise
        return read(path, shape=shape, columns=columns)


def _split_missing(tables: dict[str, Table], notes: list[str], seed: int) -> Splits:
    """Split the missing parts off train and remove rows that are in two parts."""
    shares = {part: share for part, share in (("test", 0.2), ("dev", 0.1)) if part not in tables}
    if shares:
        train = tables["train"]
        removed = []
        for part in ("dev", "test"):
            if part in tables:
                train, count = drop_shared_rows(train, tables[part])
                removed += [f"removed {count} rows of train that are also in {part}"] if count else []
        notes += removed
        if not len(train):
            raise DataError(f"{train.source}: every row is also in dev or test; use other files for these")
        try:
            parts, split_notes = split_by_shares(train, shares, seed)
        except DataError as error:
            raise DataError("; ".join([str(error), *removed])) from error
        tables = {**tables, **parts}
        notes += split_notes
    return drop_leaks(Splits(tables["train"], tables["dev"], tables["test"], notes))


def find_data_files(folder: Path) -> dict[str, Path]:
    """Return the files of train, dev and test in a folder. Raises DataError where two files are one part."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        part = part_name(path.name.split(".")[0])
        if path.is_file() and part in PART_NAMES and extension(path) in FORMATS:
            if part in files:
                raise DataError(f"{folder}: {files[part].name} and {path.name} are both {part}; keep one of them")
            files[part] = path
    return files


def _choose_part(folder: Path, parts: list[str], part: str | None) -> str:
    if part is None and len(parts) == 1:
        return parts[0]
    name = None if part is None else part_name(part)
    if name not in parts:
        problem = "several parts, so say which one (`part=...`)" if part is None else f"no part {part!r}"
        raise UsageError(f"{folder}: {problem}; the folder has: {', '.join(parts) or 'none'}")
    return name


def _check_beir_shape(path: Path, shape: Shape | None) -> None:
    if shape not in (None, Shape.RETRIEVAL, Shape.TEXTS):
        raise DataError(f"{path}: a BEIR folder gives shape retrieval, or its documents as texts; not {shape.value}")


def _unknown_folder(folder: Path) -> DataError:
    names = shorten(sorted(entry.name for entry in folder.iterdir()), 8) or "nothing"
    return DataError(
        f"{folder}: holds {names}; a data folder holds train.* (and dev.* or validation.*, test.*) as "
        f"{', '.join(FORMATS)}; or a BEIR set: corpus.jsonl, queries.jsonl, qrels/train.tsv"
    )
