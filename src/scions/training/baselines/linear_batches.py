"""Batches of frozen vectors with the loss of each data shape, for a linear map."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from sentence_transformers.sentence_transformer.losses import CoSENTLoss

from scions.data.shapes import Shape, Table
from scions.encoder.base_info import rows_by_key
from scions.errors import DataError
from scions.training.objectives import retrieval_loss

Mapped = Callable[[torch.Tensor], torch.Tensor]
Loss = Callable[[Mapped], torch.Tensor]

LARGEST_BATCH = 256
SMALLEST_BATCH = 16
BATCHES = 20  # least number per epoch, where there are enough rows: a few hundred rows must not end after ten steps
SCALE = 20.0
VectorsOf = Callable[[Sequence[str], "str | None"], np.ndarray]


def batches_of(train: Table, vectors_of: VectorsOf, seed: int) -> Callable[[], Iterator[Loss]]:
    """Return a function that yields one epoch of losses.

    Each loss takes the map: ``[n, dimensions]`` to unit vectors ``[n, dimensions]``. ``vectors_of`` returns the frozen
    vectors ``[n, dimensions]`` of texts of a role (None, ``"query"``, ``"document"``).

    Raises:
        DataError: the table has too few rows to learn from.
    """
    rng = np.random.default_rng(seed)
    if train.shape in (Shape.SCORED, Shape.BINARY):
        return _graded(train, vectors_of, rng)
    if train.shape is Shape.LABELLED:
        return _labeled_rows(train, vectors_of, rng)
    return _contrastive(train, vectors_of, rng)


def same_label_nce(vectors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Supervised contrast (Khosla et al. 2020): mean log-likelihood of the rows of the same label.

    ``vectors`` are unit vectors ``[n, dimensions]``, ``labels`` ``[n]``, each at least twice.
    """
    self_pairs = torch.eye(len(vectors), dtype=torch.bool)
    likely = (SCALE * vectors @ vectors.T).masked_fill(self_pairs, float("-inf")).log_softmax(dim=1)
    same = (labels[:, None] == labels[None, :]) & ~self_pairs
    return -(likely.masked_fill(~same, 0.0).sum(dim=1) / same.sum(dim=1)).mean()


def _graded(train: Table, vectors_of: VectorsOf, rng: np.random.Generator) -> Callable[[], Iterator[Loss]]:
    first = torch.from_numpy(vectors_of(train.columns["sentence1"], None))
    second = torch.from_numpy(vectors_of(train.columns["sentence2"], None))
    gold_column = train.columns["score" if train.shape is Shape.SCORED else "label"]
    gold = torch.tensor([float(x) for x in gold_column])
    cosent = CoSENTLoss(None, scale=SCALE)

    def epoch() -> Iterator[Loss]:
        for rows in _chunks(rng.permutation(len(gold))):
            yield lambda mapped, rows=rows: cosent.compute_loss_from_embeddings(  # type: ignore[misc]
                [mapped(first[rows]), mapped(second[rows])], gold[rows]
            )

    return epoch


def _labeled_rows(train: Table, vectors_of: VectorsOf, rng: np.random.Generator) -> Callable[[], Iterator[Loss]]:
    vectors = torch.from_numpy(vectors_of(train.columns["text"], None))
    groups = [np.array(rows) for rows in rows_by_key(map(str, train.columns["label"])).values() if len(rows) > 1]
    if len(groups) < 2:
        raise DataError(f"{train.source}: a linear map needs two labels or more with two rows each.")
    size = batch_size(len(vectors))
    at_once = min(len(groups), size // 4)
    each = max(2, size // at_once)

    def epoch() -> Iterator[Loss]:
        for _ in range(max(1, len(vectors) // size)):
            picked = [
                (label, rng.permutation(groups[label])[:each])
                for label in rng.choice(len(groups), at_once, replace=False)
            ]
            rows = torch.from_numpy(np.concatenate([rows for _, rows in picked]))
            labels = torch.tensor([label for label, rows in picked for _ in rows])
            yield lambda mapped, rows=rows, labels=labels: same_label_nce(mapped(vectors[rows]), labels)  # type: ignore[misc]

    return epoch


def _contrastive(train: Table, vectors_of: VectorsOf, rng: np.random.Generator) -> Callable[[], Iterator[Loss]]:
    rows = list(_triples(train))
    if len(rows) < 2:
        raise DataError(f"{train.source}: a linear map needs at least two pairs to contrast; found {len(rows)}.")
    queries = {text: i for i, text in enumerate(dict.fromkeys(q for q, _, _ in rows))}
    documents = {t: i for i, t in enumerate(dict.fromkeys(t for _, p, n in rows for t in (p, *n)))}
    query_vectors = torch.from_numpy(vectors_of(list(queries), "query"))
    document_vectors = torch.from_numpy(vectors_of(list(documents), "document"))
    relevant = np.unique([queries[q] * len(documents) + documents[p] for q, p, _ in rows])

    def epoch() -> Iterator[Loss]:
        for chunk in _chunks(rng.permutation(len(rows))):
            part = [rows[i] for i in chunk.tolist()]
            anchors = [queries[q] for q, _, _ in part]
            negatives = [documents[n[int(rng.integers(len(n)))]] for _, _, n in part if n]
            candidates = [*(documents[p] for _, p, _ in part), *negatives]
            # Another positive of the same query is no negative.
            both = np.array(anchors)[:, None] * len(documents) + np.array(candidates)
            mask = torch.from_numpy(np.isin(both, relevant)).fill_diagonal_(False)
            yield lambda mapped, anchors=anchors, candidates=candidates, mask=mask: retrieval_loss(  # type: ignore[misc]
                mapped(query_vectors[anchors]),
                mapped(document_vectors[candidates]),
                torch.arange(len(mask)),
                mask,
                SCALE,
            )

    return epoch


def _triples(train: Table) -> Iterator[tuple[str, str, list[str]]]:
    """Yield (query, one positive, its negatives)."""
    if train.shape is Shape.RETRIEVAL:
        corpus = train.corpus or {}
        for query, judged in train.rows():
            for key, grade in judged.items():
                if grade > 0 and key in corpus:
                    yield query, corpus[key], []
    elif train.shape is Shape.CANDIDATES:
        for query, good, bad in train.rows():
            for positive in good:
                yield query, positive, list(bad)
    else:
        for anchor, positive, *negatives in train.rows():
            yield anchor, positive, negatives


def batch_size(rows: int) -> int:
    """Return the rows of a batch: 256, or as few as 16 where an epoch would have fewer than 20 batches."""
    return min(LARGEST_BATCH, max(SMALLEST_BATCH, rows // BATCHES))


def _chunks(order: np.ndarray) -> Iterator[np.ndarray]:
    size = batch_size(len(order))
    for start in range(0, len(order), size):
        # A single row has nothing to be compared with.
        if len(order) - start > 1:
            yield order[start : start + size]
