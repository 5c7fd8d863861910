"""Embed a file of texts of any size in constant memory; an interrupted run can be resumed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scions.data.texts import iter_texts
from scions.encoder.base_info import VectorSpace, limit_of
from scions.errors import DataError, Interrupted, ScionsError, UsageError
from scions.store.disk_errors import is_full
from scions.vectors.record import make_record, source_fingerprint, space_settings
from scions.vectors.writer import ResumableMatrix, check_ids, check_output, finish, recover

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True)
class EmbedReport:
    """What was written.

    ``truncated`` counts the texts longer than the encoder reads, ``resumed_from`` the rows of an interrupted run.
    """

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
    """Write one vector for each row of ``source``, in order.

    The source is read once before anything is encoded, so that a row without a text is reported at once.

    Args:
        encoder: the encoder.
        source: txt, jsonl, csv, tsv or parquet, each also gzipped.
        output: ``.npy`` (``[rows, dimensions]``), ``.parquet`` or ``.jsonl`` (``id`` and ``vector``).
        space: `space_of` the encoder, for the record.
        column: the column of the text; None recognizes it.
        prompt: the name of one of the encoder's prompts (``query``, ``document``); None uses its default.
        batch_size: texts encoded together.
        chunk_rows: rows held in memory, and rows that an interruption loses at most.
        normalize: vectors of length 1.
        dtype: ``float32`` or ``float16``.
        resume: continue after the last complete chunk of an interrupted run.
        force: replace ``output``; without ``resume``, discard an interrupted run too.
        ids: of each row, for parquet and jsonl; None: numbers from 0.
        on_progress: called with rows done and all rows, after every chunk.

    Raises:
        DataError: the source cannot be read, a row has no text (names the row), or ``output`` cannot hold the ids.
        UsageError: an invalid argument, or an ``output`` that exists.
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
    recovered = recover(output)
    if not (recovered and resume):
        _refuse_existing(output, matrix, resume, force)
    rows = sum(1 for _ in iter_texts(source, column))
    if rows == 0:
        raise DataError(f"{source}: has no rows")
    if ids is not None and len(ids) != rows:
        raise DataError(f"{source}: has {rows} rows, but {len(ids)} ids were passed")
    check_ids(ids or (), output)
    limit = limit_of(encoder)
    settings = {
        "source": source_fingerprint(source),
        "rows": rows,
        "column": column,
        **space_settings(space),
        "normalize": normalize,
        "dtype": dtype,
        "prompt": prompt,
        "max_length": limit,
    }
    start = time.perf_counter()

    def report(truncated: int, resumed_from: int) -> EmbedReport:
        seconds = time.perf_counter() - start
        return EmbedReport(output, rows, space.dimensions, dtype, truncated, limit, resumed_from, seconds, space)

    if recovered and resume:
        if recovered["settings"] == settings:
            return report(recovered["truncated"], rows)
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
            vectors = encoder.encode(
                texts,
                prompt_name=prompt,
                batch_size=batch_size,
                show_progress_bar=False,
                convert_to_numpy=True,
                normalize_embeddings=normalize,
            )
            truncated += count_truncated(encoder, texts, prompt)
            matrix.append(_checked(vectors, (len(texts), space.dimensions), dtype, matrix.rows), truncated)
            if on_progress is not None:
                on_progress(matrix.rows, rows)
        if matrix.rows != rows or source_fingerprint(source) != settings["source"]:
            matrix.remove()
            raise ScionsError(f"{source}: was changed while it was read; nothing was written")
        finish(matrix, output, make_record(space, settings, source, encoder, truncated), chunk_rows, ids)
    except KeyboardInterrupt:
        raise Interrupted(
            f"stopped after {matrix.rows} of {rows} rows; they are kept in {matrix.path}. "
            "Repeat the same call with `resume=True` to continue"
        ) from None
    except OSError as error:
        raise _disk_error(error, output, matrix) from error
    return report(truncated, resumed_from)


def count_truncated(encoder: SentenceTransformer, texts: list[str], prompt: str | None = None) -> int:
    """Return how many of ``texts`` have more tokens than the encoder reads."""
    limit, tokenizer = limit_of(encoder), encoder.tokenizer
    before = (encoder.prompts or {}).get(prompt or encoder.default_prompt_name or "", "") or ""
    if not limit or tokenizer is None:
        return 0
    special = 2
    # A token is at least a byte, so only these can be too long.
    long = [before + text for text in texts if len((before + text).encode()) + special > limit]
    ids = tokenizer(long, truncation=False, padding=False, verbose=False)["input_ids"] if long else []
    return sum(len(tokens) > limit for tokens in ids)


def _checked(vectors: Any, shape: tuple[int, int], dtype: str, first_row: int) -> np.ndarray:
    """Return the vectors as ``dtype``. Raise ScionsError where they have another shape or are not finite."""
    vectors = np.asarray(vectors)
    if vectors.shape != shape:
        raise ScionsError(f"the encoder returned {vectors.shape} for {shape[0]} texts of {shape[1]} dimensions")
    with np.errstate(over="ignore"):
        vectors = vectors.astype(dtype)
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        hint = "; the values may be too large for float16" if dtype == "float16" else ""
        row = first_row + int(broken[0]) + 1
        raise ScionsError(f"the vector of row {row} is not finite{hint}; nothing was written")
    return vectors


def _chunks(texts: Iterator[str], rows: int) -> Iterator[list[str]]:
    while chunk := list(itertools.islice(texts, rows)):
        yield chunk


def _refuse_existing(output: Path, matrix: ResumableMatrix, resume: bool, force: bool) -> None:
    if force:
        return
    if output.exists():
        raise UsageError(f"{output}: exists already; choose another name, or replace it with `force=True`")
    if matrix.exists() and not resume:
        raise UsageError(
            f"{output}: an interrupted run left its work in {matrix.path}; continue with `resume=True`, or start again "
            "with `force=True`"
        )


def _disk_error(error: OSError, output: Path, matrix: ResumableMatrix) -> ScionsError:
    if is_full(error):
        return ScionsError(
            f"{output}: the disk is full after {matrix.rows} rows; they are kept in {matrix.path}. "
            "Make room and continue with `resume=True`"
        )
    return ScionsError(f"{output}: cannot be written: {error.strerror or error} ({error.filename})")
