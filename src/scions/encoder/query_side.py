"""Encode queries with an adapter and documents with its base, as query-side adapters need it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from sentence_transformers import SentenceTransformer

from scions.encoder.roles import RoleEncoder, encode_role
from scions.unit_rows import unit_rows


class QuerySideEncoder(RoleEncoder):
    """Encode documents with the base, whose vectors an index holds, and all other texts with the adapted model.

    Texts of no role are searched with, not searched.
    """

    def __init__(self, queries: Any, documents: Any) -> None:
        self.queries, self.documents = queries, documents

    def encode_role(self, role: str | None, sentences: Sequence[str], **options: Any) -> Any:
        """Return vectors ``[sentences, dimensions]``."""
        return encode_role(self.documents if role == "document" else self.queries, role, sentences, **options)


class QuerySideModel(SentenceTransformer):
    """A base with a query-side adapter active in it. ``encode_document`` leaves the adapter out.

    sentence-transformers' ``Router`` gives the same vectors, but holds both models as routes of one module: the
    transformer, its adapters and its pooling are no longer where a SentenceTransformer has them, there is one
    ``max_seq_length`` and one set of prompts for both, and the base is saved twice.
    """

    @classmethod
    def of(cls, queries: SentenceTransformer, documents: SentenceTransformer) -> QuerySideModel:
        """Build from ``queries``, with ``documents`` for ``encode_document``; both stay as they are."""
        model = cls(
            modules=list(queries),
            device=str(queries.device),
            prompts=dict(queries.prompts or {}),
            default_prompt_name=queries.default_prompt_name,
            similarity_fn_name=queries.similarity_fn_name,
            truncate_dim=queries.truncate_dim,
        )
        # Not a part of the model: it is neither saved nor counted with it.
        object.__setattr__(model, "documents", documents)
        return model.eval()

    def encode_document(self, inputs: Any, *arguments: Any, **options: Any) -> Any:
        """Return vectors of documents, as the bare base gives them."""
        documents: SentenceTransformer = self.__dict__["documents"]
        return documents.encode_document(inputs, *arguments, **options)


class KnownDocuments(RoleEncoder):
    """An encoder for whose documents there are vectors already: those are looked up, the rest is encoded.

    ``vectors`` of the known ``texts`` are ``[texts, dimensions]`` of any float type, and may be mapped from a file.
    """

    def __init__(self, encoder: Any, texts: Sequence[str], vectors: np.ndarray) -> None:
        self.encoder, self.vectors = encoder, vectors
        self.rows: Mapping[str, int] = {text: row for row, text in enumerate(texts)}

    def encode_role(self, role: str | None, sentences: Sequence[str], **options: Any) -> Any:
        """Return vectors ``[sentences, dimensions]``; of documents float32 and of length 1."""
        if role != "document":
            return encode_role(self.encoder, role, sentences, **options)
        result = np.empty((len(sentences), self.vectors.shape[1]), dtype=np.float32)
        rows = np.array([self.rows.get(text, -1) for text in sentences], dtype=np.int64)
        result[rows >= 0] = self.vectors[rows[rows >= 0]]
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            result[missing] = encode_role(self.encoder, role, [sentences[i] for i in missing.tolist()], **options)
        return unit_rows(result)
