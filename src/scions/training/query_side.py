"""Training queries alone: documents are constants, the vectors that an index of the base holds already."""

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
from scions.encoder.base_info import max_length_of, space_of
from scions.encoder.query_side import KnownDocuments
from scions.engine.precision import frozen_in_bf16
from scions.errors import UsageError
from scions.training.batches import PlannedSteps
from scions.training.examples import Examples
from scions.training.live_encoder import LiveEncoder, prompt_of
from scions.training.recipe import Recipe, choose_recipe
from scions.training.tokens import Tokens
from scions.vectors.reader import VectorFile, known_documents, read_vectors

# Held against in every step. 16,384 of 384 numbers are 25 MB.
MOST_DOCUMENTS = 16_384
SHAPES = (Shape.PAIRS, Shape.TRIPLETS, Shape.CANDIDATES, Shape.RETRIEVAL)


def check_query_side(shape: Shape, objective: str) -> None:
    """Raise UsageError where the rows say nothing of queries that look for documents."""
    if shape not in SHAPES:
        able = ", ".join(one.value for one in SHAPES)
        raise UsageError(
            f"--query-side trains queries to find documents, and in {shape.value} data no text is a query: give rows "
            f"of the shapes {able}, or train without --query-side and embed the documents anew (scions reindex)"
        )
    if objective != "contrastive":
        raise UsageError(
            f"--query-side holds queries against documents, and the objective {objective!r} knows none: leave out "
            "--objective, or train without --query-side"
        )


def documents_of(splits: Splits) -> list[str]:
    """The distinct documents of all parts, in order of appearance."""
    found: dict[str, None] = {}
    for table in (splits.train, splits.dev, splits.test):
        if table.shape is Shape.RETRIEVAL:
            found |= dict.fromkeys((table.corpus or {}).values())
        else:
            found |= dict.fromkeys(text for _, *others in table.row_texts() for text in others)
    return list(found)


@dataclass
class DocumentVectors:
    """What an index of the base holds: documents cut at the base's own length, never at the training's.

    Attributes:
        base: the frozen base.
        documents: how many documents there are.
        file: vectors that are there already; None: all are computed.
        texts: the documents of the file's rows.
    """

    base: SentenceTransformer
    documents: int
    file: VectorFile | None = None
    texts: Sequence[str] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        self.base.requires_grad_(False)

    def encoder(self, bf16: bool = False) -> Any:
        """The base with the vectors there are: `encode_document` computes only what is not there."""
        fast = LiveEncoder(self.base, max_length_of(self.base), bf16)
        return fast if self.file is None else KnownDocuments(fast, self.texts, self.file.matrix)

    @cached_property
    def space(self) -> str:
        """The fingerprint of the base's space."""
        return space_of(self.base).fingerprint

    def of(self, examples: Examples, bf16: bool) -> np.ndarray:
        """The base's vectors ``[texts, dimensions]``, float32 and of length 1, of the texts that are documents;
        those of the others are zero.

        Args:
            examples: rows; the first column is the queries'.
            bf16: compute in bf16 where that is native.
        """
        documents = _documents(examples)
        cut = len(prompt_of(self.base, "document"))
        with frozen_in_bf16(self.base, bf16):
            encoder = self.encoder(bf16)
            # The texts have their prompts already, which the encoder puts before them itself.
            found = encoder.encode_document([examples.texts[place][cut:] for place in documents.tolist()])
            vectors = np.zeros((len(examples.texts), found.shape[1]), dtype=np.float32)
            vectors[documents] = found
        return vectors


def open_documents(
    base: SentenceTransformer, splits: Splits, given: str | Path | None, given_texts: str | Path | None, name: str
) -> DocumentVectors:
    """The documents of the data, with the vectors in the file ``given`` where there is one.

    Args:
        base: the frozen base, which nothing is grafted onto.
        splits: the data.
        given: a file of vectors of the base's.
        given_texts: the texts of its rows, a file; None: the rows are those of the data's corpus.
        name: of the base, for messages.

    Raises:
        UsageError: vectors without texts to which they belong.
        ScionsError: vectors of another space, another number of them, or of other texts.
    """
    if given is None:
        if given_texts is not None:
            raise UsageError("--document-texts are the texts of --documents: give that file of vectors too")
        return DocumentVectors(base, len(documents_of(splits)))
    file = read_vectors(given)
    texts: list[str]
    if given_texts is not None:
        texts, where = list(iter_texts(given_texts)), str(given_texts)
    else:
        corpora = [table.corpus for table in (splits.train, splits.dev, splits.test)]
        if corpora[0] is None or any(corpus != corpora[0] for corpus in corpora):
            raise UsageError(
                f"--documents {given}: which texts its rows belong to is known only for a BEIR folder, in its corpus' "
                "order; name the file they were made of with --document-texts"
            )
        texts, where = list(corpora[0].values()), f"the corpus of {splits.train.source}"
    made = DocumentVectors(base, len(texts), file, texts)
    fast = LiveEncoder(base, max_length_of(base), bf16=False)
    known_documents(file, texts, fast, made.space, encoder_name=f"the base {name}", texts_name=where)
    return made


def query_side_recipe(
    shape: Shape, rows: int, token_lengths: list[int], model_max_length: int, method: str, **overrides: Any
) -> Recipe:
    """`choose_recipe` for queries alone, ``token_lengths`` long."""
    recipe = choose_recipe(shape, rows, token_lengths, model_max_length, method, **overrides)
    if "max_length" not in overrides:
        recipe.reasons["max_length"] = "of queries: 95 % of them fit; documents are read at the base's own length"
    recipe.reasons["objective"] = f"a query against all documents of the rows, up to {MOST_DOCUMENTS:,}"
    recipe.hard_negatives = 0  # they are all there
    return recipe


def query_tokens(model: SentenceTransformer, examples: Examples, max_length: int) -> Tokens:
    """The tokens of all texts by their places, but of documents, which nothing reads, those of an empty text."""
    queries = set(examples.columns[:, 0].tolist())
    texts = [text if place in queries else "" for place, text in enumerate(examples.texts)]
    return Tokens(model, texts, max_length)


def _documents(examples: Examples) -> np.ndarray:
    """Places of all texts that are documents, in rising order: of the columns, relevant ones, given negatives."""
    columns = examples.columns[:, 1:]
    relevant = [place for known in examples.relevant.values() for place in known]
    return np.unique(np.concatenate([columns[columns >= 0], relevant, examples.others])).astype(np.int64)


class QuerySteps(PlannedSteps):
    """One item a step: pieces with the queries alone, and the documents' vectors that they are held against.

    ``vectors`` are those of `DocumentVectors.of`; ``tokens`` those of `query_tokens`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.documents = _documents(self.examples)
        if len(self.documents) > MOST_DOCUMENTS:
            drawn = np.random.default_rng(0).choice(self.documents, MOST_DOCUMENTS, replace=False)
            self.documents = np.sort(drawn)
        assert self.vectors is not None
        # The same in nearly every step, and 25 MB are not gathered in a moment.
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
        own = np.searchsorted(documents, positives)
        mask = self.not_negatives(batch, documents, matrix)
        mask[np.arange(len(own)), own] = False
        pieces = self.tokens.pieces(places)
        return {
            "pieces": [(torch.from_numpy(piece.copy()), self._features(places[piece])) for piece in pieces],
            "index": torch.from_numpy(index.reshape(-1, 1).copy()),
            "documents": torch.from_numpy(matrix),
            "positives": torch.from_numpy(own),
            "mask": torch.from_numpy(mask),
        }
