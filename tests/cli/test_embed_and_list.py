"""`scions embed` and `scions list` on real folders of a tiny base."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scions.encoder import load_encoder


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("the court\nthe patient\n" + "drug " * 90 + "\n")
    return path


def test_embed_with_an_adapter(run, publish_adapter, texts, tmp_path):
    publish_adapter("legal")
    target = tmp_path / "out.npy"
    code, out, err = run("embed", "--adapter", "legal", texts, "-o", target)
    assert code == 0
    vectors = np.load(target)
    np.testing.assert_allclose(
        vectors, load_encoder("legal", device="cpu").encode(texts.read_text().split("\n")[:3]), atol=1e-6
    )
    record = json.loads((tmp_path / "out.npy.json").read_text())
    assert record["adapter"] == "legal"
    assert "3 vectors of 32 dimensions (float32) in" in out.replace("\n", " ")
    assert record["space"] in out
    assert "1 of 3 texts are longer than 16 tokens" in err
    code, _, err = run("embed", "--adapter", "legal", texts, "-o", target)
    assert code == 2
    assert "--force" in err


def test_the_base_alone_lies_in_another_space(run, publish_adapter, tiny_base, texts, tmp_path):
    publish_adapter("legal")
    run("embed", "--adapter", "legal", texts, "-o", tmp_path / "a.npy")
    code, _, _ = run("embed", "--base", tiny_base, texts, "-o", tmp_path / "b.npy", "--dtype", "float16")
    assert code == 0
    a, b = (json.loads((tmp_path / f"{name}.npy.json").read_text()) for name in "ab")
    assert a["space"] != b["space"]
    assert (b["adapter"], b["dtype"]) == (None, "float16")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "out.bin"], 2, "vectors are written as"),
        (["-o", "out.npy", "--dtype", "int8"], 2, "float32, float16"),
        (["-o", "out.npy", "--column", "body"], 1, "has no columns"),
        (["-o", "out.npy", "--adapter", "none-such"], 1, "no adapter 'none-such'"),
    ],
)
def test_embed_refuses(run, texts, tiny_base, tmp_path, arguments, code, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = [] if "--adapter" in arguments else ["--base", tiny_base]
    got, _, err = run("embed", texts, *base, *arguments)
    assert got == code
    assert message in err


def test_list_shows_scores_and_what_is_broken(run, publish_adapter, adapters_aside, tiny_base):
    scores = {
        "outcome": "better",
        "metric": "ndcg@10",
        "metrics": {"ndcg@10": {"base": {"value": 55.5, "low": 50, "high": 60}, "adapter": {"value": 66.6}}},
    }
    publish_adapter("legal", scores=scores)
    broken, _ = publish_adapter("broken")
    (broken / "adapter_model.safetensors").write_bytes(b"short")
    code, out, _ = run("list")
    assert code == 0
    [line] = [line for line in out.splitlines() if "legal" in line]
    for part in ("houlsby", "3.60 %", "ndcg@10", "55.50", "66.60", "better", "kB"):
        assert part in line
    assert "broken: broken: adapter_model.safetensors" in out
    rows = {row["name"]: row for row in json.loads(run("list", "--json")[1])}
    assert (rows["legal"]["before"], rows["legal"]["after"], rows["legal"]["problem"]) == (55.5, 66.6, None)
    assert rows["legal"]["base"] == str(tiny_base)
    assert rows["broken"]["problem"]


def test_list_of_nothing(run, tmp_path):
    code, out, _ = run("list", "--adapters", tmp_path / "none")
    assert code == 0
    assert "holds no adapters" in out
    assert run("list", "--adapters", tmp_path / "none", "--json")[1] == "[]\n"


@pytest.mark.parametrize("scores", [{}, {"metric": 3, "metrics": []}, {"metric": "map", "metrics": {"map": None}}])
def test_scores_that_hold_less_are_no_failure(run, publish_adapter, scores):
    publish_adapter("legal", scores=scores)
    code, out, _ = run("list")
    assert code == 0
    assert "legal" in out


def test_a_folder_that_must_not_be_read_does_not_stop_the_list(run, publish_adapter, adapters_aside, monkeypatch):
    import os

    publish_adapter("legal")
    real = os.stat

    def stat(path, *args, **kwargs):
        if str(path).endswith("README.md"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *args, **kwargs)

    (adapters_aside / "legal" / "README.md").write_text("x")
    monkeypatch.setattr(os, "stat", stat)
    code, out, _ = run("list")
    assert code == 0
    assert "legal" in out


def test_texts_from_a_pipe_are_refused_with_the_reason(run, tiny_base, tmp_path):
    code, _, err = run("embed", "/dev/null", "-o", tmp_path / "x.npy", "--base", tiny_base)
    assert code == 1
    assert "is not a regular file" in err
