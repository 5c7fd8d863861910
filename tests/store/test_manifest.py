from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scions.errors import AdapterError
from scions.store import Manifest


def changed(manifest: Manifest, path: str, value: Any) -> str:
    """The manifest's JSON with the value at a dotted path replaced (`...` removes it)."""
    whole = json.loads(manifest.to_json())
    *parents, last = path.split(".")
    place = whole
    for part in parents:
        place = place[part]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    return json.dumps(whole)


def test_round_trip(make_manifest: Callable[..., Manifest]) -> None:
    manifest = make_manifest()
    assert Manifest.from_json(manifest.to_json()) == manifest
    bare = make_manifest(domain=None, rank=None, method="full", prompts={"ü": "é"})
    assert Manifest.from_json(bare.to_json()) == bare
    assert "é" in bare.to_json()


def test_the_file_is_plain_json_in_a_fixed_order(make_manifest: Callable[..., Manifest]) -> None:
    value = json.loads(make_manifest().to_json())
    assert list(value)[:3] == ["format_version", "name", "base"]
    assert value["format_version"] == 1
    assert value["data"]["rows"] == {"train": 80, "dev": 10, "test": 20}
    assert "extra" not in value


def test_unknown_keys_survive_at_every_level(make_manifest: Callable[..., Manifest]) -> None:
    value = json.loads(make_manifest().to_json())
    value["licence"] = {"spdx": "MIT"}
    value["base"]["revision"] = "main"
    value["domain"]["covariance"] = [1.0, 2]
    manifest = Manifest.from_json(json.dumps(value))
    assert manifest.extra == {"licence": {"spdx": "MIT"}}
    renamed = dataclasses.replace(manifest, name="law")
    assert json.loads(renamed.to_json()) == value | {"name": "law"}


def test_a_query_side_adapter_is_of_a_version_that_older_readers_refuse(make_manifest: Callable[..., Manifest]) -> None:
    manifest = make_manifest(query_side=True, format_version=2)
    assert Manifest.from_json(manifest.to_json()) == manifest
    older = json.loads(make_manifest().to_json())
    del older["query_side"]
    assert Manifest.from_json(json.dumps(older)).query_side is False


def test_a_newer_format_is_refused_before_any_other_complaint() -> None:
    with pytest.raises(AdapterError, match=r"x/scions\.json: format_version: 3 is newer than 2.*--upgrade"):
        Manifest.from_json('{"format_version": 3, "name": 5}', source="x/scions.json")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("name", 5, "name: expected a string, found a whole number (5)"),
        ("name", ..., "name: is missing"),
        ("format_version", ..., "format_version: is missing"),
        ("format_version", "1", "format_version: expected a whole number, found a string ('1')"),
        ("format_version", True, "format_version: expected a whole number"),
        ("format_version", 0, "format_version: 0"),
        ("query_side", True, "format_version: 1, but a query-side adapter needs 2"),
        ("query_side", "yes", "query_side: expected true or false"),
        ("base", "org/tiny", "base: expected an object"),
        ("base.layers", 6.0, "base.layers: expected a whole number, found a number (6.0)"),
        ("base.id", None, "base.id: expected a string, found null"),
        ("base.weights_sha256", "abc", "base.weights_sha256: 'abc', expected 64 hex digits"),
        ("method", "prefix", "method: 'prefix', expected one of houlsby"),
        ("rank", True, "rank: expected a whole number"),
        ("trainable_share", 3.6, "trainable_share: 3.6, expected a share"),
        ("trainable_share", "3%", "trainable_share: expected a number"),
        ("data.rows", {"train": "80"}, "data.rows.train: expected a whole number"),
        ("data.notes", "none", "data.notes: expected a list"),
        ("data.notes", ["a", 1], "data.notes[1]: expected a string"),
        ("domain.mean", [0.5, None], "domain.mean[1]: expected a number, found null"),
        ("prompts", [], "prompts: expected an object, found a list"),
        ("created", "yesterday", "created: 'yesterday', expected ISO 8601 in UTC"),
        ("created", "2026-01-31T12:00:00", "created: '2026-01-31T12:00:00', expected ISO 8601 in UTC"),
        ("created", "2026-01-31T12:00:00+02:00", "expected ISO 8601 in UTC"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(
    make_manifest: Callable[..., Manifest], path: str, value: Any, message: str
) -> None:
    with pytest.raises(AdapterError, match=re.escape(message)) as caught:
        Manifest.from_json(changed(make_manifest(), path, value), source="adapters/legal/scions.json")
    assert str(caught.value).startswith("adapters/legal/scions.json: ")


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "null", '{"format_version": NaN}', "[" * 100_000, b"\xff\xfe{"], ids=repr
)
def test_what_is_no_manifest_at_all(text: str | bytes) -> None:
    with pytest.raises(AdapterError, match=r"^here: "):
        Manifest.from_json(text, source="here")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": {"base": float("nan")}}, "scores.base: nan is not a finite number"),
        ({"recipe": {"path": Path("x")}}, "recipe.path: PosixPath cannot be written"),
        ({"rank": 2.0}, "rank: expected a whole number"),
        ({"prompts": {1: "x"}}, "prompts: key 1 is not a string"),
        ({"extra": {"x": {1, 2}}}, "x: set cannot be written"),
    ],
)
def test_a_wrong_value_shows_when_it_is_written(
    make_manifest: Callable[..., Manifest], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(AdapterError, match=re.escape(message)):
        make_manifest(**changes).to_json()


def test_created_is_filled_in(make_manifest: Callable[..., Manifest]) -> None:
    values = {f.name: getattr(make_manifest(), f.name) for f in dataclasses.fields(Manifest)}
    del values["created"]
    manifest = Manifest(**values)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", manifest.created)
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_read_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"no scions\.json"):
        Manifest.read(tmp_path)
