from __future__ import annotations

import re
from typing import Any

import pytest

from scions.errors import ScionsError, UsageError
from scions.store import check_same_space, space_fingerprint

USUAL: dict[str, Any] = {
    "base_sha": "b", "adapter_sha": "a", "strength": 1.0, "pooling": "mean", "dimensions": 384
}  # fmt: skip


def test_it_is_short_hex_and_stable() -> None:
    assert re.fullmatch(r"[0-9a-f]{16}", space_fingerprint(**USUAL))
    assert space_fingerprint(**USUAL) == space_fingerprint(**(USUAL | {"strength": 1}))


@pytest.mark.parametrize(
    "change",
    [{"base_sha": "c"}, {"adapter_sha": "c"}, {"adapter_sha": None}, {"strength": 0.5}, {"pooling": "cls"},
     {"dimensions": 256}, {"base_sha": "a", "adapter_sha": "b"}],
)  # fmt: skip
def test_everything_that_moves_the_vectors_changes_it(change: dict[str, Any]) -> None:
    assert space_fingerprint(**(USUAL | change)) != space_fingerprint(**USUAL)


def test_without_an_adapter_its_strength_does_not_matter() -> None:
    bare = USUAL | {"adapter_sha": None}
    assert space_fingerprint(**bare) == space_fingerprint(**(bare | {"strength": 0.3}))


@pytest.mark.parametrize("change", [{"strength": float("nan")}, {"dimensions": 0}, {"dimensions": 3.0}])
def test_nonsense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        space_fingerprint(**(USUAL | change))


def test_different_spaces_are_not_compared() -> None:
    check_same_space("a", "a")
    with pytest.raises(ScionsError, match=r"old\.npy and new\.npy are vectors of different spaces \(a and b\)"):
        check_same_space("a", "b", a_name="old.npy", b_name="new.npy")
