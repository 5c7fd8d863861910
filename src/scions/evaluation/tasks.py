"""Score an encoder on a table by the metrics of its shape."""

from __future__ import annotations

from scions.data.shapes import Shape, Table
from scions.errors import DataError
from scions.evaluation.encoders import Encoder
from scions.evaluation.label_tasks import labelled, same_label_ap
from scions.evaluation.pair_tasks import binary, scored
from scions.evaluation.retrieval_tasks import candidates, retrieval, texts
from scions.evaluation.scores import Evaluation

_BY_SHAPE = {
    Shape.TEXTS: texts,
    Shape.PAIRS: retrieval,
    Shape.TRIPLETS: retrieval,
    Shape.RETRIEVAL: retrieval,
    Shape.SCORED: scored,
    Shape.BINARY: binary,
    Shape.CANDIDATES: candidates,
}


def evaluate(
    encoder: Encoder, table: Table, *, batch_size: int = 64, seed: int = 0, few_shot: Table | None = None
) -> Evaluation:
    """Score an encoder on a table, by the metrics of the table's shape.

    Primary metrics: scored `spearman`, binary `average_precision`, pairs, triplets and retrieval `ndcg@10`,
    candidates `map`, labelled `v_measure`, texts `halves_ndcg@10` (a proxy). few_shot: labelled training rows, used by
    a labelled table only. Raises DataError where the table cannot be scored.
    """
    _require_rows(table)
    if table.shape is Shape.LABELLED:
        return labelled(encoder, table, batch_size, seed, few_shot)
    return _BY_SHAPE[table.shape](encoder, table, batch_size)


def dev_score(encoder: Encoder, table: Table, *, batch_size: int = 64, seed: int = 0) -> float:
    """Return the score x100 that settings are chosen by: the primary metric, but `same_label_ap` for labelled rows.

    K-means is slow and noisy, too much so to choose between similar settings.
    """
    _require_rows(table)
    if table.shape is Shape.LABELLED:
        return same_label_ap(encoder, table, batch_size, seed)
    return evaluate(encoder, table, batch_size=batch_size, seed=seed).value


def _require_rows(table: Table) -> None:
    if len(table) == 0:
        raise DataError(f"{table.source}: there are no rows to score.")
