"""What an adapter's manifest says of its training."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from scions.data import Table, fingerprint
from scions.encoder.base_info import limit_of, max_length_of, pooling_of, row_space
from scions.evaluation.verdict import Verdict
from scions.routing.domains import domain_statistics, domain_vectors
from scions.store import (
    Base,
    DataRecord,
    DomainStatistics,
    Initialization,
    Manifest,
    adapter_fingerprint,
    base_fingerprint,
)
from scions.store.manifest import FORMAT_VERSION, QUERY_SIDE_VERSION
from scions.training.fit import FitResult
from scions.training.live_encoder import LiveEncoder
from scions.training.prepare import TrainSetup


def build_manifest(
    name: str,
    prepared: TrainSetup,
    fitted: FitResult,
    verdict: Verdict,
    base_model: SentenceTransformer,
    candidate: Path,
    seed: int,
    layers: int | None,
) -> Manifest:
    """The manifest of the adapter whose files lie in ``candidate``; ``base_model`` is the bare base."""
    plan, splits = prepared.plan, prepared.splits
    transformer: Any = base_model[0].auto_model
    sha = base_fingerprint(base_model)
    pooling = pooling_of(base_model)
    dimensions = int(base_model.get_embedding_dimension() or 0)
    placement = {"placement": plan.method, "layers": layers}
    first = hashlib.sha256(f"{sha}|{plan.method}|{layers}|{plan.rank}|0".encode()).hexdigest()[:16]
    weights = base_fingerprint(str(candidate)) if plan.method == "full" else adapter_fingerprint(candidate)
    return Manifest(
        format_version=QUERY_SIDE_VERSION if plan.query_side else FORMAT_VERSION,
        name=name,
        base=Base(
            id=plan.base,
            weights_sha256=sha,
            architecture=str(transformer.config.model_type),
            hidden_size=int(transformer.config.hidden_size),
            layers=int(transformer.config.num_hidden_layers),
        ),
        method=plan.method,
        query_side=plan.query_side,
        placement=placement,
        rank=plan.rank or None,
        trainable_parameters=plan.trainable_parameters,
        trainable_share=plan.trainable_share,
        initialisation=Initialization(seed=0, id=first),
        data=DataRecord(
            source=Path(splits.train.source).name,
            fingerprint=fingerprint(splits.train),
            shape=plan.shape,
            rows=plan.rows,
            truncated={"train": fitted.truncated},
            notes=plan.notes,
        ),
        pooling=pooling,
        max_length=limit_of(base_model) or 0,
        seed=seed,
        space_fingerprint=row_space(sha, weights, query_side=plan.query_side, pooling=pooling, dimensions=dimensions),
        prompts={key: value for key, value in (base_model.prompts or {}).items() if value},
        recipe=plan.recipe.to_dict(),
        scores={
            **verdict.to_dict(),
            "selection": [_finite(entry) for entry in fitted.history],
            "rows_per_second": fitted.rows_per_second,
        },
        domain=_statistics(splits.train, base_model),
        versions=_versions(),
    )


def _statistics(train: Table, base_model: SentenceTransformer, most: int = 1000) -> DomainStatistics:
    texts = train.texts()
    if len(texts) > most:
        chosen = np.random.default_rng(0).choice(len(texts), most, replace=False)
        texts = [texts[i] for i in chosen]
    return domain_statistics(domain_vectors(LiveEncoder(base_model, max_length_of(base_model)), texts))


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    packages = ("torch", "transformers", "sentence-transformers", "peft")
    from scions.version import __version__

    return {"scions": __version__, **{package: version(package) for package in packages}}


def _finite(entry: dict[str, Any]) -> dict[str, Any]:
    # JSON has no NaN; an epoch whose score is none was never chosen.
    return {key: value if math.isfinite(value) else None for key, value in entry.items()}
