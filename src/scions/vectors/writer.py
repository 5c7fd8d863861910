"""Write vectors to a matrix that grows chunk by chunk, then turn it into npy, parquet or jsonl."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scions.data.files import excerpt
from scions.errors import DataError, ScionsError, UsageError
from scions.store import write_file
from scions.vectors.record import METADATA, record_path, state_path

FORMATS = (".npy", ".parquet", ".jsonl")
DTYPES = ("float32", "float16")

_START_AGAIN = "start again with `force=True` instead of `resume=True`"


class ResumableMatrix:
    """A matrix ``[rows, dimensions]`` in npy format in a hidden file beside ``output``, with its state in another.

    The state names the last complete chunk; what a crash left after it is cut off on resuming.
    """

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(f".{output.name}.unfinished")
        self.state_path = state_path(output)
        self.rows = 0
        self._header = 0
        self._state: dict[str, Any] = {}

    def exists(self) -> bool:
        """Whether an interrupted run left a matrix."""
        return self.path.is_file() and self.state_path.is_file()

    def read_state(self) -> dict[str, Any]:
        """Return the state on disk, empty where there is none that can be read."""
        try:
            state = json.loads(self.state_path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return state if isinstance(state, dict) else {}

    def settings(self) -> dict[str, Any]:
        """Return the settings of an interrupted run, empty where there is none."""
        settings = self.read_state().get("settings") if self.exists() else None
        return settings if isinstance(settings, dict) else {}

    def start(self, rows: int, dimensions: int, dtype: str, settings: Mapping[str, Any]) -> None:
        """Start an empty matrix; its final shape is ``[rows, dimensions]``."""
        self.remove()
        with open(self.path, "wb") as stream:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
            np.lib.format.write_array_header_1_0(stream, header | {"shape": (rows, dimensions)})
            self._header = stream.tell()
        self._state = {"header": self._header, "done": 0, "truncated": 0, "settings": dict(settings)}
        self._write_state()

    def reopen(self, settings: Mapping[str, Any]) -> int:
        """Continue after the last complete chunk; return how many texts were truncated before it.

        Raises:
            ScionsError: the source or a setting differs (says which), or the files are damaged.
        """
        try:
            state = json.loads(self.state_path.read_bytes())
            before, self._header, self.rows = state["settings"], int(state["header"]), int(state["done"])
            truncated = int(state["truncated"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ScionsError(f"{self.state_path}: cannot be resumed ({error}); {_START_AGAIN}") from error
        differing = [
            f"{name} was {before.get(name)!r} and is {settings.get(name)!r}"
            for name in dict.fromkeys([*before, *settings])
            if before.get(name) != settings.get(name)
        ]
        if differing:
            raise ScionsError(
                f"{self.path}: cannot be resumed with other settings: {'; '.join(differing)}. "
                f"Repeat the first run's settings, or {_START_AGAIN}"
            )
        end = self._header + self.rows * int(settings["dimensions"]) * np.dtype(settings["dtype"]).itemsize
        if self.path.stat().st_size < end:
            raise ScionsError(f"{self.path}: is shorter than its state says; {_START_AGAIN}")
        os.truncate(self.path, end)
        self._state = state
        return truncated

    def mark_ready(self, ready: Path, record: str) -> None:
        """Record for `recover` that ``ready`` is complete, with the record to put beside it; durable on return."""
        self._state |= {"record": record, "mtime_ns": ready.stat().st_mtime_ns}
        self._write_state()

    def append(self, vectors: np.ndarray, truncated: int) -> None:
        """Add a chunk ``[n, dimensions]``, durable on return. ``truncated`` counts the texts cut so far."""
        with open(self.path, "ab") as stream:
            stream.write(np.ascontiguousarray(vectors).tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        self.rows += len(vectors)
        self._state |= {"done": self.rows, "truncated": truncated}
        self._write_state()

    def remove(self) -> None:
        """Delete matrix and state."""
        for path in (self.state_path, self.path):
            path.unlink(missing_ok=True)

    def _write_state(self) -> None:
        aside = self.state_path.with_name(self.state_path.name + ".new")
        with open(aside, "w", encoding="utf-8") as stream:
            json.dump(self._state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, self.state_path)


def finish(
    matrix: ResumableMatrix,
    output: Path,
    record: Mapping[str, Any],
    chunk_rows: int,
    ids: Sequence[Any] | None = None,
) -> None:
    """Turn the complete matrix into ``output`` in one step, with its record in ``<output>.json``.

    Args:
        matrix: complete.
        output: the target; parquet holds the record in its metadata too.
        record: the record.
        chunk_rows: rows held in memory.
        ids: of each row, for parquet and jsonl; None: the rows' numbers from 0.
    """
    kind, text = output.suffix.lower(), json.dumps(dict(record), indent=2, ensure_ascii=False) + "\n"
    ready = _ready(matrix, output)
    if kind != ".npy":
        (_write_parquet if kind == ".parquet" else _write_jsonl)(ready, matrix.path, text, chunk_rows, ids)
    with open(ready, "rb+") as stream:
        os.fsync(stream.fileno())
    matrix.mark_ready(ready, text)
    # The old record goes first: vectors without a record are refused, beside a wrong one they would be misread.
    record_path(output).unlink(missing_ok=True)
    recover(output)


def recover(output: Path) -> dict[str, Any] | None:
    """Put a complete matrix and its record in place, where a run was stopped while it did so.

    Returns:
        The state of that run with its ``settings`` and its count of ``truncated`` texts; None where there was none.
    """
    matrix = ResumableMatrix(output)
    state = matrix.read_state()
    text = state.get("record")
    if not isinstance(text, str) or record_path(output).exists():
        return None
    ready = _ready(matrix, output)
    complete = ready if ready.exists() else output  # it may have been moved already
    if not complete.exists() or complete.stat().st_mtime_ns != state.get("mtime_ns"):
        return None
    os.replace(complete, output)
    write_file(record_path(output), text)
    matrix.remove()
    return state


def _ready(matrix: ResumableMatrix, output: Path) -> Path:
    """Return the file that becomes ``output``."""
    return matrix.path if output.suffix.lower() == ".npy" else output.with_name(f".{output.name}.converting")


def check_output(output: Path, source: Path, dtype: str) -> None:
    """Raise UsageError for an unknown kind of file or dtype, or where the source would be overwritten."""
    if output.suffix.lower() not in FORMATS:
        raise UsageError(
            f"{output}: vectors are written as {', '.join(FORMATS)}; found {output.suffix or 'no ending'!r}"
        )
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is unknown; choose from {', '.join(DTYPES)}")
    if output.is_dir():
        raise UsageError(f"{output}: is a folder; a file is to be written here")
    if output.resolve() == source.resolve():
        raise UsageError(f"{output}: is the source itself; give another name")


def check_ids(ids: Sequence[Any], output: Path) -> None:
    """Raise DataError where ``output`` cannot hold these ids; names the row, what stands there and its type."""
    where = f"{output}: the column 'id' cannot be written"
    if output.suffix.lower() == ".parquet":
        try:
            _id_column(ids)
        except (ValueError, TypeError, OverflowError) as error:
            types = " and ".join(dict.fromkeys(type(key).__name__ for key in ids if key is not None))
            raise DataError(
                f"{where}: {types} fit into no one type of parquet ({error}); write .jsonl, or .npy without ids"
            ) from error
    elif output.suffix.lower() == ".jsonl":
        for row, key in enumerate(ids, 1):
            try:
                json.dumps(key, allow_nan=False)
            except (ValueError, TypeError) as error:
                raise DataError(
                    f"{where}: row {row} is the {type(key).__name__} {excerpt(key)}, for which JSON has no value; "
                    "write .parquet, or .npy without ids"
                ) from error


def _id_column(ids: Sequence[Any]) -> Any:
    import pyarrow as pa

    try:
        return pa.array(ids)
    except OverflowError:  # pyarrow infers int64, which cannot hold the upper half of uint64
        return pa.array(ids, pa.uint64())


def _chunks(matrix: Path, chunk_rows: int) -> Iterator[tuple[range, np.ndarray]]:
    vectors = np.load(matrix, mmap_mode="r")
    for start in range(0, len(vectors), chunk_rows):
        chunk = np.array(vectors[start : start + chunk_rows])
        yield range(start, start + len(chunk)), chunk


def _write_parquet(path: Path, matrix: Path, record: str, chunk_rows: int, ids: Sequence[Any] | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shape = np.load(matrix, mmap_mode="r")
    kind = pa.list_(pa.from_numpy_dtype(shape.dtype), shape.shape[1])
    column = pa.array([], pa.int64()) if ids is None else _id_column(ids)
    fields = [pa.field("id", column.type, nullable=column.null_count > 0), pa.field("vector", kind)]
    schema = pa.schema(fields, metadata={METADATA: record.encode()})
    # Vectors hardly compress and do not repeat: dictionaries would only cost time.
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
        for rows, vectors in _chunks(matrix, chunk_rows):
            keys = pa.array(rows, pa.int64()) if ids is None else column.slice(rows.start, len(rows))
            lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind)
            writer.write_table(pa.Table.from_arrays([keys, lists], schema=schema), row_group_size=chunk_rows)


def _write_jsonl(path: Path, matrix: Path, record: str, chunk_rows: int, ids: Sequence[Any] | None) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        for rows, vectors in _chunks(matrix, chunk_rows):
            # The fewest digits from which every value of the type can be restored.
            number = "%.9g" if vectors.dtype == np.float32 else "%.5g"
            line = '{"id": %s, "vector": [' + ", ".join([number] * vectors.shape[1]) + "]}\n"
            keys = rows if ids is None else ids[rows.start : rows.stop]
            stream.writelines(line % (json.dumps(key), *row) for key, row in zip(keys, vectors.tolist(), strict=True))
