"""Domain statistics: made of the bare base's vectors, and refused where they are damaged or of another base."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from scions.routing.domains import Domains, domain_statistics, domain_vectors, unroutable, unusable
from scions.routing.sample import RoutingSample
from scions.store import DomainStatistics

GOOD = DomainStatistics(mean=[0.6, 0.8], spherical_variance=0.1, n=3)


class Encoder:
    def encode(self, texts, **options):
        assert options == {"prompt": "", "normalize_embeddings": True, "show_progress_bar": False}
        return [[float(len(text)), 0.0] for text in texts]


def test_statistics_are_mean_and_variance_of_one_coordinate():
    vectors = domain_vectors(Encoder(), ["a", "bbb"])
    assert vectors.dtype == np.float32
    assert domain_statistics(vectors) == DomainStatistics(mean=[2.0, 0.0], spherical_variance=0.5, n=2)


@pytest.mark.parametrize(
    ("domain", "reason"),
    [
        (GOOD, None),
        (None, "no domain statistics"),
        (replace(GOOD, mean=[]), "no domain statistics"),
        (replace(GOOD, mean=[0.6, 0.8, 0.0]), "unusable domain statistics"),
        (replace(GOOD, mean=[60.0, 80.0]), "unusable domain statistics"),
        (replace(GOOD, spherical_variance=0.0), "unusable domain statistics"),
        (replace(GOOD, spherical_variance=float("nan")), "unusable domain statistics"),
    ],
)
def test_what_texts_cannot_be_routed_by(domain, reason):
    assert unusable(domain, 2) == reason
    assert (Domains.of_routable({"legal": domain}, 2) is None) == (reason is not None)


def test_what_texts_cannot_be_routed_to(a_manifest, tiny_base):
    manifest = replace(a_manifest(tiny_base, "legal"), domain=GOOD)
    sha = manifest.base.weights_sha256
    assert unroutable(manifest) is unroutable(manifest, sha, 2) is None
    assert unroutable(manifest, "other") == "another base"
    assert unroutable(replace(manifest, method="full"), sha) == "a whole model"
    assert unroutable(manifest, sha, 3) == "unusable domain statistics"


def test_a_sample_is_used_again_for_the_same_tokens_of_the_bare_base():
    sample = RoutingSample([0, 2, 3], [[1, 2], [3], [4]], np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 2.0]]))
    ids = [[1, 2], [9], [7], [4]]
    assert sample.reusable(ids, [True] * 4) == [0, 3]
    assert sample.reusable(ids, [False, True, True, True]) == [3]
    assert sample.of([3, 0]).tolist() == [[0.0, 2.0], [3.0, 4.0]]
    assert sample.unit().tolist() == [[0.6, 0.8], [0.0, 0.0], [0.0, 1.0]]
