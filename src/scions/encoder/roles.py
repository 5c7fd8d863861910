"""Encoders with a method for each role of a text: query, document, or none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class RoleEncoder:
    """``encode``, ``encode_query`` and ``encode_document`` over `encode_role`, the one method to override."""

    def encode(self, sentences: Sequence[str], **options: Any) -> Any:
        """Return vectors ``[sentences, dimensions]`` of texts of no role."""
        return self.encode_role(None, sentences, **options)

    def encode_query(self, sentences: Sequence[str], **options: Any) -> Any:
        """Return vectors of queries, with the prompt for them."""
        return self.encode_role("query", sentences, **options)

    def encode_document(self, sentences: Sequence[str], **options: Any) -> Any:
        """Return vectors of documents, with the prompt for them."""
        return self.encode_role("document", sentences, **options)

    def encode_role(self, role: str | None, sentences: Sequence[str], **options: Any) -> Any:
        """Return vectors of texts of ``role``: ``"query"``, ``"document"`` or None."""
        raise NotImplementedError


def encode_role(encoder: Any, role: str | None, sentences: Sequence[str], **options: Any) -> Any:
    """Call the encoder's method for ``role``, or its ``encode`` where it has none."""
    method = getattr(encoder, f"encode_{role}", None) if role else None
    return (method if callable(method) else encoder.encode)(sentences, **options)
