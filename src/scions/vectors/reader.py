"""Files of vectors read back, with the record of their space: what `scions.vectors.embed` has written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scions.encoder.query_side import KnownDocuments
from scions.errors import DataError, ScionsError
from scions.store import check_same_space
from scions.vectors.writer import FORMATS, METADATA, ResumableMatrix, record_path

SAMPLE = 8
# The same text through the same weights: float16, bf16 and other batches stay above this by far.
SAME_VECTOR = 0.99
ROWS_AT_ONCE = 2**14


@dataclass(frozen=True)
class VectorFile:
    """``matrix`` ``[rows, dimensions]``, of npy mapped and not read. ``ids``: of each row, where the kind keeps them.

    ``record`` says what the vectors are; ``record["space"]`` is the fingerprint of their space.
    """

    path: Path
    matrix: np.ndarray
    record: dict[str, Any]
    ids: list[Any] | None = None

    @property
    def space(self) -> str:
        """The fingerprint of the space the vectors lie in."""
        return str(self.record["space"])

    def called(self) -> str:
        """The file with the base and adapter of its record, for messages."""
        adapter = self.record.get("adapter")
        return f"{self.path} ({self.record.get('base', 'unknown base')}{f', adapter {adapter}' if adapter else ''})"


def read_vectors(path: str | Path) -> VectorFile:
    """Read a file of vectors: ``.npy``, ``.parquet`` or ``.jsonl``.

    Raises:
        DataError: there is none, it is damaged or of another kind, it has no record of its space, or record and
            vectors do not agree; names what was found.
    """
    path = Path(path)
    record = _checked(path)
    kind = path.suffix.lower()
    ids: list[Any] | None = None
    if kind == ".npy":
        matrix = _npy(path)
    else:
        matrix, ids = (_parquet if kind == ".parquet" else _jsonl)(path)
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise DataError(f"{path}: expected a matrix of floats, found shape {matrix.shape} of {matrix.dtype}")
    expected = (record.get("rows", len(matrix)), record.get("dimensions", matrix.shape[1]))
    if matrix.shape != expected:
        raise DataError(f"{path}: holds {matrix.shape[0]} x {matrix.shape[1]} numbers, its record says "
                        f"{expected[0]} x {expected[1]}")  # fmt: skip
    return VectorFile(path, matrix, record, ids)


def read_outline(path: str | Path) -> tuple[dict[str, Any], int, list[Any] | None]:
    """The record of a file of vectors, how many rows it has and their ids, without reading the vectors.

    Raises:
        DataError: as `read_vectors`.
    """
    path = Path(path)
    record = _checked(path)
    kind, ids = path.suffix.lower(), None
    if kind == ".npy":
        rows = len(_npy(path))
    elif kind == ".parquet":
        rows, ids = _parquet_ids(path)
    else:
        matrix, ids = _jsonl(path)
        rows = len(matrix)
    if rows != record.get("rows", rows):
        raise DataError(f"{path}: holds {rows} rows, its record says {record['rows']}")
    return record, rows, ids


def known_documents(
    file: VectorFile, texts: Sequence[str], encoder: Any, space: str, *, encoder_name: str, texts_name: str
) -> KnownDocuments:
    """``encoder`` with the vectors of ``file`` for ``texts``, checked: space, number of rows, and a few rows' vectors.

    Args:
        file: the vectors.
        texts: the documents, in the order of its rows.
        encoder: what would give these vectors anew.
        space: the fingerprint of its space of documents.
        encoder_name: what to call it in a message.
        texts_name: what to call the documents in a message.

    Raises:
        ScionsError: another space (both are named), another number of rows, rows that are no vectors or those of other
            texts.
    """
    check_same_space(file.space, space, a_name=file.called(), b_name=f"documents of {encoder_name}")
    if len(file.matrix) != len(texts):
        raise DataError(
            f"{file.path}: holds {len(file.matrix)} vectors, but {texts_name} has {len(texts)} documents; "
            "they must be those of one another, row by row"
        )
    _check_numbers(file)
    known = KnownDocuments(encoder, texts, file.matrix)
    rows = np.unique(np.linspace(0, len(texts) - 1, min(SAMPLE, len(texts))).round().astype(int))
    some = [texts[row] for row in rows]
    fresh = np.asarray(
        KnownDocuments(encoder, [], file.matrix).encode_document(some, show_progress_bar=False), dtype=np.float32
    )
    cosines = np.einsum("nd,nd->n", fresh, known.encode_document(some))
    if cosines.min() < SAME_VECTOR:
        row = int(rows[cosines.argmin()])
        raise ScionsError(
            f"{file.path}, row {row + 1}: is not the vector of that row of {texts_name} ({texts[row][:60]!r}): their "
            f"cosine is {cosines.min():.3f}. Are the rows in the same order, titles before texts, cut at the same "
            "length and with the same prompt?"
        )
    return known


def _check_numbers(file: VectorFile) -> None:
    """Raise DataError for the first row that has no direction: not finite, or all zeros, as where none was written."""
    for start in range(0, len(file.matrix), ROWS_AT_ONCE):
        lengths = np.linalg.norm(np.asarray(file.matrix[start : start + ROWS_AT_ONCE], dtype=np.float32), axis=1)
        wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(wrong):
            found = "all zeros" if lengths[wrong[0]] == 0 else "not finite"
            raise DataError(f"{file.path}, row {start + int(wrong[0]) + 1}: is {found}; expected the vector of a text")


def _checked(path: Path) -> dict[str, Any]:
    """The record of a file that is there and of a known kind."""
    if not path.is_file():
        raise DataError(f"{path}: no such file of vectors")
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise DataError(f"{path}: vectors are read from {', '.join(FORMATS)}; found {kind or 'no ending'!r}")
    return _record(path)


def _record(path: Path) -> dict[str, Any]:
    beside, found = record_path(path), None
    try:
        if beside.is_file():
            found = json.loads(beside.read_bytes())
        elif path.suffix.lower() == ".parquet":
            import pyarrow.parquet as pq

            found = json.loads((pq.read_schema(path).metadata or {}).get(METADATA, b"null"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: the record of its space cannot be read: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("space"), str):
        stopped = ResumableMatrix(path).state_path.is_file() and not beside.exists()
        raise DataError(
            f"{path}: nothing says which space these vectors lie in; expected {beside.name} beside it, as scions embed "
            f"writes it{'. A run was stopped while it wrote them: repeat it with --resume' if stopped else ''}"
        )
    return found


def _npy(path: Path) -> np.ndarray:
    try:
        matrix: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is no npy file that can be read: {error}") from error
    if matrix.ndim != 2:
        raise DataError(f"{path}: expected one row of numbers a text, found an array of shape {matrix.shape}")
    return matrix


def _parquet(path: Path) -> tuple[np.ndarray, list[Any] | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        column = table["vector"].combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0)
        flat = column.flatten().to_numpy(zero_copy_only=False)
        ids = table["id"].to_pylist() if "id" in table.column_names else None
        return flat.reshape(table.num_rows, -1), ids
    except (pa.ArrowException, KeyError, ValueError, OSError, AttributeError) as error:
        raise DataError(f"{path}: is no parquet file with a column 'vector' of one length: {error}") from error


def _parquet_ids(path: Path) -> tuple[int, list[Any] | None]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            rows = file.metadata.num_rows
            has = "id" in file.schema_arrow.names
            return rows, file.read(columns=["id"])["id"].to_pylist() if has else None
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise DataError(f"{path}: is no parquet file that can be read: {error}") from error


def _jsonl(path: Path) -> tuple[np.ndarray, list[Any] | None]:
    vectors, ids = [], []
    with open(path, "rb") as stream:  # as bytes, so that a line that is no UTF-8 has its number
        for number, line in enumerate(stream, 1):
            try:
                row = json.loads(line)
                vectors.append(np.asarray(row["vector"], dtype=np.float32))
                ids.append(row.get("id"))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DataError(f"{path}:{number}: is no object with a 'vector' of numbers: {error}") from error
            if vectors[-1].shape != vectors[0].shape:
                raise DataError(f"{path}:{number}: has {vectors[-1].size} numbers, the first row has {vectors[0].size}")
    return np.stack(vectors) if vectors else np.empty((0, 0), dtype=np.float32), ids
