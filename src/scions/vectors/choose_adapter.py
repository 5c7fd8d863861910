"""`--adapter auto`: which adapter a file of texts goes to, decided once before the first vector."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

_FIRST = 1000  # rows that are read for it


def decide_for_file(
    texts: Path, output: Path, *, column: str | None, base: str | None, queries: bool, resume: bool
) -> tuple[str | None, str, str]:
    """An adapter's name (None: the base alone), the base's id, and what a person is told of it.

    Looks at 20 of the file's first rows, evenly spread. A run that is resumed keeps what it was begun with.

    Args:
        texts: the file.
        output: where vectors will be, or lie unfinished.
        column: of the text.
        base: None: the base that most adapters belong to.
        queries: whether query-side adapters are among the candidates.
        resume: go on with an interrupted run.

    Raises:
        AdapterError: there is no adapter that can be chosen by its domain.
        DataError: the file cannot be read, or has no rows.
        ScionsError: the base cannot be loaded.
    """
    from collections import Counter

    from scions.data.texts import iter_texts
    from scions.encoder.base_info import space_of
    from scions.errors import AdapterError, DataError
    from scions.routing.decision import calibration_for, decide
    from scions.routing.domains import Domains, domain_vectors, unroutable
    from scions.routing.sample import sample_rows
    from scions.store import base_fingerprint, default_root, list_adapters, load_base, resolve_base

    found = {e.path: e.manifest for e in list_adapters() if e.manifest is not None and e.problem is None}
    known = {path: m for path, m in found.items() if not unroutable(m) and (queries or not m.query_side)}
    wanted = base_fingerprint(resolve_base(base)) if base is not None else None
    if wanted is None and known:
        wanted = Counter(m.base.weights_sha256 for m in known.values()).most_common(1)[0][0]
    candidates = {path: m for path, m in known.items() if not unroutable(m, wanted)}
    if not candidates:
        raise AdapterError(f"{default_root()}: holds no adapter of this base that can be chosen by its domain")
    place = base or next(iter(candidates.values())).base.id
    model = load_base(place)
    domains = Domains.of_routable(
        {path.name: m.domain for path, m in candidates.items()}, int(model.get_embedding_dimension() or 0)
    )
    if domains is None:
        raise AdapterError(f"{default_root()}: the adapters' domain statistics are not of this base's dimensions")
    begun = _begun(output) if resume else None
    for folder in (None, *candidates) if begun else ():
        space = space_of(model, folder)
        if (space.fingerprint, space.adapter_version if space.query_side else None) == begun:
            name = None if folder is None else folder.name
            return name, place, f"auto: {name or 'the base alone'}, as the interrupted run was begun"
    first = list(itertools.islice(iter_texts(texts, column), _FIRST))
    if not first:
        raise DataError(f"{texts}: has no rows")
    some = [first[row] for row in sample_rows(len(first))]
    decision = decide(domain_vectors(model, some), domains, calibration_for(len(some)))
    told = f"auto: {decision.adapter or 'the base alone'} (confidence {decision.confidence:.2f}, by {len(some)} texts)"
    return decision.adapter, place, told


def _begun(output: Path) -> tuple[str, str | None] | None:
    """The space of an unfinished run, and the version of its query-side adapter."""
    from scions.vectors.writer import ResumableMatrix

    matrix = ResumableMatrix(output)
    try:
        if not matrix.exists():
            return None
        settings = json.loads(matrix.state_path.read_bytes())["settings"]
        return str(settings["space"]), settings.get("adapter_version")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # who goes on with it says what is wrong
