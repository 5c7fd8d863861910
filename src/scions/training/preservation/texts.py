"""Texts that stand for what a base knows in general, for distillation."""

from __future__ import annotations

from typing import Any

import numpy as np

from scions.data import Table, read, read_docstrings
from scions.errors import DataError, UsageError

MOST = 4000
SOURCES = ("docstrings", "words", "own")


def general_texts(source: str, model: Any, train: Table, seed: int = 0, most: int = MOST) -> list[str]:
    """At most ``most`` distinct texts.

    Args:
        source: a file or folder; ``docstrings`` (the built-in corpus), ``words`` (random words of the base's
            vocabulary), ``own`` (the training's own texts).
        model: gives the vocabulary.
        train: the training rows.
        seed: of the draw.

    Raises:
        DataError: nothing there, or as reading a file does.
        UsageError: the tokeniser has no words to draw from.
    """
    rng = np.random.default_rng(seed)
    if source == "words":
        return _random_words(model, rng, most)
    if source == "own":
        texts = train.texts()
    elif source == "docstrings":
        texts = read_docstrings().train.texts()
    else:
        texts = read(source).texts()
    texts = [text for text in dict.fromkeys(texts) if text.strip()]
    if len(texts) < 2:
        raise DataError(f"{source}: {len(texts)} general texts; at least 2 are needed, some hundreds to be of use")
    return [texts[i] for i in rng.permutation(len(texts))[:most]]


def _random_words(model: Any, rng: np.random.Generator, most: int) -> list[str]:
    """Texts of 2 to 19 words drawn evenly from the whole words of the vocabulary."""
    vocabulary: dict[str, int] = model.tokenizer.get_vocab()
    # Word pieces that begin a word: "▁word" and "Ġword" in byte pairs and unigrams, "word" beside "##piece" in BERT's.
    marked = [word[1:] for word in vocabulary if word[:1] in "▁Ġ" and word[1:]]
    words = sorted({word for word in (marked or vocabulary) if len(word) > 1 and word.isalpha()})
    if len(words) < 2:
        raise UsageError("the base's vocabulary has no whole words to draw pseudo-texts from; name a file instead")
    return [" ".join(rng.choice(words, rng.integers(2, 20))) for _ in range(most)]
