"""The fraction of sign difference on tensors one can count by hand."""

from __future__ import annotations

import pytest
import torch

from scions.errors import UsageError
from scions.merging.signs import sign_difference, weight_cosine
from scions.merging.tensor_sites import compared, place
from scions.store import read_weights

KEY = "base_model.model.encoder.layer.{}.{}.bottleneck_down.weight"


def tensors(*values: float, layer: int = 0, site: str = "output.dense"):
    return {KEY.format(layer, site): torch.tensor([list(values)])}


def test_the_share_of_coordinates_that_differ():
    found = sign_difference([tensors(1, -1, 2, -2), tensors(1, 1, 3, 5)])
    assert (found.differing, found.counted, found.fraction) == (2, 4, 0.5)


def test_zeros_do_not_count():
    found = sign_difference([tensors(0, -1, 2, 0), tensors(1, 1, 3, 0)])
    assert (found.differing, found.counted) == (1, 2)


def test_a_set_differs_where_it_is_not_unanimous():
    members = [tensors(1, 1, 1, -1), tensors(1, 1, -1, -1), tensors(1, -1, -1, -1)]
    assert sign_difference(members).fraction == 0.5
    # A zero has no vote: the other two agree on the second coordinate, and on the third nobody is left to disagree.
    members = [tensors(1, 1, 1), tensors(1, 1, 0), tensors(1, 0, 0)]
    found = sign_difference(members)
    assert (found.differing, found.counted) == (0, 2)


def test_all_zeros_give_nothing_to_count():
    assert sign_difference([tensors(0, 0), tensors(0, 0)]).fraction == 0.0


def test_by_layer_and_by_site():
    one = tensors(1, 1, layer=0) | tensors(1, 1, 1, layer=1, site="attention.output.dense")
    other = tensors(1, -1, layer=0) | tensors(1, 1, 1, layer=1, site="attention.output.dense")
    found = sign_difference([one, other])
    assert found.by_layer() == {0: 0.5, 1: 0.0}
    assert found.by_site() == {"attention.output.dense": 0.0, "output.dense": 0.5}


def test_layer_norms_are_left_out(publish_adapter):
    published = read_weights(publish_adapter()[0])
    names = set(compared(published))
    assert names
    assert names < set(published)
    assert not any("norm" in name for name in names)
    assert {place(name) for name in names} == {
        (n, s) for n in (0, 1) for s in ("attention.output.dense", "output.dense")
    }


def test_cosine_of_weights():
    assert weight_cosine(tensors(1, 0), tensors(2, 0)) == pytest.approx(1)
    assert weight_cosine(tensors(1, 0), tensors(0, 3)) == 0
    assert weight_cosine(tensors(1, 1), tensors(0, 0)) == 0


def test_tensors_that_do_not_lie_over_each_other_are_refused():
    with pytest.raises(UsageError, match="differs in shape"):
        sign_difference([tensors(1, 2), tensors(1)])
    with pytest.raises(UsageError, match="two adapters or more, found 1"):
        sign_difference([tensors(1, 2)])
