"""Build the manifest of a trained adapter."""

from __future__ import annotations

import hashlib
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from scions.data import Table, fingerprint
from scions.encoder.base_info import limit_of, pooling_of, row_space
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
from scions.version import __version__

DOMAIN_TEXTS = 1000


def build_manifest(
    setup: TrainSetup, fitted: FitResult, verdict: Verdict, base: SentenceTransformer, candidate: Path
) -> Manifest:
    """Return the manifest of an adapter.

    Args:
        setup: of its training.
        fitted: the finished training.
        verdict: on the adapter.
        base: the bare base.
        candidate: the folder with the adapter's weights.
    """
    plan, splits, options = setup.plan, setup.splits, setup.options
    transformer: Any = base[0].auto_model
    sha = base_fingerprint(base)
    pooling = pooling_of(base)
    dimensions = int(base.get_embedding_dimension() or 0)
    placement = {"placement": plan.method, "layers": options.layers}
    first = hashlib.sha256(f"{sha}|{plan.method}|{options.layers}|{plan.rank}|0".encode()).hexdigest()[:16]
    weights = base_fingerprint(str(candidate)) if plan.method == "full" else adapter_fingerprint(candidate)
    return Manifest(
        format_version=QUERY_SIDE_VERSION if plan.query_side else FORMAT_VERSION,
        name=str(options.name),
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
        max_length=limit_of(base) or 0,
        seed=options.seed,
        space_fingerprint=row_space(sha, weights, query_side=plan.query_side, pooling=pooling, dimensions=dimensions),
        prompts={key: value for key, value in (base.prompts or {}).items() if value},
        recipe=plan.recipe.to_dict(),
        scores={
            **verdict.to_dict(),
            "selection": [_finite(entry) for entry in fitted.history],
            "rows_per_second": fitted.rows_per_second,
        },
        domain=sample_statistics(splits.train, base),
        versions=_versions(),
    )


def sample_statistics(train: Table, base: SentenceTransformer) -> DomainStatistics:
    """Return mean and variance of the base's vectors of at most `DOMAIN_TEXTS` training texts, without prompts."""
    texts = train.texts()
    if len(texts) > DOMAIN_TEXTS:
        chosen = np.random.default_rng(0).choice(len(texts), DOMAIN_TEXTS, replace=False)
        texts = [texts[i] for i in chosen]
    return domain_statistics(domain_vectors(LiveEncoder(base), texts))


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "sentence-transformers", "peft")
    return {"scions": __version__, **{package: version(package) for package in packages}}


def _finite(entry: dict[str, Any]) -> dict[str, Any]:
    # JSON has no NaN; an epoch with an undefined score was never chosen.
    return {key: value if math.isfinite(value) else None for key, value in entry.items()}
