"""`scions serve`: errors before a model is loaded, and a real server."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from scions.cli.serve import size
from scions.errors import UsageError


def test_the_network_needs_keys(run):
    code, _, err = run("serve", "--host", "0.0.0.0")
    assert code == 2
    assert "needs --keys; or use --host 127.0.0.1" in err


def test_what_is_not_installed_is_named(run, monkeypatch):
    monkeypatch.setattr("scions.serving.server.REQUIRED", ("json", "no_such_package_of_ours"))
    code, _, err = run("serve")
    assert code == 2
    assert "no_such_package_of_ours: pip install 'scions[serve]'" in err


def test_without_the_extra_the_command_says_what_to_install():
    code = (
        "import sys; sys.modules |= dict.fromkeys(('fastapi', 'uvicorn', 'prometheus_client', 'orjson')); "
        "sys.argv = ['scions', 'serve']; from scions.cli import main; sys.exit(main())"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 2
    assert "pip install 'scions[serve]'" in run.stderr


def test_keys_must_be_readable(run, tmp_path):
    (tmp_path / "keys.json").write_text("{}")
    code, _, err = run("serve", "--keys", str(tmp_path / "keys.json"))
    assert code == 2
    assert "keys.json: expected an object of keys" in err


def test_a_port_that_is_taken(run):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = run("serve", "--port", str(taken.getsockname()[1]))
    assert code == 2
    assert "the port is taken" in err


def test_a_queue_too_short_for_one_request(run):
    code, _, err = run("serve", "--max-rows", "100", "--max-queue", "50")
    assert code == 2
    assert "--max-queue 50 is too small; with --max-rows 100 it must be at least 200" in err


@pytest.mark.parametrize(
    ("text", "number"),
    [("512MB", 512_000_000), ("1.5gb", 1_500_000_000), ("100k", 100_000), ("7", 7), ("2 GB", 2 * 10**9)],
)
def test_sizes(text, number):
    assert size(text, "--memory") == number


@pytest.mark.parametrize("text", ["", "many", "-1", "0", "1XB", "1e9"])
def test_invalid_sizes(text):
    with pytest.raises(UsageError, match="--memory"):
        size(text, "--memory")


def test_a_server_from_the_command_line(tiny_base, publish_adapter, adapters_aside):
    import http.client
    import re
    import signal

    publish_adapter("legal")
    process = subprocess.Popen(
        [sys.executable, "-m", "scions.cli", "serve", "--adapters", str(adapters_aside), "--base", str(tiny_base),
         "--port", "0"],
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stderr is not None
        found = None
        while found is None:
            line = process.stderr.readline()
            assert line, "ended before it listened"
            found = re.search(r"with 1 adapters from .* on http://127\.0\.0\.1:(\d+)", line)
        connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=20)
        body = json.dumps({"model": "legal", "input": "the law"})
        connection.request("POST", "/v1/embeddings", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        assert len(answer["data"][0]["embedding"]) == 32
        assert answer["scions"]["spaces"][0]["adapter"] == "legal"
        process.send_signal(signal.SIGTERM)
        _, rest = process.communicate(timeout=20)
        assert process.returncode == 0
        assert any(json.loads(line)["event"] == "request" for line in rest.splitlines())
    finally:
        process.kill()
        process.wait()
