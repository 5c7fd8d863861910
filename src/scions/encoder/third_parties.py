"""What other libraries look for in an encoder beside its methods."""

from __future__ import annotations

from abc import ABCMeta


class OfSentenceTransformers(ABCMeta):
    """The class of a class whose printed name holds that of sentence-transformers."""

    def __repr__(cls) -> str:
        # BERTopic looks for the package's name in this text where others ask isinstance, and without it silently takes
        # a model of its own.
        return f"<class '{cls.__module__}.{cls.__qualname__}', a sentence_transformers.SentenceTransformer>"
