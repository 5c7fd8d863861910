"""General texts for distillation."""

from __future__ import annotations

from typing import Any

import numpy as np

from scions.data import Table, read, read_docstrings
from scions.errors import DataError, UsageError

MAX_TEXTS = 4000
SOURCES = ("docstrings", "words", "own")


def general_texts(source: str, model: Any, train: Table, seed: int = 0, limit: int = MAX_TEXTS) -> list[str]:
    """Return at most ``limit`` distinct texts.

    Args:
        source: a file or folder; ``docstrings`` (the built-in corpus), ``words`` (random words of the base's
            vocabulary), ``own`` (the training's own texts).
        model: the base, for its vocabulary.
        train: the training rows.
        seed: seed of the draw.
        limit: maximum number of texts.

    Raises:
        DataError: fewer than two texts, or a file that cannot be read.
        UsageError: the tokenizer has no words to draw from.
    """
    rng = np.random.default_rng(seed)
    if source == "words":
        return _random_words(model, rng, limit)
    if source == "own":
        texts = train.texts()
    elif source == "docstrings":
        texts = read_docstrings().train.texts()
    else:
        texts = read(source).texts()
    texts = [text for text in dict.fromkeys(texts) if text.strip()]
    if len(texts) < 2:
        raise DataError(f"{source}: {len(texts)} general texts; at least 2 are needed, some hundreds to be of use")
    return [texts[i] for i in rng.permutation(len(texts))[:limit]]


def _random_words(model: Any, rng: np.random.Generator, limit: int) -> list[str]:
    """Return texts of 2 to 19 words drawn evenly from the whole words of the vocabulary."""
    vocabulary: dict[str, int] = model.tokenizer.get_vocab()
    # Word pieces that begin a word: "▁word" and "Ġword" in byte pairs and unigrams, "word" beside "##piece" in BERT's.
    marked = [word[1:] for word in vocabulary if word[:1] in "▁Ġ" and word[1:]]
    words = sorted({word for word in (marked or vocabulary) if len(word) > 1 and word.isalpha()})
    if len(words) < 2:
        raise UsageError("the base's vocabulary has no whole words to draw texts from; name a file instead")
    return [" ".join(rng.choice(words, rng.integers(2, 20))) for _ in range(limit)]
