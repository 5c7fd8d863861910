"""Score base and adapter on held-out rows and on general text, and draw the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

from sentence_transformers import SentenceTransformer

from scions.encoder.query_side import QuerySideEncoder
from scions.errors import DataError
from scions.evaluation import CachedEncoder, Evaluation, drift_of, evaluate
from scions.evaluation.reindex_cost import reindexing_of
from scions.evaluation.verdict import Verdict, judge
from scions.store import load_base
from scions.training.baselines.trained import TWO_SIDED
from scions.training.live_encoder import exact_encoder
from scions.training.prepare import TrainSetup
from scions.training.query_side import documents_of
from scions.training.trainer import TrainingDiverged


@dataclass
class ScoredModel:
    """A model with its scores.

    Attributes:
        encoder: the model as it was scored: a query-side adapter encodes queries, the base documents.
        test: on the held-out rows.
        general: on the user's rows of general text, where there are any.
        drift: Spearman x100 between the base's and the adapter's similarities of general pairs, where there are none.
    """

    model: SentenceTransformer
    encoder: CachedEncoder
    test: Evaluation
    general: Evaluation | None = None
    drift: float | None = None


def score_base(setup: TrainSetup) -> ScoredModel:
    """Score the bare base. Before the training: rows that cannot be scored show at once."""
    if setup.index is not None:
        return _score(setup, setup.index.base, CachedEncoder(setup.index.encoder()))
    model = load_base(setup.base_path)
    return _score(setup, model, exact_encoder(model))


def score_adapter(setup: TrainSetup, model: SentenceTransformer, base: ScoredModel) -> ScoredModel:
    """Score the reloaded adapter.

    Raises:
        TrainingDiverged: a figure is undefined where the base's is not: all texts have the same vector.
    """
    encoder = exact_encoder(model)
    if setup.index is not None:
        encoder = CachedEncoder(QuerySideEncoder(encoder, base.encoder))
    adapter = _score(setup, model, encoder)
    figures = [(base.test.value, adapter.test.value)]
    if base.general is not None and adapter.general is not None:
        figures.append((base.general.value, adapter.general.value))
    elif setup.drift_pairs:
        with suppress(OSError, DataError):
            adapter.drift = drift_of(base.encoder, encoder, setup.drift_pairs)
            figures.append((100.0, adapter.drift))
    if any(math.isfinite(before) and not math.isfinite(after) for before, after in figures):
        raise TrainingDiverged(
            "training diverged: the adapter gives all texts the same vector. Nothing was published. "
            f"Try a lower learning rate (now `learning_rate={setup.plan.recipe.learning_rate:g}`)"
        )
    return adapter


def _score(setup: TrainSetup, model: SentenceTransformer, encoder: CachedEncoder) -> ScoredModel:
    test = evaluate(encoder, setup.splits.test, few_shot=setup.splits.train)
    return ScoredModel(model, encoder, test, None if setup.general is None else evaluate(encoder, setup.general))


def draw_verdict(
    setup: TrainSetup, base: ScoredModel, adapter: ScoredModel, baselines: Mapping[str, Evaluation]
) -> Verdict:
    """Judge the adapter against the base; of a query-side training, also measure what re-indexing would cost."""
    general = None if base.general is None or adapter.general is None else (base.general, adapter.general)
    verdict = judge(
        base.test,
        adapter.test,
        general=general,
        drift=adapter.drift,
        baselines=dict(baselines),
        max_general_loss=setup.options.max_general_loss,
    )
    if setup.index is None:
        return verdict
    texts = list(setup.index.texts) or documents_of(setup.splits)
    cost = reindexing_of(
        adapter.model, texts, setup.index.documents, base.test, verdict.difference, baselines.get(TWO_SIDED)
    )
    return replace(verdict, reindexing=cost)
