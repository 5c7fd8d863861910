"""Move a file of vectors to another space: encode its texts again, in the same form, beside the old file."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scions.data.files import extension
from scions.data.shapes import spread_rows
from scions.data.texts import iter_texts
from scions.encoder.base_info import VectorSpace, space_of
from scions.encoder.loading import adapter_folder, load_encoder
from scions.errors import DataError
from scions.store import Manifest
from scions.store.names import BASE
from scions.vectors.embed import EmbedReport, embed_file
from scions.vectors.reader import read_outline
from scions.vectors.record import source_fingerprint
from scions.vectors.writer import recover

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_CONTENT = ("size", "head_sha256")
_SAMPLE = 128  # texts that speed is measured on


@dataclass(frozen=True)
class Migration:
    """What to do with one file. ``old`` is its record, ``ids`` are those of its rows."""

    vectors: Path
    texts: Path
    output: Path
    column: str | None
    rows: int
    old: dict[str, Any]
    ids: list[Any] | None
    space: VectorSpace

    @property
    def needed(self) -> bool:
        """Whether the vectors lie in another space than ``space``."""
        return str(self.old["space"]) != self.space.fingerprint

    @property
    def same_texts(self) -> bool:
        """Whether the texts are those of the old vectors, by size and hash in the old record."""
        before, now = self.old.get("source"), source_fingerprint(self.texts)
        return not isinstance(before, dict) or all(before.get(key, now[key]) == now[key] for key in _CONTENT)


def document_encoder(
    name: str | None, base: str | None = None, adapters: Path | None = None
) -> tuple[Any, VectorSpace]:
    """Return the encoder of documents for an adapter (``None`` or ``"base"``: the base), and their space.

    For a query-side adapter the encoder is its base.

    Raises:
        ScionsError: as `scions.encoder.loading.load_encoder`.
    """
    folder = None if name in (None, BASE) else adapter_folder(str(name), adapters)[0]
    if folder is not None:
        manifest = Manifest.read(folder)
        if manifest.query_side:
            encoder = load_encoder(BASE, base=base or manifest.base.id)
            return encoder, space_of(encoder, base=base or manifest.base.id)
    encoder = load_encoder(name, base=base, adapters=adapters)
    return encoder, space_of(encoder, folder)


def plan_migration(
    vectors: str | Path,
    texts: str | Path,
    space: VectorSpace,
    *,
    adapter: str | None = None,
    output: str | Path | None = None,
    column: str | None = None,
) -> Migration:
    """Check that ``texts`` fit ``vectors``, and plan where the new ones go.

    Args:
        vectors: the old file, with its record.
        texts: the file of its texts, one a row, in the same order.
        space: of the new vectors.
        adapter: names the new file, ``vectors.ADAPTER.npy``.
        output: the new file instead.
        column: of the texts; None takes the one in the old record, or recognizes it.

    Raises:
        DataError: no vectors or texts, or another number of texts than vectors.
    """
    vectors, texts = Path(vectors), Path(texts)
    recover(vectors)
    record, rows, ids = read_outline(vectors)
    source = record.get("source")
    if column is None and isinstance(source, dict) and texts.name == source.get("name") and extension(texts) != ".txt":
        column = source.get("column")
    text_rows = sum(1 for _ in iter_texts(texts, column))
    if text_rows != rows:
        raise DataError(
            f"{texts}: has {text_rows} rows, but {vectors} holds {rows} vectors; expected the texts they were made "
            "of, one a row"
        )
    beside = vectors.with_name(f"{vectors.stem}.{adapter or space.adapter or 'base'}{vectors.suffix}")
    return Migration(vectors, texts, Path(output) if output else beside, column, rows, record, ids, space)


def migrate(
    encoder: SentenceTransformer,
    plan: Migration,
    *,
    batch_size: int = 64,
    chunk_rows: int = 4096,
    resume: bool = False,
    force: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> EmbedReport:
    """Encode the texts of ``plan`` again, with the old file's dtype, normalization, prompt and ids.

    Arguments and errors are those of `scions.vectors.embed.embed_file`.
    """
    return embed_file(
        encoder,
        plan.texts,
        plan.output,
        space=plan.space,
        column=plan.column,
        prompt=plan.old.get("prompt"),
        batch_size=batch_size,
        chunk_rows=chunk_rows,
        normalize=bool(plan.old.get("normalised", True)),
        dtype=str(plan.old.get("dtype", "float32")),
        resume=resume,
        force=force,
        ids=plan.ids,
        on_progress=on_progress,
    )


def sample_of(texts: str | Path, column: str | None, rows: int) -> list[str]:
    """Return at most 128 texts of a file of ``rows`` rows, evenly spread over its first 20,000."""
    step = max(1, min(rows, 20_000) // _SAMPLE)
    return list(islice(iter_texts(texts, column), 0, step * _SAMPLE, step))


def rows_per_second(encoder: Any, texts: Sequence[str], *, batch_size: int = 64) -> float:
    """Measure how many texts a second ``encoder`` encodes here, on at most 128 of ``texts``, evenly spread."""
    if not texts:
        return 0.0
    sample = [texts[row] for row in spread_rows(len(texts), _SAMPLE)]
    encoder.encode(sample[:4], show_progress_bar=False)  # warm-up
    start = time.perf_counter()
    encoder.encode(sample, batch_size=batch_size, show_progress_bar=False)
    return len(sample) / max(time.perf_counter() - start, 1e-9)
