"""A file of texts to a file of vectors: any size, constant memory, and never from the start again after a break."""

from __future__ import annotations

import errno
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scions.data.texts import iter_texts
from scions.encoder.base_info import VectorSpace
from scions.errors import DataError, Interrupted, ScionsError, UsageError
from scions.vectors.writer import ResumableMatrix, check_ids, check_output, finish, recover

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_HEAD = 2**16  # bytes of the source that are hashed to know it again


@dataclass(frozen=True)
class EmbedReport:
    """What was written. ``truncated`` texts were longer than the encoder reads; ``resumed_from`` rows were there."""

    output: Path
    rows: int
    dimensions: int
    dtype: str
    truncated: int
    max_length: int | None
    resumed_from: int
    seconds: float
    space: VectorSpace

    @property
    def rows_per_second(self) -> float:
        """Rows of this run a second."""
        return (self.rows - self.resumed_from) / self.seconds if self.seconds > 0 else 0.0


def embed_file(
    encoder: SentenceTransformer,
    source: str | Path,
    output: str | Path,
    *,
    space: VectorSpace,
    column: str | None = None,
    prompt: str | None = None,
    batch_size: int = 64,
    chunk_rows: int = 4096,
    normalize: bool = True,
    dtype: str = "float32",
    resume: bool = False,
    force: bool = False,
    ids: Sequence[Any] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EmbedReport:
    """Write one vector for each row of ``source``, in its order.

    The source is read through once before anything is encoded, so that a row without a text is found at once.

    Args:
        encoder: what encodes.
        source: txt, jsonl, csv, tsv or parquet, each also gzipped.
        output: ``.npy`` (``[rows, dimensions]``), ``.parquet`` or ``.jsonl`` (``id`` and ``vector``).
        space: `space_of` the encoder; goes with the file.
        column: the column of the text; None recognises it.
        prompt: the name of one of the encoder's prompts (``query``, ``document``); None uses its default.
        batch_size: texts encoded together.
        chunk_rows: rows held in memory, and rows that an interruption loses at most.
        normalize: vectors of length 1.
        dtype: ``float32`` or ``float16``.
        resume: go on after the last complete chunk of an interrupted run.
        force: replace ``output``; without ``resume``, forget an interrupted run too.
        ids: of each row, for parquet and jsonl; None: numbers from 0.
        on_progress: called with rows done and rows in all, after every chunk.

    Raises:
        DataError: the source cannot be read, or a row has no text; names the row. Ids that ``output`` cannot hold.
        UsageError: an argument that cannot be served, or an ``output`` that exists.
        Interrupted: Ctrl-C; complete chunks are kept.
        ScionsError: the source or a setting changed since the run that is resumed; vectors that are not finite; a
            full disk.
    """
    source, output = Path(source), Path(output)
    check_output(output, source, dtype)
    if batch_size < 1 or chunk_rows < 1:
        raise UsageError(f"batch size and chunk rows must be at least 1, got {batch_size} and {chunk_rows}")
    if prompt is not None and prompt not in (encoder.prompts or {}):
        known = ", ".join(encoder.prompts or {}) or "none"
        raise UsageError(f"the encoder has no prompt {prompt!r}; it has {known}")
    matrix = ResumableMatrix(output)
    settled = recover(output)
    if not (settled and resume):
        _refuse_existing(output, matrix, resume, force)
    rows = sum(1 for _ in iter_texts(source, column))
    if rows == 0:
        raise DataError(f"{source}: has no rows")
    if ids is not None and len(ids) != rows:
        raise DataError(f"{source}: has {rows} rows, but {len(ids)} ids were given for them")
    check_ids(ids or (), output)
    settings = {
        "source": fingerprint_of(source),
        "rows": rows,
        "column": column,
        "space": space.fingerprint,
        # The fingerprint of queries is the base's: it does not say what was begun with.
        "adapter_version": space.adapter_version if space.query_side else None,
        "dimensions": space.dimensions,
        "normalize": normalize,
        "dtype": dtype,
        "prompt": prompt,
        "max_length": encoder.max_seq_length,
    }
    start = time.perf_counter()

    def report(truncated: int, resumed_from: int) -> EmbedReport:
        seconds, most = time.perf_counter() - start, encoder.max_seq_length
        return EmbedReport(output, rows, space.dimensions, dtype, truncated, most, resumed_from, seconds, space)

    if settled and resume:
        if settled["settings"] == settings:
            return report(settled["truncated"], rows)
        _refuse_existing(output, matrix, resume, force)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        if resume and matrix.exists():
            truncated = matrix.reopen(settings)
        else:
            matrix.start(rows, space.dimensions, dtype, settings)
            truncated = 0
        resumed_from = matrix.rows
        if on_progress is not None:
            on_progress(resumed_from, rows)
        for texts in _chunks(itertools.islice(iter_texts(source, column), resumed_from, None), chunk_rows):
            vectors = _encode(encoder, texts, prompt, batch_size, normalize, dtype, matrix.rows, space.dimensions)
            truncated += count_truncated(encoder, texts, prompt)
            matrix.append(vectors, truncated)
            if on_progress is not None:
                on_progress(matrix.rows, rows)
        if matrix.rows != rows or fingerprint_of(source) != settings["source"]:
            matrix.remove()
            raise ScionsError(f"{source}: was changed while it was read; nothing was written")
        finish(matrix, output, _record(space, settings, source, encoder, truncated), chunk_rows, ids)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped after {matrix.rows} of {rows} rows; what is done is kept in {matrix.path}. "
            "Go on with the same command and --resume"
        ) from None
    except OSError as error:
        raise _of_disk(error, output, matrix) from error
    return report(truncated, resumed_from)


def count_truncated(encoder: SentenceTransformer, texts: list[str], prompt: str | None = None) -> int:
    """How many of ``texts`` have more tokens than the encoder reads."""
    limit = encoder.max_seq_length
    before = (encoder.prompts or {}).get(prompt or encoder.default_prompt_name or "", "") or ""
    if not limit or encoder.tokenizer is None:
        return 0
    special = 2
    # A token is at least a byte, so only these can be too long.
    long = [before + text for text in texts if len((before + text).encode()) + special > limit]
    if not long:
        return 0
    tokenizer: Any = encoder.tokenizer
    ids = tokenizer(long, truncation=False, padding=False, verbose=False)["input_ids"]
    return sum(len(one) > limit for one in ids)


def _encode(
    encoder: SentenceTransformer,
    texts: list[str],
    prompt: str | None,
    batch_size: int,
    normalize: bool,
    dtype: str,
    first: int,
    dimensions: int,
) -> np.ndarray:
    vectors = np.asarray(
        encoder.encode(
            texts,
            prompt_name=prompt,
            batch_size=batch_size,
            show_progress_bar=False,
            convert_to_numpy=True,
            normalize_embeddings=normalize,
        )
    )
    if vectors.shape != (len(texts), dimensions):
        raise ScionsError(f"the encoder gave {vectors.shape} for {len(texts)} texts of {dimensions} dimensions")
    with np.errstate(over="ignore"):
        vectors = vectors.astype(dtype)
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        hint = "; the values may be too large for float16" if dtype == "float16" else ""
        raise ScionsError(f"the vector of row {first + int(broken[0]) + 1} is not finite{hint}; nothing was written")
    return vectors


def _chunks(texts: Iterator[str], rows: int) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(texts, rows)):
        yield chunk


def fingerprint_of(source: Path) -> dict[str, Any]:
    """What a file of texts is known again by: size, time of the last change, hash of its beginning."""
    status = source.stat()
    with open(source, "rb") as stream:
        head = hashlib.sha256(stream.read(_HEAD)).hexdigest()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "head_sha256": head}


def _record(
    space: VectorSpace, settings: dict[str, Any], source: Path, encoder: SentenceTransformer, truncated: int
) -> dict[str, Any]:
    described = asdict(space)
    return {
        "space": described.pop("fingerprint"),
        **described,
        "rows": settings["rows"],
        "dtype": settings["dtype"],
        # A model that ends in a normalising module gives unit vectors, asked or not.
        "normalized": settings["normalize"] or type(encoder[-1]).__name__ == "Normalize",
        "prompt": settings["prompt"],
        "max_length": settings["max_length"],
        "truncated": truncated,
        "source": {"name": source.name, "column": settings["column"], **settings["source"]},
    }


def _refuse_existing(output: Path, matrix: ResumableMatrix, resume: bool, force: bool) -> None:
    if force:
        return
    if output.exists():
        raise UsageError(f"{output}: exists already; choose another name, or replace it with --force")
    if matrix.exists() and not resume:
        raise UsageError(
            f"{output}: an interrupted run left its work in {matrix.path}; go on with --resume, or start over "
            "with --force"
        )


def _of_disk(error: OSError, output: Path, matrix: ResumableMatrix) -> ScionsError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ScionsError(
            f"{output}: the disk is full after {matrix.rows} rows; what is done is kept in {matrix.path}. "
            "Make room and go on with --resume"
        )
    return ScionsError(f"{output}: cannot be written: {error.strerror or error} ({error.filename})")
