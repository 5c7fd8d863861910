"""Records to JSON objects and back."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scions.store.records import FieldError, from_object, to_object


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int
    share: float = 0.5
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    inner: Inner
    other: Inner | None = None
    limit: int | None = None
    ready: bool = False
    shares: list[float] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    free: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


LEAST = {"name": "x", "inner": {"size": 1}}
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(), values, max_size=3),
    max_leaves=6,
)


@given(
    limit=st.none() | st.integers(),
    shares=st.lists(st.floats(allow_nan=False, allow_infinity=False)),
    counts=st.dictionaries(st.text(), st.integers()),
    free=st.dictionaries(st.text(), json_values),
)
def test_a_record_comes_back_equal(limit: int | None, shares: list[float], counts: dict, free: dict) -> None:
    record = Outer(name="é", inner=Inner(size=3), limit=limit, shares=shares, counts=counts, free=free)
    assert from_object(Outer, json.loads(json.dumps(to_object(record)))) == record


def test_fields_keep_their_order_and_extra_does_not_show() -> None:
    written = to_object(Outer(name="x", inner=Inner(size=1)))
    assert list(written) == ["name", "inner", "other", "limit", "ready", "shares", "counts", "free"]
    assert written["inner"] == {"size": 1, "share": 0.5}


def test_absent_fields_take_their_defaults() -> None:
    assert from_object(Outer, LEAST) == Outer(name="x", inner=Inner(size=1))


def test_unknown_keys_survive_at_both_levels_and_never_replace_a_field() -> None:
    value = LEAST | {"inner": {"size": 1, "new": [1]}, "newer": {"a": None}}
    record = from_object(Outer, value)
    assert (record.extra, record.inner.extra) == ({"newer": {"a": None}}, {"new": [1]})
    written = to_object(record)
    assert (written["newer"], written["inner"]["new"]) == ({"a": None}, [1])
    assert to_object(Inner(size=1, extra={"size": 7}))["size"] == 1


def test_a_key_called_extra_is_unknown_like_any_other() -> None:
    assert from_object(Inner, {"size": 1, "extra": 5}).extra == {"extra": 5}


def test_whole_numbers_do_for_floats_but_not_the_other_way() -> None:
    share = from_object(Inner, {"size": 1, "share": 2}).share
    assert (share, type(share)) == (2.0, float)
    with pytest.raises(FieldError, match=r"^size: expected a whole number, found a number \(1\.0\)"):
        from_object(Inner, {"size": 1.0})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": None}, "name: expected a string, found null (None)"),
        ({"inner": [1]}, "inner: expected an object, found a list ([1])"),
        ({"inner": {}}, "inner.size: is missing"),
        ({"inner": {"size": True}}, "inner.size: expected a whole number, found true or false (True)"),
        ({"other": {"size": "1"}}, "other.size: expected a whole number, found a string ('1')"),
        ({"limit": "1"}, "limit: expected a whole number"),
        ({"ready": 1}, "ready: expected true or false"),
        ({"shares": [1, float("nan")]}, "shares[1]: nan is not a finite number"),
        ({"shares": {"0": 1}}, "shares: expected a list, found an object"),
        ({"counts": {"a": 1, "b": 1.5}}, "counts.b: expected a whole number"),
        ({"free": {"a": [{"b": float("inf")}]}}, "free.a[0].b: inf is not a finite number"),
        ({"new": {"a": float("nan")}}, "new.a: nan is not a finite number"),
    ],
)
def test_a_wrong_value_is_named_by_its_path(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FieldError, match=f"^{re.escape(message)}"):
        from_object(Outer, LEAST | changes)


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_a_record_is_an_object(value: object) -> None:
    with pytest.raises(FieldError, match=r"^the file: expected an object"):
        from_object(Inner, value)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Inner(size="1"), "size: expected a whole number"),  # type: ignore[arg-type]
        (Outer(name="x", inner=Inner(size=1, share=float("nan"))), "inner.share: nan is not"),
        (Outer(name="x", inner=Inner(size=1), counts={1: 1}), "counts: key 1 is not a string"),  # type: ignore[dict-item]
        (Outer(name="x", inner=Inner(size=1), free={"a": {1, 2}}), "free.a: set cannot be written"),
        (Inner(size=1, extra={"new": object()}), "new: object cannot be written"),
    ],
)
def test_what_json_cannot_hold_is_refused_when_it_is_written(record: Any, message: str) -> None:
    with pytest.raises(FieldError, match=f"^{re.escape(message)}"):
        to_object(record)
