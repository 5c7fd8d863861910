"""Score rows of a text and its label: clustering, few-shot classification, similarity of equal labels."""

from __future__ import annotations

import numpy as np

from scions.data.groups import group_rows
from scions.data.shapes import Shape, Table
from scions.encoder.base_info import rows_by_key
from scions.errors import DataError, UsageError
from scions.evaluation import metrics
from scions.evaluation.encoders import Encoder, Vectors, encode_texts
from scions.evaluation.scores import (
    Evaluation,
    MeanOfUnits,
    Recompute,
    SameLabelOfUnits,
    VMeasureOfUnits,
    concluded,
)

MAX_ROWS = 6000
MAX_PAIRED_ROWS = 1500
CLUSTERINGS = 10
SHOTS = 10
DRAWS = 5


def labelled(
    encoder: Encoder,
    table: Table,
    batch_size: int = 64,
    seed: int = 0,
    few_shot: Table | None = None,
    clusterings: int = CLUSTERINGS,
) -> Evaluation:
    """Return `v_measure`, `same_label_ap` and, with `few_shot`, `few_shot_accuracy`; a unit is a row.

    v_measure: k-means into as many clusters as there are labels, mean over `clusterings` seeds.
    same_label_ap: average precision of "same label" by cosine over all pairs of at most 1500 drawn rows.
    few_shot_accuracy: logistic regression on 10 rows of each label drawn from `few_shot`, mean of 5 draws; left out
    where the two tables share no label. A label that `few_shot` lacks counts as wrong.
    Of a table beyond 6000 rows, 6000 drawn with `seed` are scored.
    Raises DataError for fewer than two labels, UsageError where `few_shot` is not labelled.
    """
    table = _drawn(table, seed)
    vectors, labels = _encoded(encoder, table, batch_size)
    same = _same_label(vectors, labels, seed)
    every = np.arange(len(same.labels))
    units: dict[str, Recompute] = {
        "v_measure": VMeasureOfUnits(labels, _clusters(vectors, int(labels.max()) + 1, clusterings, seed)),
        "same_label_ap": same,
    }
    if few_shot is not None:
        if few_shot.shape is not Shape.LABELLED:
            raise UsageError(f"few_shot must be a labelled table; {few_shot.source} is {few_shot.shape.value}.")
        right = _few_shot_right(encoder, table, vectors, few_shot, batch_size, seed)
        if right is not None:
            units["few_shot_accuracy"] = MeanOfUnits(right)
    return concluded(
        Shape.LABELLED,
        "v_measure",
        units,
        table.columns["text"],
        full={"same_label_ap": same.of(every)},
        groups=group_rows(table)[0],
    )


def same_label_ap(encoder: Encoder, table: Table, batch_size: int = 64, seed: int = 0) -> float:
    """Return `same_label_ap` alone, x100: a quick score to choose settings on dev."""
    table = _drawn(table, seed)
    vectors, labels = _encoded(encoder, table, batch_size)
    same = _same_label(vectors, labels, seed)
    return 100.0 * same.of(np.arange(len(same.labels)))


def _drawn(table: Table, seed: int) -> Table:
    if len(set(table.columns["label"])) < 2:
        raise DataError(f"{table.source}: {len(set(table.columns['label']))} label found; at least two are needed.")
    if len(set(table.columns["label"])) == len(table):
        raise DataError(f"{table.source}: no label has two rows, so no two texts share one.")
    if len(table) <= MAX_ROWS:
        return table
    rows = np.random.default_rng(seed).choice(len(table), MAX_ROWS, replace=False)
    return table.take(sorted(rows.tolist()))


def _encoded(encoder: Encoder, table: Table, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
    texts = table.columns["text"]
    labels = metrics.dense_codes(np.array([str(label) for label in table.columns["label"]]))
    return encode_texts(encoder, texts, batch_size=batch_size).of(texts), labels


def _same_label(vectors: np.ndarray, labels: np.ndarray, seed: int) -> SameLabelOfUnits:
    rng = np.random.default_rng(seed)
    drawn = np.sort(rng.permutation(len(labels))[:MAX_PAIRED_ROWS])
    return SameLabelOfUnits(drawn, vectors[drawn], labels[drawn], len(labels))


def _clusters(vectors: np.ndarray, k: int, clusterings: int, seed: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    k = min(k, len(np.unique(vectors, axis=0)))
    return np.stack(
        [KMeans(k, n_init=1, random_state=seed + i).fit_predict(vectors).astype(np.int64) for i in range(clusterings)]
    )


def _few_shot_right(
    encoder: Encoder, table: Table, vectors: np.ndarray, few_shot: Table, batch_size: int, seed: int
) -> np.ndarray | None:
    from sklearn.linear_model import LogisticRegression

    gold = np.array([str(label) for label in table.columns["label"]])
    rows_of = rows_by_key(map(str, few_shot.columns["label"]))
    if len(rows_of) < 2 or not set(rows_of) & set(gold.tolist()):
        return None
    rng = np.random.default_rng(seed)
    draws = [
        [row for label in sorted(rows_of) for row in rng.permutation(rows_of[label])[:SHOTS].tolist()]
        for _ in range(DRAWS)
    ]
    texts = few_shot.columns["text"]
    known: Vectors = encode_texts(encoder, [texts[row] for draw in draws for row in draw], batch_size=batch_size)
    right = np.zeros(len(gold))
    for draw in draws:
        # Unit vectors are short along every axis, so scikit-learn's default C = 1 would shrink the classes together.
        model = LogisticRegression(C=10.0, max_iter=1000)
        model.fit(known.of(texts[row] for row in draw), [str(few_shot.columns["label"][row]) for row in draw])
        right += model.predict(vectors) == gold
    return right / len(draws)
