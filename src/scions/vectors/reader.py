"""Read files of vectors and their records, and check them against texts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scions.data.shapes import spread_rows
from scions.encoder.query_side import KnownDocuments
from scions.errors import DataError, ScionsError
from scions.store import check_same_space
from scions.vectors.record import origin, read_record
from scions.vectors.writer import FORMATS

SAMPLE = 8
# Vectors of the same text and weights in float16, bf16 or other batches lie far above this.
SAME_VECTOR = 0.99
ROWS_AT_ONCE = 2**14


@dataclass(frozen=True)
class VectorFile:
    """A file of vectors: ``matrix`` ``[rows, dimensions]`` (of npy memory-mapped), its record and its rows' ids.

    ``record["space"]`` is the fingerprint of the vectors' space; ``ids`` is None where the kind holds none.
    """

    path: Path
    matrix: np.ndarray
    record: dict[str, Any]
    ids: list[Any] | None = None

    @property
    def space(self) -> str:
        """The fingerprint of the space the vectors lie in."""
        return str(self.record["space"])


def read_vectors(path: str | Path) -> VectorFile:
    """Read a file of vectors: ``.npy``, ``.parquet`` or ``.jsonl``.

    Raises:
        DataError: no such file, a damaged one or one of another kind, no record of its space, or a record that does
            not fit the vectors.
    """
    path = Path(path)
    record = _checked_record(path)
    matrix, ids = _READERS[path.suffix.lower()](path)
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise DataError(f"{path}: expected a matrix of floats, found shape {matrix.shape} of {matrix.dtype}")
    rows, dimensions = (record.get("rows", len(matrix)), record.get("dimensions", matrix.shape[1]))
    if matrix.shape != (rows, dimensions):
        raise DataError(
            f"{path}: holds {matrix.shape[0]} x {matrix.shape[1]} numbers, its record says {rows} x {dimensions}"
        )
    return VectorFile(path, matrix, record, ids)


def read_outline(path: str | Path) -> tuple[dict[str, Any], int, list[Any] | None]:
    """Return record, number of rows and ids of a file of vectors, of npy and parquet without reading the vectors.

    Raises:
        DataError: as `read_vectors`.
    """
    path = Path(path)
    record = _checked_record(path)
    if path.suffix.lower() == ".parquet":
        rows, ids = _parquet_ids(path)
    else:
        matrix, ids = _READERS[path.suffix.lower()](path)
        rows = len(matrix)
    if rows != record.get("rows", rows):
        raise DataError(f"{path}: holds {rows} rows, its record says {record['rows']}")
    return record, rows, ids


def known_documents(
    file: VectorFile, texts: Sequence[str], encoder: Any, space: str, *, encoder_name: str, texts_name: str
) -> KnownDocuments:
    """Return ``encoder`` with the vectors of ``file`` for the documents ``texts``, after checking that they fit.

    Space and number of rows are compared, and a few rows are encoded again.

    Args:
        file: the vectors.
        texts: the documents, one a row.
        encoder: the encoder of the documents.
        space: the fingerprint of its space of documents.
        encoder_name: its name in a message.
        texts_name: the name of the documents in a message.

    Raises:
        ScionsError: another space (both are named), another number of rows, or rows that are not the vectors of these
            texts.
    """
    name = f"{file.path} ({origin(file.record)})"
    check_same_space(file.space, space, a_name=name, b_name=f"documents of {encoder_name}")
    if len(file.matrix) != len(texts):
        raise DataError(
            f"{file.path}: holds {len(file.matrix)} vectors, but {texts_name} has {len(texts)} documents; expected one "
            "vector a document, in the same order"
        )
    _check_numbers(file)
    known = KnownDocuments(encoder, texts, file.matrix)
    rows = spread_rows(len(texts), SAMPLE)
    sample = [texts[row] for row in rows]
    fresh = np.asarray(
        KnownDocuments(encoder, [], file.matrix).encode_document(sample, show_progress_bar=False), dtype=np.float32
    )
    cosines = np.einsum("nd,nd->n", fresh, known.encode_document(sample))
    if cosines.min() < SAME_VECTOR:
        row = rows[int(cosines.argmin())]
        raise ScionsError(
            f"{file.path}, row {row + 1}: is not the vector of that row of {texts_name} ({texts[row][:60]!r}): their "
            f"cosine is {cosines.min():.3f}. Are the rows in the same order, titles before texts, cut at the same "
            "length and with the same prompt?"
        )
    return known


def _check_numbers(file: VectorFile) -> None:
    """Raise DataError for the first row without a direction: not finite, or all zeros."""
    for start in range(0, len(file.matrix), ROWS_AT_ONCE):
        lengths = np.linalg.norm(np.asarray(file.matrix[start : start + ROWS_AT_ONCE], dtype=np.float32), axis=1)
        wrong = np.flatnonzero(~np.isfinite(lengths) | (lengths == 0))
        if len(wrong):
            problem = "all zeros" if lengths[wrong[0]] == 0 else "not finite"
            raise DataError(
                f"{file.path}, row {start + int(wrong[0]) + 1}: is {problem}; expected the vector of a text"
            )


def _checked_record(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file of vectors")
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise DataError(f"{path}: vectors are read from {', '.join(FORMATS)}; found {kind or 'no ending'!r}")
    return read_record(path)


def _npy(path: Path) -> tuple[np.ndarray, None]:
    try:
        matrix: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: is no npy file that can be read: {error}") from error
    if matrix.ndim != 2:
        raise DataError(f"{path}: expected one row of numbers a text, found an array of shape {matrix.shape}")
    return matrix, None


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


_READERS: dict[str, Callable[[Path], tuple[np.ndarray, list[Any] | None]]] = {
    ".npy": _npy,
    ".parquet": _parquet,
    ".jsonl": _jsonl,
}
