from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from sentence_transformers.sentence_transformer.losses import CoSENTLoss

from scions.data.shapes import Shape, Table
from scions.errors import DataError
from scions.evaluation import evaluate
from scions.training.baselines.linear_batches import same_label_nce
from scions.training.baselines.linear_map import LinearMap, fit_linear_map
from scions.training.objectives import retrieval_loss

CODE = 8


class Noisy:
    """Text "k-i": a code for k in the first 8 places, drowned by noise of the text's own in the other 24."""

    def __init__(self):
        self.asked = []

    def encode(self, sentences, **kwargs):
        self.asked += sentences
        out = []
        for text in sentences:
            code = np.random.default_rng(int(text.split("-")[0])).normal(size=CODE)
            noise = 1.5 * np.random.default_rng(zlib.crc32(text.encode())).normal(size=24)
            out.append(np.concatenate([code, noise]))
        return np.array(out, dtype=np.float32)


def pairs(start, n):
    return [f"{k}-a" for k in range(start, start + n)], [f"{k}-b{k % 7}" for k in range(start, start + n)]


def table_of(shape, start, n):
    first, second = pairs(start, n)
    other = second[1:] + second[:1]
    if shape is Shape.PAIRS:
        return Table(shape, {"anchor": first, "positive": second}, "toy")
    if shape is Shape.TRIPLETS:
        return Table(shape, {"anchor": first, "positive": second, "negative": other}, "toy")
    if shape is Shape.CANDIDATES:
        columns = {"query": first, "positive": [[t] for t in second], "negative": [[t, second[5]] for t in other]}
        return Table(shape, {name: values[6:] for name, values in columns.items()}, "toy")
    if shape is Shape.RETRIEVAL:
        corpus = {f"d{i}": text for i, text in enumerate(second)}
        return Table(shape, {"query": first, "relevant": [{key: 1.0} for key in corpus]}, "toy", corpus)
    if shape is Shape.LABELLED:
        texts = [f"{k % 12 + start}-{k}" for k in range(n)]
        return Table(shape, {"text": texts, "label": [t.split("-")[0] for t in texts]}, "toy")
    half = n // 2
    columns = {"sentence1": first, "sentence2": second[:half] + other[half:]}
    third = [1] * half + [0] * (n - half)
    if shape is Shape.BINARY:
        return Table(shape, {**columns, "label": third}, "toy")
    return Table(shape, {**columns, "score": [5.0 * x for x in third]}, "toy")


@pytest.mark.parametrize("shape", [shape for shape in Shape if shape is not Shape.TEXTS])
def test_the_map_learns_to_overlook_the_noise(shape):
    encoder = Noisy()
    linear = fit_linear_map(encoder, table_of(shape, 0, 400), table_of(shape, 1000, 120), epochs=5)
    test = table_of(shape, 2000, 120)
    assert linear.chosen.startswith("learning rate")
    assert linear.dev_score > linear.base_score
    assert evaluate(linear, test).value > evaluate(encoder, test).value + 1


def test_texts_are_whitened():
    class Stretched:
        """The sum of a random vector a word, behind one axis that drowns it."""

        def encode(self, sentences, **kwargs):
            # The first axis says only how long a text is, and says it loudly.
            out = np.zeros((len(sentences), 32), dtype=np.float32)
            for row, text in enumerate(sentences):
                out[row] = sum(np.random.default_rng(int(word)).normal(size=32) for word in text.split())
                out[row, 0] += 60 * (len(text) % 2)
            return out

    def texts(start, n):
        rng = np.random.default_rng(start)
        return [" ".join(str((start + i) * 10 + k) for k in rng.integers(6, size=10)) for i in range(n)]

    train, dev = (Table(Shape.TEXTS, {"text": texts(start, n)}, "plain") for start, n in ((0, 200), (500, 60)))
    linear = fit_linear_map(Stretched(), train, dev)
    assert linear.chosen.startswith("whitening")
    assert linear.dev_score > linear.base_score
    before, after = (np.linalg.svd(e.encode(train.columns["text"]))[1] for e in (Stretched(), linear))
    assert after[0] / after[-1] < before[0] / before[-1] / 2


def test_the_identity_stays_where_nothing_is_better():
    # Dev says the opposite of train: every step away from the base loses.
    train = table_of(Shape.BINARY, 0, 300)
    dev = table_of(Shape.BINARY, 1000, 100)
    dev.columns["label"] = [1 - x for x in dev.columns["label"]]
    encoder = Noisy()
    linear = fit_linear_map(encoder, train, dev, epochs=2)
    assert linear.chosen == "identity"
    assert linear.dev_score == linear.base_score
    assert (linear.weight == np.eye(32)).all()


def test_each_text_is_encoded_once_for_the_whole_search():
    encoder = Noisy()
    fit_linear_map(encoder, table_of(Shape.SCORED, 0, 100), table_of(Shape.SCORED, 1000, 40), epochs=2)
    assert len(encoder.asked) == len(set(encoder.asked))


def test_the_same_seed_gives_the_same_map():
    train, dev = table_of(Shape.PAIRS, 0, 100), table_of(Shape.PAIRS, 1000, 40)
    first, again = (fit_linear_map(Noisy(), train, dev, seed=3, epochs=2) for _ in range(2))
    assert (first.weight == again.weight).all()


def test_identity_map_is_the_base_at_unit_length_and_keeps_prompts(planted):
    class Prompted(planted):
        def encode_query(self, sentences, **kwargs):
            return self.encode([f"query: {text}" for text in sentences], **kwargs)

    base = Prompted({"a": [3, 4], "query: a": [0, 2]})
    linear = LinearMap(base, np.eye(2))
    assert linear.encode(["a", "a"]) == pytest.approx(np.array([[0.6, 0.8]] * 2))
    assert linear.encode_query(["a"]) == pytest.approx(np.array([[0.0, 1.0]]))
    assert linear.encode_document(["a"]) == pytest.approx(np.array([[0.6, 0.8]]))


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (Table(Shape.PAIRS, {"anchor": [], "positive": []}, "toy"), "no rows"),
        (Table(Shape.PAIRS, {"anchor": ["1-a"], "positive": ["1-b"]}, "toy"), "at least two pairs"),
        (Table(Shape.LABELLED, {"text": ["1-a", "2-a"], "label": ["x", "y"]}, "toy"), "two rows each"),
    ],
)
def test_too_little_to_learn_from(table, said):
    with pytest.raises(DataError, match=said):
        fit_linear_map(Noisy(), table, table_of(Shape.PAIRS, 1000, 40))


def test_losses_by_hand():
    same, across = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    both = torch.cat([same, across])
    # The higher-scored row has cosine 0, the lower cosine 1: log(1 + e^20).
    cosent = CoSENTLoss(None, scale=20.0).compute_loss_from_embeddings
    assert cosent([both, torch.cat([across, across])], torch.tensor([1.0, 0.0])).item() == pytest.approx(20, abs=1e-3)
    assert cosent([both, both], torch.tensor([1.0, 1.0])).item() == 0
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    own = torch.arange(2)
    assert retrieval_loss(both, both.flip(0), own, nothing, 20.0).item() == pytest.approx(20, abs=1e-3)
    assert retrieval_loss(both, both.flip(0), own, ~torch.eye(2, dtype=torch.bool), 20.0).item() == 0
    vectors = torch.cat([same, same, across, across])
    assert same_label_nce(vectors, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(0, abs=1e-3)
    assert same_label_nce(vectors, torch.tensor([0, 1, 0, 1])).item() == pytest.approx(20, abs=1e-3)
