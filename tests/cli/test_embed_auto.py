"""`scions embed --adapter auto`: one decision a file, the same when the run is resumed."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scions.encoder import load_encoder
from scions.store import adapter_fingerprint
from scions.vectors.writer import ResumableMatrix


@pytest.fixture
def adapters(publish_adapter, told_apart):
    publish_adapter("legal", seed=1, domain=told_apart["court"])
    publish_adapter("medical", seed=2, domain=told_apart["fever"])
    publish_adapter("engine-q", seed=3, domain=told_apart["engine"], query_side=True, format_version=2)


def _file(tmp_path, word, rows=40):
    path = tmp_path / "texts.txt"
    path.write_text(f"{word}\n" * rows)
    return path


def test_the_adapter_of_a_file(run, adapters, adapters_aside, tmp_path):
    target = tmp_path / "out.npy"
    code, out, err = run("embed", "--adapter", "auto", _file(tmp_path, "fever"), "-o", target)
    assert code == 0, err
    assert "auto: medical (confidence 1.00, by 20 texts)" in err
    record = json.loads((tmp_path / "out.npy.json").read_text())
    assert (record["adapter"], record["query_side"]) == ("medical", False)
    assert record["adapter_version"] == adapter_fingerprint(adapters_aside / "medical")[:12]
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


@pytest.fixture
def stopped(run, monkeypatch):
    """A run that Ctrl-C stops after its first chunk."""

    def make(*arguments):
        append, chunks = ResumableMatrix.append, []

        def once(matrix, *chunk):
            chunks.append(chunk)
            if len(chunks) == 2:
                raise KeyboardInterrupt
            append(matrix, *chunk)

        with monkeypatch.context() as patch:
            patch.setattr(ResumableMatrix, "append", once)
            assert run(*arguments)[0] == 130

    return make


def test_what_was_begun_is_gone_on_with(run, adapters, publish_adapter, told_apart, tmp_path, stopped):
    texts, target = _file(tmp_path, "court", 5000), tmp_path / "out.npy"
    stopped("embed", "--adapter", "auto", texts, "-o", target)
    # By now another adapter would be chosen.
    publish_adapter("courts", seed=5, domain=told_apart["court"])
    assert "auto: courts" in run("embed", "--adapter", "auto", texts, "-o", tmp_path / "other.npy")[2]
    code, out, err = run("embed", "--adapter", "auto", "--resume", texts, "-o", target)
    assert code == 0, err
    assert "auto: legal, as the interrupted run was begun" in err
    assert "the first 4096 from an earlier run" in out.replace("\n", " ")
    assert json.loads((tmp_path / "out.npy.json").read_text())["adapter"] == "legal"


def test_queries_are_gone_on_with_through_the_adapter_they_were_begun_with(
    run, adapters, publish_adapter, told_apart, tmp_path, stopped
):
    # As long as the base reads: nothing but its weights tells this adapter from the base, and from the next one.
    fitting = {"query_side": True, "format_version": 2, "max_length": 64}
    publish_adapter("engine-q", seed=3, domain=told_apart["engine"], **fitting)
    publish_adapter("other-q", seed=4, domain=told_apart["court"], **fitting)
    texts, target = _file(tmp_path, "engine", 5000), tmp_path / "out.npy"
    stopped("embed", "--adapter", "auto", "--queries", texts, "-o", target)
    for other in ("other-q", "base"):
        code, _, err = run("embed", "--adapter", other, "--queries", "--resume", texts, "-o", target)
        assert code == 1
        assert "adapter_version was" in err
    code, _, err = run("embed", "--adapter", "auto", "--queries", "--resume", texts, "-o", target)
    assert code == 0, err
    assert "auto: engine-q, as the interrupted run was begun" in err
    vectors = np.load(target)
    np.testing.assert_allclose(vectors[-1], vectors[0], atol=1e-6)


def test_what_cannot_be_decided(run, publish_adapter, tiny_base, tmp_path):
    publish_adapter("imported")
    texts = _file(tmp_path, "court")
    code, _, err = run("embed", "--adapter", "auto", "--base", tiny_base, texts, "-o", tmp_path / "out.npy")
    assert code == 1
    assert "no adapter of this base that can be chosen by its domain" in err
    code, _, err = run("embed", "--adapter", "auto-rows", texts, "-o", tmp_path / "out.npy")
    assert code == 2
    assert "lie in one space" in err
