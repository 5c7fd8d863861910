"""Train queries alone: documents are constants, with the vectors that an index of the base already holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from scions.data import Shape, Splits
from scions.data.texts import iter_texts
from scions.encoder.base_info import space_of
from scions.encoder.query_side import KnownDocuments
from scions.engine.precision import frozen_in_bf16
from scions.errors import UsageError
from scions.training.batches import PlannedSteps
from scions.training.examples import Examples
from scions.training.live_encoder import LiveEncoder, prompt_of
from scions.training.recipe import Recipe, choose_recipe
from scions.training.tokens import Tokens
from scions.vectors.reader import VectorFile, known_documents, read_vectors

# Contrasted with the queries of every step. 16,384 vectors of 384 numbers are 25 MB.
MAX_DOCUMENTS = 16_384
SHAPES = (Shape.PAIRS, Shape.TRIPLETS, Shape.CANDIDATES, Shape.RETRIEVAL)


def check_query_side(shape: Shape, objective: str) -> None:
    """Raise UsageError where the rows have no queries and documents."""
    if shape not in SHAPES:
        shapes = ", ".join(known.value for known in SHAPES)
        raise UsageError(
            f"`query_side=True` trains queries to find documents, and in {shape.value} data no text is a query: give "
            f"rows of the shapes {shapes}, or train without `query_side=True` and embed the documents anew (scions "
            "reindex)"
        )
    if objective != "contrastive":
        raise UsageError(
            f"`query_side=True` contrasts queries with documents, and `objective={objective!r}` has none: leave out "
            "`objective=...`, or train without `query_side=True`"
        )


def documents_of(splits: Splits) -> list[str]:
    """Return the distinct documents of all parts, in order of appearance."""
    documents: dict[str, None] = {}
    for table in (splits.train, splits.dev, splits.test):
        if table.shape is Shape.RETRIEVAL:
            documents |= dict.fromkeys((table.corpus or {}).values())
        else:
            documents |= dict.fromkeys(text for _, *others in table.row_texts() for text in others)
    return list(documents)


@dataclass
class DocumentVectors:
    """The documents of an index of the base, cut at the base's own length, never at the training's.

    Attributes:
        base: the frozen base.
        documents: number of documents.
        file: existing vectors; None: all are computed.
        texts: the documents of the file's rows.
    """

    base: SentenceTransformer
    documents: int
    file: VectorFile | None = None
    texts: Sequence[str] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        self.base.requires_grad_(False)

    def encoder(self, bf16: bool = False) -> Any:
        """Return an encoder with the base's vectors, whose `encode_document` computes only those that are missing."""
        live = LiveEncoder(self.base, bf16=bf16)
        return live if self.file is None else KnownDocuments(live, self.texts, self.file.matrix)

    @cached_property
    def space(self) -> str:
        """The fingerprint of the base's space."""
        return space_of(self.base).fingerprint

    def of(self, examples: Examples, bf16: bool) -> np.ndarray:
        """Return the base's vectors ``[texts, dimensions]`` of documents, float32, of length 1; zeros for other texts.

        The first column of ``examples`` holds queries. ``bf16``: compute in it where the hardware has it.
        """
        documents = _documents(examples)
        cut = len(prompt_of(self.base, "document"))
        with frozen_in_bf16(self.base, bf16):
            encoder = self.encoder(bf16)
            # The texts start with their prompt, which the encoder adds itself.
            encoded = encoder.encode_document([examples.texts[place][cut:] for place in documents.tolist()])
            vectors = np.zeros((len(examples.texts), encoded.shape[1]), dtype=np.float32)
            vectors[documents] = encoded
        return vectors


def open_documents(
    base: SentenceTransformer, splits: Splits, vectors: str | Path | None, vector_texts: str | Path | None, name: str
) -> DocumentVectors:
    """Open the documents of the data, with the vectors in the file ``vectors`` where there is one.

    Args:
        base: the frozen base, without an adapter.
        splits: the data.
        vectors: a file of the base's vectors.
        vector_texts: a file with the texts of its rows; None: the rows are those of the data's corpus.
        name: of the base, for messages.

    Raises:
        UsageError: vectors without texts to which they belong.
        ScionsError: vectors of another space, another number of them, or of other texts.
    """
    if vectors is None:
        return DocumentVectors(base, len(documents_of(splits)))
    file = read_vectors(vectors)
    texts: list[str]
    if vector_texts is not None:
        texts, where = list(iter_texts(vector_texts)), str(vector_texts)
    else:
        corpora = [table.corpus for table in (splits.train, splits.dev, splits.test)]
        if corpora[0] is None or any(corpus != corpora[0] for corpus in corpora):
            raise UsageError(
                f"`documents={str(vectors)!r}`: the texts of its rows are known only for a BEIR folder, in the order "
                "of its corpus; name the file they were made from with `document_texts=...`"
            )
        texts, where = list(corpora[0].values()), f"the corpus of {splits.train.source}"
    opened = DocumentVectors(base, len(texts), file, texts)
    exact = LiveEncoder(base, bf16=False)
    known_documents(file, texts, exact, opened.space, encoder_name=f"the base {name}", texts_name=where)
    return opened


def query_side_recipe(
    shape: Shape, rows: int, token_lengths: list[int], model_max_length: int, method: str, **overrides: Any
) -> Recipe:
    """Choose the recipe for queries alone, ``token_lengths`` long; see `choose_recipe`."""
    recipe = choose_recipe(shape, rows, token_lengths, model_max_length, method, **overrides)
    if "max_length" not in overrides:
        recipe.reasons["max_length"] = "of queries: 95 % of them fit; documents are read at the base's own length"
    recipe.reasons["objective"] = f"a query against all documents of the rows, up to {MAX_DOCUMENTS:,}"
    recipe.hard_negatives = 0  # all documents are negatives already
    return recipe


def query_tokens(model: SentenceTransformer, examples: Examples, max_length: int) -> Tokens:
    """Tokenize queries; documents, which are not read, get the tokens of an empty text."""
    queries = set(examples.columns[:, 0].tolist())
    texts = [text if place in queries else "" for place, text in enumerate(examples.texts)]
    return Tokens(model, texts, max_length)


def _documents(examples: Examples) -> np.ndarray:
    """Return the places of all documents in rising order: of the columns, relevant ones and given negatives."""
    columns = examples.columns[:, 1:]
    relevant = [place for known in examples.relevant.values() for place in known]
    return np.unique(np.concatenate([columns[columns >= 0], relevant, examples.others])).astype(np.int64)


class QuerySteps(PlannedSteps):
    """One item per step: pieces with the queries alone, and the documents' vectors that they are contrasted with.

    ``vectors`` are those of `DocumentVectors.of`; ``tokens`` those of `query_tokens`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.documents = _documents(self.examples)
        if len(self.documents) > MAX_DOCUMENTS:
            drawn = np.random.default_rng(0).choice(self.documents, MAX_DOCUMENTS, replace=False)
            self.documents = np.sort(drawn)
        assert self.vectors is not None
        # The same in nearly every step, and gathering 25 MB takes time.
        self.matrix = self.vectors[self.documents]

    def __getitem__(self, step: int) -> dict[str, Any]:
        """``documents`` ``[documents, dimensions]``, ``mask`` ``[rows, documents]`` and ``positives`` ``[rows]``, the
        place of each row's own among them; ``index`` ``[rows, 1]``; else as `PlannedSteps`.
        """
        assert self.vectors is not None
        batch = self.batches[step]
        places, index = np.unique(batch.columns[:, 0], return_inverse=True)
        positives = batch.columns[:, 1]
        documents, matrix = self.documents, self.matrix
        missing = np.setdiff1d(batch.columns[:, 1:], documents)
        if len(missing):
            documents = np.union1d(documents, missing)
            matrix = self.vectors[documents]
        places_of_positives = np.searchsorted(documents, positives)
        mask = self.not_negatives(batch, documents, matrix)
        mask[np.arange(len(positives)), places_of_positives] = False
        return {
            "pieces": self._passes(places),
            "index": torch.from_numpy(index.reshape(-1, 1).copy()),
            "documents": torch.from_numpy(matrix),
            "positives": torch.from_numpy(places_of_positives),
            "mask": torch.from_numpy(mask),
        }
