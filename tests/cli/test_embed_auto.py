"""`scions embed --adapter auto`: one decision a file, kept when the run goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scions.encoder import load_encoder, stream


@pytest.fixture
def adapters(publish_adapter, told_apart):
    publish_adapter("legal", seed=1, domain=told_apart["court"])
    publish_adapter("medical", seed=2, domain=told_apart["fever"])
    publish_adapter("engine-q", seed=3, domain=told_apart["engine"], query_side=True, format_version=2)


def _file(tmp_path, word, rows=40):
    path = tmp_path / "texts.txt"
    path.write_text(f"{word}\n" * rows)
    return path


def test_the_adapter_of_a_file(run, adapters, tmp_path):
    target = tmp_path / "out.npy"
    code, out, err = run("embed", "--adapter", "auto", _file(tmp_path, "fever"), "-o", target)
    assert code == 0, err
    assert "auto: medical (confidence 1.00, by 20 texts)" in err
    record = json.loads((tmp_path / "out.npy.json").read_text())
    assert record["adapter"] == "medical"
    assert record["space"] in out
    expected = load_encoder("medical", device="cpu").encode(["fever"] * 40)
    np.testing.assert_allclose(np.load(target), expected, atol=1e-6)


def test_texts_of_no_domain_get_the_base(run, adapters, tmp_path):
    code, _, err = run("embed", "--adapter", "auto", _file(tmp_path, "the model"), "-o", tmp_path / "out.npy")
    assert code == 0, err
    assert "auto: the base alone" in err
    assert json.loads((tmp_path / "out.npy.json").read_text())["adapter"] is None


def test_query_side_adapters_are_for_queries(run, adapters, tmp_path):
    texts = _file(tmp_path, "engine")
    _, _, err = run("embed", "--adapter", "auto", texts, "-o", tmp_path / "documents.npy")
    assert "engine-q" not in err
    code, _, err = run("embed", "--adapter", "auto", "--queries", texts, "-o", tmp_path / "queries.npy")
    assert code == 0, err
    assert "auto: engine-q" in err


def test_what_was_begun_is_gone_on_with(run, adapters, publish_adapter, told_apart, tmp_path, monkeypatch):
    texts, target = _file(tmp_path, "court", 5000), tmp_path / "out.npy"
    encode, calls = stream._encode, []

    def stopped(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(*arguments)

    monkeypatch.setattr(stream, "_encode", stopped)
    code, _, err = run("embed", "--adapter", "auto", texts, "-o", target)
    assert code != 0
    monkeypatch.setattr(stream, "_encode", encode)
    # By now another adapter would be chosen.
    publish_adapter("courts", seed=5, domain=told_apart["court"])
    assert "auto: courts" in run("embed", "--adapter", "auto", texts, "-o", tmp_path / "other.npy")[2]
    code, out, err = run("embed", "--adapter", "auto", "--resume", texts, "-o", target)
    assert code == 0, err
    assert "auto: legal, as the interrupted run was begun" in err
    assert "the first 4096 from an earlier run" in out.replace("\n", " ")
    assert json.loads((tmp_path / "out.npy.json").read_text())["adapter"] == "legal"


def test_what_cannot_be_decided(run, publish_adapter, tiny_base, tmp_path):
    publish_adapter("imported")
    texts = _file(tmp_path, "court")
    code, _, err = run("embed", "--adapter", "auto", "--base", tiny_base, texts, "-o", tmp_path / "out.npy")
    assert code == 1
    assert "no adapter of this base that can be chosen by its domain" in err
    code, _, err = run("embed", "--adapter", "auto-rows", texts, "-o", tmp_path / "out.npy")
    assert code == 2
    assert "lie in one space" in err
