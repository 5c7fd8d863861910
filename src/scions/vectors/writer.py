"""Vectors on disk: a matrix that grows chunk by chunk beside its target, then becomes npy, parquet or jsonl."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from scions.data.files import excerpt
from scions.errors import DataError, ScionsError, UsageError

FORMATS = (".npy", ".parquet", ".jsonl")
DTYPES = ("float32", "float16")
METADATA = b"scions"


class ResumableMatrix:
    """``[rows, dimensions]`` in npy format in a hidden file, with its state beside it.

    The state names the last complete chunk; what a crash left after it is cut off when the work goes on.
    """

    def __init__(self, output: Path) -> None:
        self.path = output.with_name(f".{output.name}.unfinished")
        self.state_path = output.with_name(f".{output.name}.unfinished.json")
        self.rows = 0
        self._header = 0
        self._state: dict[str, Any] = {}

    def exists(self) -> bool:
        """Whether an earlier run left something to go on with."""
        return self.path.is_file() and self.state_path.is_file()

    def start(self, rows: int, dimensions: int, dtype: str, settings: Mapping[str, Any]) -> None:
        """Begin an empty matrix whose final shape is known."""
        self.remove()
        with open(self.path, "wb") as stream:
            header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False}
            np.lib.format.write_array_header_1_0(stream, header | {"shape": (rows, dimensions)})
            self._header = stream.tell()
        self._state = {"header": self._header, "done": 0, "truncated": 0, "settings": dict(settings)}
        self._write_state()

    def reopen(self, settings: Mapping[str, Any]) -> int:
        """Go on after the last complete chunk; returns how many texts were truncated until there.

        Raises:
            ScionsError: the source or a setting is another than it was; says which.
        """
        try:
            state = json.loads(self.state_path.read_bytes())
            before, self._header, self.rows = state["settings"], int(state["header"]), int(state["done"])
            truncated = int(state["truncated"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ScionsError(
                f"{self.state_path}: cannot be gone on with ({error}); start over with --force instead of --resume"
            ) from error
        differing = [
            f"{name} was {before.get(name)!r} and is {settings.get(name)!r}"
            for name in dict.fromkeys([*before, *settings])
            if before.get(name) != settings.get(name)
        ]
        if differing:
            raise ScionsError(
                f"{self.path}: was begun otherwise and cannot be resumed: {'; '.join(differing)}. "
                "Go on with what it was begun with, or start over with --force instead of --resume"
            )
        end = self._header + self.rows * int(settings["dimensions"]) * np.dtype(settings["dtype"]).itemsize
        if self.path.stat().st_size < end:
            raise ScionsError(
                f"{self.path}: is shorter than its state says; start over with --force instead of --resume"
            )
        os.truncate(self.path, end)
        self._state = state
        return truncated

    def mark_ready(self, ready: Path, record: str) -> None:
        """Keep what `recover` is to put in place: this file and its record; once this returns it outlives a crash."""
        self._state |= {"record": record, "mtime_ns": ready.stat().st_mtime_ns}
        self._write_state()

    def append(self, vectors: np.ndarray, truncated: int) -> None:
        """Add a chunk ``[n, dimensions]``; once this returns it outlives a crash. ``truncated``: count so far."""
        with open(self.path, "ab") as stream:
            stream.write(np.ascontiguousarray(vectors).tobytes())
            stream.flush()
            os.fsync(stream.fileno())
        self.rows += len(vectors)
        self._state |= {"done": self.rows, "truncated": truncated}
        self._write_state()

    def remove(self) -> None:
        """Forget what there is."""
        for path in (self.state_path, self.path):
            with suppress(FileNotFoundError):
                path.unlink()

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
    """Turn the complete matrix into ``output`` in one step, with the record of its space.

    ``ids``: of each row, for kinds that keep them; None: the rows' numbers from 0.
    npy and jsonl carry the record in ``<output>.json``; parquet carries it in its metadata (key ``scions``) too.
    """
    kind, text = output.suffix.lower(), json.dumps(dict(record), indent=2, ensure_ascii=False) + "\n"
    ready = _ready(matrix, output)
    if kind != ".npy":
        (_write_parquet if kind == ".parquet" else _write_jsonl)(ready, matrix.path, text, chunk_rows, ids)
    with open(ready, "rb+") as stream:
        os.fsync(stream.fileno())
    matrix.mark_ready(ready, text)
    # An old record goes first: vectors without one are refused, vectors beside another's would be taken for those.
    record_path(output).unlink(missing_ok=True)
    recover(output)


def recover(output: Path) -> dict[str, Any] | None:
    """Finish what a run was stopped in after it had taken the old record away; where there is nothing, do nothing.

    Returns:
        The state of the run that was finished: its ``settings``, and how many texts were ``truncated``.
    """
    from scions.store import write_file

    matrix = ResumableMatrix(output)
    try:
        state = json.loads(matrix.state_path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    text = state.get("record") if isinstance(state, dict) else None
    if not isinstance(text, str) or record_path(output).exists():
        return None
    ready = _ready(matrix, output)
    there = ready if ready.exists() else output  # it may stand in its place already
    if not there.exists() or there.stat().st_mtime_ns != state.get("mtime_ns"):
        return None
    os.replace(there, output)
    write_file(record_path(output), text)
    matrix.remove()
    return state


def _ready(matrix: ResumableMatrix, output: Path) -> Path:
    """The file that becomes ``output``."""
    return matrix.path if output.suffix.lower() == ".npy" else output.with_name(f".{output.name}.converting")


def record_path(output: Path) -> Path:
    """Where the record of a vector file stands."""
    return output.with_name(output.name + ".json")


def check_output(output: Path, source: Path, dtype: str) -> None:
    """Raises UsageError for an unknown kind of file or dtype, or where the source would be overwritten."""
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
    except OverflowError:  # whole numbers are taken for int64, which half of uint64 is beyond
        return pa.array(ids, pa.uint64())


def _chunks(matrix: Path, rows: int) -> Iterator[tuple[int, np.ndarray]]:
    vectors = np.load(matrix, mmap_mode="r")
    for start in range(0, len(vectors), rows):
        yield start, np.array(vectors[start : start + rows])


def _write_parquet(path: Path, matrix: Path, record: str, chunk_rows: int, given: Sequence[Any] | None) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    shape = np.load(matrix, mmap_mode="r")
    kind = pa.list_(pa.from_numpy_dtype(shape.dtype), shape.shape[1])
    column = pa.array([], pa.int64()) if given is None else _id_column(given)
    fields = [pa.field("id", column.type, nullable=column.null_count > 0), pa.field("vector", kind)]
    schema = pa.schema(fields, metadata={METADATA: record.encode()})
    # Vectors hardly compress and repeat nothing: dictionaries would only cost time.
    with pq.ParquetWriter(path, schema, use_dictionary=False, compression="none") as writer:
        for start, vectors in _chunks(matrix, chunk_rows):
            ids = column.slice(start, len(vectors))
            if given is None:
                ids = pa.array(np.arange(start, start + len(vectors)), pa.int64())
            rows = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), type=kind)
            writer.write_table(pa.Table.from_arrays([ids, rows], schema=schema), row_group_size=chunk_rows)


def _write_jsonl(path: Path, matrix: Path, record: str, chunk_rows: int, given: Sequence[Any] | None) -> None:
    with open(path, "w", encoding="utf-8") as stream:
        for start, vectors in _chunks(matrix, chunk_rows):
            # The fewest digits that give back every value of the type.
            one = "%.9g" if vectors.dtype == np.float32 else "%.5g"
            line = '{"id": %s, "vector": [' + ", ".join([one] * vectors.shape[1]) + "]}\n"
            ids = range(start, start + len(vectors)) if given is None else given[start : start + len(vectors)]
            stream.writelines(line % (json.dumps(key), *row) for key, row in zip(ids, vectors.tolist(), strict=True))
