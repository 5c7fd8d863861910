"""`scions reindex`, and what embed, evaluate and list do with a query-side adapter."""

from __future__ import annotations

import json

import numpy as np
import pytest

from scions.encoder import load_encoder

WORDS = "court contract party claim judge law patient dose drug fever engine valve pump battery motor".split()  # noqa: SIM905


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"the {word}\n" for word in WORDS))
    return path


@pytest.fixture
def query_side(publish_adapter):
    return publish_adapter("legal-q", query_side=True, format_version=2, max_length=64)[0]


@pytest.fixture
def beir(tmp_path):
    folder = tmp_path / "faq"
    (folder / "qrels").mkdir(parents=True)
    for name, article in (("corpus", "the"), ("queries", "a")):
        rows = [json.dumps({"_id": str(n), "text": f"{article} {word}"}) for n, word in enumerate(WORDS)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    judged = "".join(f"{n}\t{n}\t1\n" for n in range(len(WORDS)))
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return folder


@pytest.fixture
def index(run, tiny_base, texts, tmp_path):
    target = tmp_path / "index.npy"
    code, _, err = run("embed", "--base", tiny_base, texts, "-o", target)
    assert code == 0, err
    return target


def test_embed_takes_a_query_side_adapter_for_queries_only(run, query_side, tiny_base, texts, index, tmp_path):
    target = tmp_path / "queries.npy"
    code, _, err = run("embed", "--adapter", "legal-q", texts, "-o", target)
    assert code == 2
    assert "documents are embedded with the base alone" in err
    assert "--queries" in err
    assert not target.exists()
    assert run("embed", "--adapter", "legal-q", "--queries", texts, "-o", target)[0] == 0
    expected = load_encoder("legal-q", device="cpu").encode_query(texts.read_text().splitlines())
    np.testing.assert_allclose(np.load(target), expected, atol=1e-6)
    record, base = (json.loads(path.with_name(path.name + ".json").read_text()) for path in (target, index))
    assert record["space"] == base["space"]
    assert (record["adapter"], record["query_side"], base["query_side"]) == ("legal-q", True, False)


def test_evaluate_searches_the_bases_documents(run, query_side, tiny_base, beir, index, tmp_path, monkeypatch):
    out, known = tmp_path / "out.json", tmp_path / "known.json"
    assert run("evaluate", "legal-q", "--data", beir, "--output-json", out)[0] == 0
    code, _, err = run("evaluate", "legal-q", "--data", beir, "--vectors", index, "--output-json", known)
    assert code == 0, err
    scores = [[one["metrics"] for one in json.loads(path.read_text())["encoders"]] for path in (out, known)]
    assert scores[0] == scores[1]
    assert scores[0][0] != scores[0][1]


def test_evaluate_refuses_vectors_of_another_space_before_it_scores(
    run, query_side, publish_adapter, beir, index, pairs, tiny_base, monkeypatch
):
    publish_adapter("legal", seed=2, max_length=64)
    monkeypatch.setattr("scions.evaluation.tasks.evaluate", lambda *_, **__: pytest.fail("scored"))
    code, _, err = run("evaluate", "legal-q", "legal", "--data", beir, "--vectors", index)
    assert code == 1
    assert "index.npy" in err
    assert "documents of legal are vectors of different spaces" in err
    code, _, err = run("evaluate", "--base", tiny_base, "--data", pairs, "--vectors", index)
    assert code == 2
    assert "only retrieval data" in err


def test_list_says_what_is_query_side(run, query_side, publish_adapter):
    publish_adapter("legal")
    lines = run("list")[1].splitlines()
    assert ["query-side" in line for line in lines if "legal" in line] == [False, True]
    rows = {row["name"]: row["query_side"] for row in json.loads(run("list", "--json")[1])}
    assert rows == {"legal": False, "legal-q": True}


def test_reindex_writes_beside_the_old_file(run, publish_adapter, texts, index, tmp_path):
    publish_adapter("legal", max_length=64)
    before = sorted(tmp_path.iterdir())
    code, out, _ = run("reindex", index, "--texts", texts, "--adapter", "legal", "--dry-run")
    assert code == 0
    for part in ("15 vectors", "adapter legal", "about", "rows/s", "index.legal.npy", "Nothing was written"):
        assert part in out
    assert sorted(tmp_path.iterdir()) == before
    code, out, err = run("reindex", index, "--texts", texts, "--adapter", "legal")
    assert code == 0, err
    old, new = (json.loads((tmp_path / f"{name}.npy.json").read_text()) for name in ("index", "index.legal"))
    assert f"space {old['space']} before, {new['space']} now" in out
    expected = load_encoder("legal", device="cpu").encode(texts.read_text().splitlines())
    np.testing.assert_allclose(np.load(tmp_path / "index.legal.npy"), expected, atol=1e-6)
    code, out, _ = run("reindex", tmp_path / "index.legal.npy", "--texts", texts, "--adapter", "legal")
    assert code == 0
    assert "Nothing to do" in out
    assert "query-side" not in out
    code, _, err = run("reindex", index, "--texts", texts, "--adapter", "legal")
    assert code == 2
    assert "--force" in err


def test_reindex_for_a_query_side_adapter_has_nothing_to_do(run, query_side, texts, index):
    code, out, _ = run("reindex", index, "--texts", texts, "--adapter", "legal-q")
    assert code == 0
    assert "Nothing to do" in out
    assert "legal-q is query-side" in out
    assert not index.with_name("index.legal-q.npy").exists()


def test_reindex_refuses_other_texts_and_says_when_they_changed(run, publish_adapter, texts, index):
    publish_adapter("legal", max_length=64)
    lines = texts.read_text().splitlines()
    texts.write_text("\n".join(lines[:-1]) + "\n")
    code, _, err = run("reindex", index, "--texts", texts, "--adapter", "legal")
    assert code == 1
    assert "has 14 rows" in err
    assert "15 vectors" in err
    texts.write_text("\n".join(lines[::-1]) + "\n")
    code, _, err = run("reindex", index, "--texts", texts, "--adapter", "legal")
    assert code == 0
    assert "is not the file that" in err


def test_train_shows_both_ways(run, pairs, tiny_base):
    rows = [json.loads(line) for line in pairs.read_text().splitlines()]
    more = [{key: f"{text} {n}" for key, text in row.items()} for n in range(4) for row in rows]
    pairs.write_text("".join(json.dumps(row) + "\n" for row in more))
    given = ("--base", tiny_base, "--rank", 2, "--epochs", 1, "--force")
    code, out, err = run("train", "--data", pairs, "--name", "legal-q", "--query-side", *given)
    assert code == 0, err
    for part in ("query-side", "keep the base's vectors", "0 documents embedded anew", "--compare-two-sided"):
        assert part in out
    code, _, err = run("train", "--data", pairs, "--name", "other", "--compare-two-sided", *given)
    assert code == 2
    assert "give that too" in err


def test_reindex_to_the_base_takes_the_one_of_the_vectors(run, publish_adapter, texts, index, tiny_base, tmp_path):
    publish_adapter("legal", max_length=64)
    assert run("reindex", index, "--texts", texts, "--adapter", "legal")[0] == 0
    moved, back = tmp_path / "index.legal.npy", tmp_path / "back.npy"
    code, _, err = run("reindex", moved, "--texts", texts, "--adapter", "base", "-o", back)
    assert code == 0, err
    assert np.array_equal(np.load(back), np.load(index))
    record, first = (json.loads(path.with_name(path.name + ".json").read_text()) for path in (back, index))
    assert (record["space"], record["base"]) == (first["space"], str(tiny_base))
