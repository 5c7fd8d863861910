"""Encoders small enough to predict by hand."""

from __future__ import annotations

import numpy as np
import pytest


class BagOfWords:
    """Hashes words into 64 places: texts that share words are similar."""

    width = 64

    def encode(self, sentences, **kwargs):
        out = np.zeros((len(sentences), self.width), dtype=np.float32)
        for row, text in enumerate(sentences):
            for word in text.lower().split():
                out[row, sum(ord(c) * (i + 1) for i, c in enumerate(word)) % self.width] += 1
        return out


class Constant:
    """Tells nothing apart."""

    def encode(self, sentences, **kwargs):
        return np.ones((len(sentences), 4), dtype=np.float32)


@pytest.fixture
def words():
    return BagOfWords()


@pytest.fixture
def constant():
    return Constant()


def on_circle(cosine):
    return [cosine, float(np.sqrt(max(0.0, 1 - cosine**2)))]


@pytest.fixture
def circle():
    """A unit vector whose cosine with (1, 0) is the one asked for."""
    return on_circle
