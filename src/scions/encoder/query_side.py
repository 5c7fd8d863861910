"""Queries through one encoder, documents through another: what a query-side adapter is scored and used with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from sentence_transformers import SentenceTransformer

from scions.encoder.base_info import document_adapter
from scions.unit_rows import unit_rows

if TYPE_CHECKING:
    from scions.engine.adapter_weights import AdapterWeights


class QuerySideEncoder:
    """``encode`` and ``encode_query`` of one encoder, ``encode_document`` of another.

    Args:
        queries: the adapted model.
        documents: its base, whose vectors an index holds.
    """

    def __init__(self, queries: Any, documents: Any) -> None:
        self.queries, self.documents = queries, documents

    def encode(self, sentences: Sequence[str], **options: Any) -> Any:
        """``[sentences, dimensions]``, as ``queries`` gives them: texts of no role are searched with, not searched."""
        return self.queries.encode(sentences, **options)

    def encode_query(self, sentences: Sequence[str], **options: Any) -> Any:
        """``[sentences, dimensions]`` with the prompt for queries."""
        return _of_role(self.queries, "query", sentences, options)

    def encode_document(self, sentences: Sequence[str], **options: Any) -> Any:
        """``[sentences, dimensions]`` of the bare base, with its prompt for documents."""
        return _of_role(self.documents, "document", sentences, options)


class QuerySideModel(SentenceTransformer):
    """A base with a query-side adapter active in it. ``encode_document`` leaves the adapter out."""

    @classmethod
    def of(cls, queries: SentenceTransformer, documents: SentenceTransformer) -> QuerySideModel:
        """``queries``, with ``documents`` for ``encode_document``; both stay as they are."""
        made = cls(
            modules=list(queries),
            device=str(queries.device),
            prompts=dict(queries.prompts or {}),
            default_prompt_name=queries.default_prompt_name,
            similarity_fn_name=queries.similarity_fn_name,
            truncate_dim=queries.truncate_dim,
        )
        # Not a part of the model: it is neither saved nor counted with it.
        object.__setattr__(made, "documents", documents)
        return made.eval()

    def encode_document(self, inputs: Any, *arguments: Any, **options: Any) -> Any:
        """Vectors of documents, as the bare base gives them."""
        documents: SentenceTransformer = self.__dict__["documents"]
        return documents.encode_document(inputs, *arguments, **options)


class KnownDocuments:
    """An encoder for whose documents there are vectors already: those are looked up, the rest is encoded.

    Args:
        encoder: encodes what is not known.
        texts: the known documents, one a row of ``vectors``.
        vectors: ``[texts, dimensions]`` of any float type; may be mapped from a file.
    """

    def __init__(self, encoder: Any, texts: Sequence[str], vectors: np.ndarray) -> None:
        self.encoder, self.vectors = encoder, vectors
        self.rows: Mapping[str, int] = {text: row for row, text in enumerate(texts)}

    def encode(self, sentences: Sequence[str], **options: Any) -> Any:
        """As the encoder's own."""
        return self.encoder.encode(sentences, **options)

    def encode_query(self, sentences: Sequence[str], **options: Any) -> Any:
        """As the encoder's own."""
        return _of_role(self.encoder, "query", sentences, options)

    def encode_document(self, sentences: Sequence[str], **options: Any) -> np.ndarray:
        """``[sentences, dimensions]`` float32, of length 1."""
        found = np.empty((len(sentences), self.vectors.shape[1]), dtype=np.float32)
        rows = np.array([self.rows.get(text, -1) for text in sentences], dtype=np.int64)
        found[rows >= 0] = self.vectors[rows[rows >= 0]]
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            found[missing] = _of_role(self.encoder, "document", [sentences[i] for i in missing.tolist()], options)
        return unit_rows(found)


def documents_choice(choice: Any, adapters: Mapping[str, AdapterWeights]) -> Any:
    """``choice`` (see `scions.encoder.adapter_choice.adapter_rows`) for documents: the base where it is query-side.

    Raises:
        AdapterError: a name that is not loaded.
        UsageError: something that is no name.
    """
    from scions.encoder.adapter_choice import adapter_rows
    from scions.engine.adapter_weights import AdapterWeights

    if choice is None or isinstance(choice, (str, AdapterWeights)):
        (weights,) = adapter_rows(choice, 1, adapters)
        return document_adapter(weights)
    listed = choice.tolist() if hasattr(choice, "tolist") else choice
    if not isinstance(listed, Sequence):
        return choice  # refused, with its reason, by who chooses the rows
    return [document_adapter(weights) for weights in adapter_rows(listed, len(listed), adapters)]


def _of_role(encoder: Any, role: str, sentences: Sequence[str], options: Mapping[str, Any]) -> Any:
    method = getattr(encoder, f"encode_{role}", None)
    return (method if callable(method) else encoder.encode)(sentences, **options)
