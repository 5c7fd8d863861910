"""Comparisons, and the sentence they end in."""

from __future__ import annotations

import numpy as np
import pytest

import scions
from scions.errors import AdapterError
from scions.merging.signs import Signs
from scions.mixing.compare import effect, similarity_changes
from scions.mixing.conflict import describe_groups, expect
from scions.publishing.plots import draw_matrix
from scions.store import Initialization


def test_pairs_and_the_set(three):
    found = scions.compare(["legal", "medical", "engines"])
    assert [(p.one, p.other) for p in found.pairs] == [
        ("legal", "medical"),
        ("legal", "engines"),
        ("medical", "engines"),
    ]
    fractions = [p.signs.fraction for p in found.pairs]
    # A coordinate that is not unanimous among three is so in two of the three pairs.
    assert found.signs.fraction == pytest.approx(sum(fractions) / 2)
    matrix = found.matrix()
    assert np.array_equal(matrix, matrix.T)
    assert matrix[0, 1] == fractions[0]
    assert all(-1 <= p.update_cosine < p.weight_cosine <= 1 for p in found.pairs)  # they begin alike
    assert all(p.effect is None and p.obstacle is None for p in found.pairs)
    assert draw_matrix(found.names, matrix, "signs", 0.8).startswith(b"\x89PNG")


def test_effects_on_texts(three, tiny_base):
    texts = ["the court of law", "a pump and a valve", "the patient", "a drug and a dose", "the engine of the device"]
    found = scions.compare(["legal", "medical"], texts=texts)
    assert -1 <= found.pairs[0].effect.cosine < 1
    encoder = scions.DomainEncoder(tiny_base, dtype="float32")
    changes = []
    for name in ("legal", "medical"):
        encoder.load_adapter(name)
        base, own = (encoder.encode(texts, adapter=a, normalize_embeddings=True) for a in (None, name))
        changes.append(similarity_changes(base, own))
    assert found.pairs[0].effect.cosine == pytest.approx(effect(*changes).cosine, abs=1e-5)


def test_what_cannot_be_mixed_is_said(publish):
    publish("legal")
    publish("medical", seed=2, initialisation=Initialization(seed=1, id="1"))
    found = scions.compare(["legal", "medical"])
    assert "their initialisation differs" in found.sentence
    assert found.pairs[0].obstacle == found.sentence


def test_a_domain_that_is_not_known_is_a_note(publish):
    publish("legal")
    publish("medical", seed=2, domain=None)
    found = scions.compare(["legal", "medical"])
    assert found.pairs[0].domain_cosine is None
    assert "medical: its scions.json holds no domain statistics" in found.notes[0]


def test_what_does_not_lie_over_each_other_is_refused(publish):
    from scions import BottleneckConfig

    publish("legal")
    publish("medical", config=BottleneckConfig(rank=2))
    with pytest.raises(AdapterError, match="cannot be compared: their rank differs: 3 against 2"):
        scions.compare(["legal", "medical"])


def test_the_effect_of_the_same_change():
    rng = np.random.default_rng(0)
    base, one = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in rng.normal(size=(2, 6, 4)))
    changes = similarity_changes(base, one)
    assert len(changes) == 15
    assert effect(changes, changes).cosine == pytest.approx(1)
    assert effect(changes, -changes).spearman == pytest.approx(-1)
    assert effect(changes, np.zeros(15)).cosine == 0


@pytest.mark.parametrize(
    ("fractions", "said"),
    [
        ({"ab": 0.1, "ac": 0.47, "bc": 0.47}, "a and b can be mixed; c conflicts with both (0.47)"),
        ({"ab": 0.1, "ac": 0.2, "bc": 0.3}, "a, b and c can be mixed"),
        ({"ab": 0.5, "ac": 0.5, "bc": 0.4}, "a conflicts with both (0.50); b conflicts with c (0.40)"),
        ({"ab": 0.1, "ac": 0.2, "bc": 0.45}, "a and b can be mixed; c conflicts with b (0.45)"),
        ({"ab": 0.5}, "a conflicts with b (0.50)"),
        (
            {"ab": 0.1, "cd": 0.1, "ac": 0.5, "ad": 0.5, "bc": 0.5, "bd": 0.5},
            "a and b can be mixed; c and d can be mixed; these groups conflict with each other",
        ),
    ],
)
def test_the_sentence(fractions, said):
    names = sorted(set("".join(fractions)))
    assert describe_groups(names, {tuple(pair): value for pair, value in fractions.items()}, limit=0.35) == said


def test_what_to_expect():
    assert expect(["a", "b"], Signs(2, 10), limit=0.4).sentence.endswith("they can be mixed")
    assert "conflict" in expect(["a", "b"], Signs(5, 10), limit=0.4).sentence
    # A set of three differs more than its pairs do.
    assert "conflict" not in expect(["a", "b", "c"], Signs(5, 10), limit=0.4).sentence
    assert "conflict" in expect(["a", "b", "c"], Signs(7, 10), limit=0.4).sentence
