"""Mine hard negatives: documents that the base ranks high for a query and that are not known to be relevant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scions.training.batches import SAME_TEXT
from scions.training.examples import Examples

# The first ranks hold most of the relevant documents that nobody has judged; far down negatives are easy.
FIRST_RANK, LAST_RANK = 3, 30


def mine_negatives(examples: Examples, vectors: np.ndarray, seed: int, count: int = 1) -> Examples:
    """Return ``examples`` with ``count`` mined negatives per row, drawn from ranks 3 to 30 of the base's ranking.

    Documents known to be relevant and those equal to the positive (cosine above 0.95) are left out. Sources: Xiong et
    al. 2021 (arXiv 2007.00808) for sampling a window of ranks; Qu et al. 2021 (arXiv 2010.08191) for leaving out
    likely false negatives.

    Args:
        examples: pairs; columns beyond the second are replaced.
        vectors: ``[texts, dimensions]``, unit vectors of the base.
        seed: seed of the draw.
        count: negatives per row.
    """
    rng = np.random.default_rng(seed)
    documents = np.unique(examples.columns[:, 1])
    documents = np.union1d(documents, [p for known in examples.relevant.values() for p in known]).astype(int)
    last = min(LAST_RANK, len(documents))
    mined = np.empty((len(examples), count), dtype=examples.columns.dtype)
    for start in range(0, len(examples), 512):
        anchors = examples.columns[start : start + 512, 0]
        similarity = vectors[anchors] @ vectors[documents].T
        top = np.argpartition(-similarity, last - 1, axis=1)[:, :last]
        for i, anchor in enumerate(anchors):
            positive = examples.columns[start + i, 1]
            ranked = documents[top[i][np.argsort(-similarity[i, top[i]])]]
            known = examples.relevant.get(int(anchor), set()) | {int(positive), int(anchor)}
            usable = [
                d for d in ranked[FIRST_RANK:] if int(d) not in known and vectors[d] @ vectors[positive] <= SAME_TEXT
            ]
            # A tiny corpus may leave nothing: then any document not known to be relevant; where all are relevant, any,
            # which the mask then leaves out.
            usable = usable or [d for d in documents if int(d) not in known] or list(documents)
            mined[start + i] = rng.choice(usable, size=count)
    return replace(examples, columns=np.concatenate([examples.columns[:, :2], mined], axis=1))
