"""Choose the adapter for a file of texts (``auto``), once and before the first vector."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from scions.data.texts import iter_texts
from scions.encoder.base_info import space_of
from scions.errors import AdapterError, DataError
from scions.routing.decision import calibration_for, decide
from scions.routing.domains import Domains, domain_vectors, unroutable
from scions.routing.sample import sample_rows
from scions.store import base_fingerprint, default_root, list_adapters, load_base, resolve_base
from scions.vectors.record import space_settings
from scions.vectors.writer import ResumableMatrix

_READ_ROWS = 1000


@dataclass(frozen=True)
class FileChoice:
    """The name of the chosen adapter (None: the base alone), the base to load, and why."""

    adapter: str | None
    base: str
    reason: str


def choose_adapter(
    texts: Path, output: Path, *, column: str | None, base: str | None, queries: bool, resume: bool
) -> FileChoice:
    """Choose by 20 of the first 1,000 rows, evenly spread; an interrupted run keeps its adapter.

    Args:
        texts: the file.
        output: the file of vectors, finished or not.
        column: of the text.
        base: None: the base that most adapters belong to.
        queries: whether query-side adapters are among the candidates.
        resume: whether an interrupted run is to be resumed.

    Raises:
        AdapterError: no adapter has domain statistics that fit the base.
        DataError: the file cannot be read, or has no rows.
        ScionsError: the base cannot be loaded.
    """
    manifests = {e.path: e.manifest for e in list_adapters() if e.manifest is not None and e.problem is None}
    routable = {p: m for p, m in manifests.items() if not unroutable(m) and (queries or not m.query_side)}
    wanted = base_fingerprint(resolve_base(base)) if base is not None else None
    if wanted is None and routable:
        wanted = Counter(m.base.weights_sha256 for m in routable.values()).most_common(1)[0][0]
    candidates = {path: m for path, m in routable.items() if m.base.weights_sha256 == wanted}
    if not candidates:
        raise AdapterError(f"{default_root()}: holds no adapter of this base that can be chosen by its domain")
    place = base or next(iter(candidates.values())).base.id
    model = load_base(place)
    statistics = {path.name: m.domain for path, m in candidates.items()}
    domains = Domains.of_routable(statistics, int(model.get_embedding_dimension() or 0))
    if domains is None:
        raise AdapterError(f"{default_root()}: the adapters' domain statistics are not of this base's dimensions")
    settings = ResumableMatrix(output).settings() if resume else {}
    for folder in (None, *candidates) if settings else ():
        space = space_of(model, folder)
        if all(settings.get(key) == value for key, value in space_settings(space).items()):
            name = None if folder is None else folder.name
            return FileChoice(name, place, f"auto: {name or 'the base alone'}, as the interrupted run was begun")
    rows = list(itertools.islice(iter_texts(texts, column), _READ_ROWS))
    if not rows:
        raise DataError(f"{texts}: has no rows")
    sample = [rows[row] for row in sample_rows(len(rows))]
    decision = decide(domain_vectors(model, sample), domains, calibration_for(len(sample)))
    chosen = decision.adapter or "the base alone"
    reason = f"auto: {chosen} (confidence {decision.confidence:.2f}, by {len(sample)} texts)"
    return FileChoice(decision.adapter, place, reason)
