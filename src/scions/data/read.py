"""A source, as a user names it, to train, dev and test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from random import Random

from scions.data.beir import PART_NAMES, is_beir, qrels_files, read_beir, read_corpus
from scions.data.columns import AmbiguousColumns, recognize
from scions.data.docstrings import read_docstrings
from scions.data.files import FORMATS, extension, missing_file, read_rows
from scions.data.leaks import overlap, without, without_duplicates, without_leaks
from scions.data.shapes import Shape, Splits, Table
from scions.data.splits import hold_out
from scions.data.tables import build
from scions.errors import DataError, UsageError

BUILT_IN = "docstrings"


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
    """Read train, dev and test from a file, a folder, or the built-in corpus ("docstrings:numpy,scipy").
    `dev` and `test` name files (or folders with that part) used instead of the source's own. Parts that are
    missing are split off train by group. `shape` and `columns` speak of train; dev and test are recognised by
    themselves and may have another shape (`columns` is used where the file has them, `shape` where the names
    leave a doubt). Duplicate rows are removed, and so are rows of train standing in dev or test and rows of
    dev standing in test. `limit` keeps that many rows of train, drawn with `seed`. Raises DataError or
    UsageError.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit must be at least 1 row; found {limit}")
    wanted = None if shape is None else Shape.of(shape)
    notes: list[str] = []
    found: dict[str, Table] = {}
    name, _, packages = str(source).partition(":")
    if name == BUILT_IN:
        if wanted not in (None, Shape.RETRIEVAL) or columns:
            raise UsageError(f"{source}: the built-in corpus has shape retrieval and no columns to choose")
        chosen = [one.strip() for one in packages.split(",") if one.strip()]
        built = read_docstrings(chosen or None, seed=seed)
        found, notes = {"train": built.train, "dev": built.dev, "test": built.test}, list(built.notes)
    else:
        given = {part for part, path in (("dev", dev), ("test", test)) if path is not None}
        found = _own_parts(Path(source), wanted, columns, given)
    for part, path in (("dev", dev), ("test", test)):
        if path is not None:
            found[part] = _held(Path(path), part, wanted, columns)
    cleaned = {part: without_duplicates(table) for part, table in found.items()}
    for part in ("train", "dev", "test"):
        notes += [f"{part}: {note}" for note in cleaned[part].notes] if part in cleaned else []
    splits = _complete(cleaned, notes, seed)
    share = overlap(splits.train, splits.test)
    splits.notes.append(f"{100 * share:.1f} % of the distinct texts in test rows also occur in train, in other rows")
    if limit is not None and limit < len(splits.train):
        kept = sorted(Random(seed).sample(range(len(splits.train)), limit))
        splits.notes.append(f"train limited to {limit} of {len(splits.train)} rows")
        splits.train = splits.train.take(kept)
    return splits


def _own_parts(path: Path, shape: Shape | None, columns: Mapping[str, str] | None, given: set[str]) -> dict[str, Table]:
    """The parts the source itself holds, without those `given` by the user."""
    if not path.exists():
        raise missing_file(path)
    if not path.is_dir():
        return {"train": read(path, shape=shape, columns=columns)}
    if is_beir(path):
        if shape is Shape.TEXTS:
            # the documents train; where the folder judges held-out queries, those are dev and test
            held = {"dev", "test"} - given
            judged = read_beir(path) if held & set(qrels_files(path)) else {}
            return {"train": read(path, shape=shape), **{p: t for p, t in judged.items() if p in held}}
        if shape not in (None, Shape.RETRIEVAL):
            raise DataError(
                f"{path}: a BEIR folder gives shape retrieval, or its documents as texts; not {shape.value}"
            )
        tables = read_beir(path)
        if "train" not in tables:
            if len(tables) > 1 or set(tables) & {"dev", "test"}:
                raise DataError(f"{path}: no qrels/train.tsv to train on; the folder has qrels for {', '.join(tables)}")
            tables = {"train": next(iter(tables.values()))}
        return {part: table for part, table in tables.items() if part in {"train", "dev", "test"} - given}
    files = part_files(path)
    if "train" not in files:
        raise unknown_folder(path)
    found = {"train": read(files["train"], shape=shape, columns=columns)}
    for part in sorted({"dev", "test"} & set(files) - given):
        found[part] = _held(files[part], part, shape, columns)
    return found


def _held(path: Path, part: str, shape: Shape | None, columns: Mapping[str, str] | None) -> Table:
    """A held-out part: recognised by itself; words on train count where they fit or are needed."""
    if path.is_dir():
        return read(path, part=part)
    own = None
    if columns and path.exists() and set(columns.values()) <= set(read_rows(path).columns):
        own = columns
    try:
        return read(path, columns=own)
    except AmbiguousColumns:
        if shape in (None, Shape.RETRIEVAL):
            raise
        return read(path, shape=shape, columns=own)


def _complete(found: dict[str, Table], notes: list[str], seed: int) -> Splits:
    """Split the missing parts off train, and see that no row stands in two parts."""
    shares = {name: share for name, share in (("test", 0.2), ("dev", 0.1)) if name not in found}
    if shares:
        train = found["train"]
        removed = []
        for part in ("dev", "test"):
            if part in found:
                train, count = without(train, found[part])
                removed += [f"removed {count} rows of train that also stand in {part}"] if count else []
        notes += removed
        if not len(train):
            raise DataError(f"{train.source}: every row also stands in dev or test; use other files for these")
        try:
            parts, more = hold_out(train, shares, seed)
        except DataError as error:
            raise DataError("; ".join([str(error), *removed])) from error
        found = {**found, **parts}
        notes += more
    return without_leaks(Splits(found["train"], found["dev"], found["test"], notes))


def part_name(part: str) -> str:
    """`valid` and `validation` are `dev`; other names stay."""
    return next((known for known, names in PART_NAMES.items() if part.lower() in names), part)


def part_files(folder: Path) -> dict[str, Path]:
    """The train/dev/test data files of a folder. Raises DataError where two files claim one part."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        part = part_name(path.name.split(".")[0])
        if path.is_file() and part in PART_NAMES and extension(path) in FORMATS:
            if part in found:
                raise DataError(f"{folder}: {found[part].name} and {path.name} are both {part}; keep one of them")
            found[part] = path
    return found


def unknown_folder(folder: Path) -> DataError:
    """The error for a folder that holds neither parts nor BEIR files."""
    names = sorted(entry.name for entry in folder.iterdir())
    held = ", ".join(names[:8]) + (", …" if len(names) > 8 else "") if names else "nothing"
    return DataError(
        f"{folder}: holds {held}; a data folder holds train.* (and dev.* or validation.*, test.*) as "
        f"{', '.join(FORMATS)}; or a BEIR set: corpus.jsonl, queries.jsonl, qrels/train.tsv"
    )


def read(
    path: str | Path,
    *,
    shape: Shape | str | None = None,
    columns: Mapping[str, str] | None = None,
    part: str | None = None,
) -> Table:
    """Read one file, or one `part` (train, dev, test) of a folder.
    `columns` maps canonical names to the file's; `shape` settles what the names leave open. A BEIR folder
    gives RETRIEVAL, or its documents as TEXTS. A folder with several parts and no `part` is refused, because
    rows that trained must not slip into a score. Raises DataError naming file and line, UsageError for
    unknown names.
    """
    path = Path(path)
    wanted = None if shape is None else Shape.of(shape)
    if not path.exists():
        raise missing_file(path)
    if not path.is_dir():
        rows = read_rows(path)
        return build(rows, recognize(rows, wanted, columns))
    if is_beir(path):
        if wanted is Shape.TEXTS:
            return read_corpus(path)
        if wanted not in (None, Shape.RETRIEVAL):
            raise DataError(f"{path}: a BEIR folder gives shape retrieval, or its documents as texts; not {wanted}")
        chosen = _one_part(path, list(qrels_files(path)), part)
        return read_beir(path)[chosen]
    files = part_files(path)
    if not files:
        raise unknown_folder(path)
    return read(files[_one_part(path, list(files), part)], shape=wanted, columns=columns)


def _one_part(folder: Path, found: list[str], part: str | None) -> str:
    if part is None and len(found) == 1:
        return found[0]
    name = part_name(part) if part is not None else None
    if name not in found:
        asked = f"no part {part!r}" if part is not None else "several parts, so say which one (part=)"
        raise UsageError(f"{folder}: {asked}; the folder has: {', '.join(found) or 'none'}")
    return name
