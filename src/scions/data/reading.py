"""One path to one table: a file of any supported kind, a folder of parts, or a BEIR folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scions.data.beir import PART_NAMES, is_beir, qrels_files, read_beir, read_corpus
from scions.data.columns import recognise
from scions.data.files import FORMATS, extension, missing, read_rows
from scions.data.shapes import Shape, Table
from scions.data.tables import build
from scions.errors import DataError, UsageError


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
        raise missing(path)
    if not path.is_dir():
        rows = read_rows(path)
        return build(rows, recognise(rows, wanted, columns))
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
