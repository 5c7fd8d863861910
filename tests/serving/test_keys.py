"""API keys: authentication, and what a key may use and change."""

from __future__ import annotations

import hashlib
import json

import pytest

from scions.errors import UsageError
from scions.serving import Keys, check_host

KEYS = {
    "secret-admin": {"name": "ops", "adapters": None, "admin": True},
    "secret-legal": {"name": "law", "adapters": ["legal"]},
    "sha256:" + hashlib.sha256(b"secret-hashed").hexdigest(): {"name": "hashed", "adapters": []},
}


def _bearer(key):
    return {"authorization": f"Bearer {key}"}


def _embed(ask, key, **body):
    return ask("POST", "/v1/embeddings", keys=KEYS, headers=_bearer(key), json={"model": "base", "input": "a", **body})


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": ""}, {"authorization": "Bearer"}, {"authorization": "Basic secret-admin"},
                _bearer("wrong"), _bearer("secret-admi"), _bearer(hashlib.sha256(b"secret-hashed").hexdigest())],
)  # fmt: skip
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/embeddings"), ("GET", "/v1/models"), ("GET", "/v1/models/legal"), ("GET", "/v1/adapters"),
     ("POST", "/v1/adapters"), ("DELETE", "/v1/adapters/legal"), ("GET", "/metrics")],
)  # fmt: skip
def test_every_route_needs_a_key(ask, headers, method, path):
    answer = ask(method, path, keys=KEYS, headers=headers)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_key_and_its_hash_both_work(ask):
    assert [_embed(ask, key).status_code for key in ("secret-admin", "secret-legal", "secret-hashed")] == [200] * 3


def test_adapters_that_are_not_allowed_are_as_if_they_were_not_there(ask):
    assert _embed(ask, "secret-legal", model="legal").status_code == 200
    hidden, missing = (_embed(ask, "secret-legal", model=name) for name in ("medical", "nobody"))
    assert hidden.status_code == missing.status_code == 404
    assert hidden.text.replace("medical", "") == missing.text.replace("nobody", "")
    assert _embed(ask, "secret-legal", adapter=["medical"]).status_code == 404
    assert _embed(ask, "secret-hashed", model="legal").status_code == 404


def test_lists_hold_what_the_key_may_use(ask):
    def listed(key, path):
        return [row["id"] for row in ask("GET", path, keys=KEYS, headers=_bearer(key)).json()["data"]]

    assert listed("secret-legal", "/v1/models") == ["base", "legal"]
    assert listed("secret-hashed", "/v1/models") == ["base"]
    assert listed("secret-admin", "/v1/models") == ["base", "legal", "medical"]
    assert listed("secret-legal", "/v1/adapters") == ["legal"]
    assert ask("GET", "/v1/models/medical", keys=KEYS, headers=_bearer("secret-legal")).status_code == 404
    assert ask("GET", "/v1/adapters/medical", keys=KEYS, headers=_bearer("secret-legal")).status_code == 404


def test_only_an_administrator_changes_adapters(ask):
    def status(method, path, key, **body):
        return ask(method, path, keys=KEYS, headers=_bearer(key), **body).status_code

    assert status("DELETE", "/v1/adapters/legal", "secret-legal") == 403
    assert status("POST", "/v1/adapters", "secret-legal", json={"folder": "legal"}) == 403
    assert status("DELETE", "/v1/adapters/legal", "secret-admin") == 200
    assert status("POST", "/v1/adapters", "secret-admin", json={"folder": "legal"}) == 200


def test_metrics_and_state_behind_keys(ask):
    def status(path, headers):
        return ask("GET", path, keys=KEYS, headers=headers).status_code

    assert status("/metrics", _bearer("secret-legal")) == 403
    assert status("/metrics", _bearer("secret-admin")) == 200
    assert [status(path, {}) for path in ("/health", "/ready")] == [200, 200]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is not valid JSON"),
        ("[]", "expected an object of keys"),
        ("{}", "expected an object of keys"),
        ('{"k": 1}', 'key 1: expected an object with a "name"'),
        ('{"k": {"name": ""}}', 'expected an object with a "name"'),
        ('{"k": {"name": "a", "adapter": []}}', "unknown adapter; there are adapters, admin, name"),
        ('{"k": {"name": "a", "adapters": "legal"}}', "expected an array of names, or null"),
        ('{"k": {"name": "a", "admin": 1}}', "expected true or false"),
        ('{"": {"name": "a"}}', "empty or has spaces"),
        ('{"sha256:abc": {"name": "a"}}', "64 hex digits"),
        ('{"k": {"name": "a"}, "l": {"name": "a"}}', "another key has the name 'a' too"),
        ('{"k": {"name": "a", "adapters": []}, "k": {"name": "b"}}', "stands in it twice"),
        ('{"k": {"name": "a", "adapters": [], "adapters": null}}', "stands in it twice"),
        ('{"schl\u00fcssel": {"name": "a"}}', "no HTTP header carries"),
        (json.dumps({"k": {"name": "a"}, "sha256:" + hashlib.sha256(b"k").hexdigest(): {"name": "b"}}), "stands in"),
    ],
)  # fmt: skip
def test_invalid_files_are_refused(tmp_path, content, words):
    path = tmp_path / "keys.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UsageError, match=words) as error:
        Keys.read(path)
    assert "keys.json" in str(error.value)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(UsageError, match="cannot be read"):
        Keys.read(tmp_path / "none.json")


def test_keys_are_stored_as_hashes_only(tmp_path):
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(KEYS))
    assert "secret" not in repr(vars(Keys.read(path)))


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "::", "example.org"])
def test_without_keys_only_this_machine_is_served(host, tmp_path):
    with pytest.raises(UsageError, match="needs `keys="):
        check_host(host, None)
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(KEYS))
    check_host(host, Keys.read(path))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "::1"])
def test_this_machine_needs_no_keys(host):
    check_host(host, None)


def test_a_page_elsewhere_cannot_reach_a_local_server_under_its_own_name(ask):
    refused = ask("GET", "/v1/models", headers={"host": "evil.example:8000"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "wrong_host")
    for host in ("localhost:8000", "127.0.0.1", "[::1]:8000", "LOCALHOST"):
        assert ask("GET", "/v1/models", headers={"host": host}).status_code == 200
    with_keys = ask("GET", "/v1/models", keys=KEYS, headers={"host": "api.example", **_bearer("secret-admin")})
    assert with_keys.status_code == 200
