"""Encoders side by side: the same rows, intervals, differences to the base, and what is refused."""

from __future__ import annotations

import json

import pytest

from scions.evaluation import STS_TASKS


def test_base_and_adapters_in_one_table(run, tiny_base, publish_adapter, pairs, tmp_path):
    publish_adapter("legal")
    publish_adapter("medical", seed=2)
    target = tmp_path / "figures.json"
    code, out, err = run("evaluate", "legal", "medical", "--data", pairs, "--output-json", target)
    assert code == 0
    assert "p values are adjusted for 2 comparisons (Holm)" in err
    found = json.loads(target.read_text())
    assert [one["name"] for one in found["encoders"]] == [f"base: {tiny_base}", "legal", "medical"]
    base, legal, _ = found["encoders"]
    assert base["difference"] is None
    assert legal["primary"] == "ndcg@10"
    gain = legal["metrics"]["ndcg@10"]["value"] - base["metrics"]["ndcg@10"]["value"]
    assert legal["difference"]["value"] == pytest.approx(gain)
    assert legal["difference"]["low"] <= gain <= legal["difference"]["high"]
    assert f"{legal['metrics']['ndcg@10']['value']:.2f} [" in out
    assert f"{gain:+.2f} [" in out
    assert found["data"]["rows"] == 15


def test_no_base_and_a_model_by_path(run, tiny_base, pairs):
    code, out, _ = run("evaluate", tiny_base, "--no-base", "--data", pairs)
    assert code == 0
    assert "base:" not in out
    assert "ndcg@10" in out


def test_sts_has_seven_tasks_and_their_mean(run, tiny_base, publish_adapter, tmp_path):
    publish_adapter("legal")
    folder = tmp_path / "sts"
    folder.mkdir()
    words = ["court", "contract", "party", "claim", "judge", "law"]
    rows = [
        {"sentence1": a, "sentence2": b, "score": abs(i - j)} for i, a in enumerate(words) for j, b in enumerate(words)
    ]
    for task in STS_TASKS:
        (folder / f"{task}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    code, out, _ = run("evaluate", "legal", "--sts", folder, "--output-json", tmp_path / "f.json")
    assert code == 0
    assert "STS7" in out
    found = json.loads((tmp_path / "f.json").read_text())
    assert set(found["encoders"][1]["sts"]) == {*STS_TASKS, "STS7"}
    assert found["encoders"][1]["sts_difference"]["low"] is not None


def test_a_part_of_a_folder(run, tiny_base, pairs, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    lines = pairs.read_text().splitlines()
    (folder / "train.jsonl").write_text("\n".join(lines[:9]))
    (folder / "test.jsonl").write_text("\n".join(lines[9:]))
    assert "6 units" in run("evaluate", "--base", tiny_base, "--data", folder)[1]
    assert "9 units" in run("evaluate", "--base", tiny_base, "--data", folder, "--part", "train")[1]


def test_rows_it_was_trained_on_are_pointed_out(run, publish_adapter, a_manifest, tiny_base, pairs):
    folder, _ = publish_adapter("legal")
    found = json.loads((folder / "scions.json").read_text())
    found["data"]["source"] = pairs.name
    (folder / "scions.json").write_text(json.dumps(found))
    assert "was trained on a file called pairs.jsonl" in run("evaluate", "legal", "--data", pairs)[2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["legal"], 2, "nothing to score on"),
        (["--no-base", "--data", "x"], 2, "nothing to score: name"),
        (["legal", "--data", "nowhere.jsonl"], 1, "no such file"),
        (["--data", "docstrings", "--part", "dve"], 2, "train, dev and test"),
        (["--data", __file__, "--part", "dev"], 2, "is a file and has no parts"),
        (["--sts", "nowhere"], 1, "nowhere: no such folder; STS7 needs one with sts12.jsonl"),
        (["--sts", ".", "--few-shot", "x"], 2, "--few-shot serves labelled data only, without --data"),
        (["--sts", ".", "--output-json", "."], 2, "is a folder; name a file"),
    ],
)
def test_what_is_refused(run, arguments, code, message):
    got, out, err = run("evaluate", *arguments)
    assert (got, out) == (code, "")
    assert message in err


def test_an_unknown_adapter(run, tiny_base, publish_adapter, pairs):
    publish_adapter("legal")
    code, _, err = run("evaluate", "lgeal", "--base", tiny_base, "--data", pairs)
    assert code == 1
    assert "Did you mean 'legal'" in err


def test_a_folder_without_the_part(run, tiny_base, pairs, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "train.jsonl").write_text(pairs.read_text())
    code, _, err = run("evaluate", "--base", tiny_base, "--data", tmp_path / "folder")
    assert code == 2
    assert "no part 'test'; the folder has: train" in err


def test_few_shot_beside_pairs_is_not_ignored(run, tiny_base, pairs):
    code, _, err = run("evaluate", "--base", tiny_base, "--data", pairs, "--few-shot", pairs)
    assert code == 2
    assert "labelled data only, and" in err
    assert "is pairs" in err


def test_a_broken_sts_file_is_named_before_a_model_is_loaded(run, tmp_path, monkeypatch):
    import scions.encoder.loading as loading

    monkeypatch.setattr(loading, "load_encoder", lambda *_, **__: pytest.fail("loaded"))
    row = json.dumps({"sentence1": "a", "sentence2": "b", "score": 1}) + "\n" + '{"sentence1": "caf\xe9"}\n'
    for task in STS_TASKS:
        (tmp_path / f"{task}.jsonl").write_bytes(row.encode("latin-1"))
    code, out, err = run("evaluate", "--sts", tmp_path)
    assert (code, out) == (1, "")
    assert "sts12.jsonl:2: not UTF-8 (byte 0xe9" in err
