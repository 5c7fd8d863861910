"""Encoders small enough to predict by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices this small are only slowed down by a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Planted:
    """Gives each text the vector planted for it, and remembers every call."""

    def __init__(self, vectors):
        self.vectors = {text: np.asarray(vector, dtype=np.float32) for text, vector in vectors.items()}
        self.calls = []

    def encode(self, sentences, **kwargs):
        self.calls.append((list(sentences), kwargs))
        return np.stack([self.vectors[text] for text in sentences])


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
def planted():
    return Planted


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
