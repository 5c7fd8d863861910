"""The commands that combine adapters: what they print, write and refuse."""

from __future__ import annotations

import json

import pytest

from scions.store import DomainStatistics, Manifest

NAMES = ("legal", "contracts", "medical")


@pytest.fixture
def three(publish_adapter):
    for seed, name in enumerate(NAMES, 1):
        mean = [0.0] * 32
        mean[seed] = 0.3
        publish_adapter(name, seed=seed, domain=DomainStatistics(mean=mean, spherical_variance=0.02, n=10))
    return NAMES


@pytest.fixture
def pairs(tmp_path):
    """Forty pairs, enough to be halved."""
    law, medicine, machines = ["court", "claim", "judge", "law"], ["patient", "dose", "drug"], ["valve", "pump"]
    words = [*law, *medicine, *machines]
    path = tmp_path / "forty.jsonl"
    rows = [
        {"anchor": f"the {one} {number}", "positive": f"a {one} of the {other}"}
        for number, (one, other) in enumerate(zip(words * 5, words[1:] * 5, strict=False))
    ]
    path.write_text("\n".join(map(json.dumps, rows[:40])) + "\n")
    return path


def test_compare(run, three, tmp_path):
    picture = tmp_path / "heat.png"
    code, out, _ = run("compare", *three, "--by", "layer", "-o", picture)
    assert code == 0
    assert "legal, contracts" in out
    assert "of the signs are not unanimous" in out
    assert "by layer" in out
    assert "conflicts with" in out or "can be mixed" in out
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_compare_effects(run, three, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("the court of law\na pump and a valve\nthe patient and a drug\n")
    code, out, _ = run("compare", "legal", "medical", "--effects", "--texts", path)
    assert code == 0
    assert "effects' cosine" in out


def test_mix_says_what_it_expects_and_what_it_measured(run, three, pairs, adapters_aside):
    code, out, err = run("mix", "legal", "medical", "--name", "soup", "--data", pairs)
    assert code == 0
    assert "expected: legal and medical" in err
    assert "difference to the base" in out
    assert "measured: soup against" in out
    assert "legal 0.50, medical 0.50" in out
    assert Manifest.read(adapters_aside / "soup").extra["mixture"]["strategy"] == "uniform"
    code, _, err = run("mix", "legal", "medical", "--name", "soup")
    assert code == 2
    assert "exists already" in err
    code, out, _ = run("mix", "legal", "medical", "--name", "soup", "--force")
    assert code == 0
    assert "nothing was measured" in out


def test_greedy_ends_with_three_where_none_helps(run, three, pairs, monkeypatch):
    scores = iter([50.0, 40.0])
    monkeypatch.setattr("scions.evaluation.tasks.dev_score", lambda *_: next(scores))
    code, out, _ = run("mix", *three, "--name", "soup", "--strategy", "greedy", "--data", pairs, "--target", "legal")
    assert code == 3
    assert "No mixture helps legal" in out


def test_select_proposes_a_soup_or_the_base(run, three, tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(["the patient and the dose", "a doctor in the trial", "the court of law"]) + "\n")
    code, out, _ = run("select", "--texts", path)
    assert code == 0
    assert all(name in out for name in three)
    assert "proposed: " in out


def test_prune(run, three, pairs, adapters_aside, tmp_path):
    curve = tmp_path / "curve.png"
    code, out, _ = run("prune", "legal", "--data", pairs, "--curve", curve)
    assert code == 0
    assert "legal-pruned" in out
    assert "ndcg@10 by sparsity" in out
    assert "of the matrices' values are pruned" in out
    assert curve.read_bytes().startswith(b"\x89PNG")
    assert Manifest.read(adapters_aside / "legal-pruned").extra["pruned"]["strategy"] == "magnitude"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compare", "legal"], "at least 2 adapters are needed"),
        (["compare", "legal", "medical", "--by", "head"], "choose layer or site"),
        (["compare", "legal", "medical", "-o", "heat.jpg"], "a heat map is a PNG"),
        (["compare", "legal", "medical", "--texts", "x.txt"], "add --effects"),
        (["compare", "legal", "medical", "--base", "elsewhere"], "--base has no use"),
        (["mix", "legal", "medical", "--name", "x", "--strategy", "weighted", "--weights", "a,b"], "as in 0.7,0.3"),
        (["mix", "legal", "medical", "--name", "x", "--strategy", "best"], "is unknown"),
        (["prune", "legal", "--sparsity", "2"], "between 0 and 1"),
        (["prune", "legal", "--curve", "x.png"], "needs rows"),
        (["prune", "legal", "--curve", "x.jpg"], "a curve is a PNG"),
    ],
)
def test_wrong_usage_is_two(run, three, arguments, said):
    code, _, err = run(*arguments)
    assert code == 2
    assert said in err


def test_flags_by_their_old_names_warn(run, three, adapters_aside, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    adapters_aside.rename(elsewhere)
    arguments = ("mix", "legal", "medical", "--name", "soup", "--strategy", "ties")
    code, _, err = run(*arguments, f"--output={elsewhere}", "--kept", "0.5")
    assert code == 0, err
    assert "Warning: --output is deprecated; use --adapters" in err
    assert "Warning: --kept is deprecated; use --density" in err
    assert Manifest.read(elsewhere / "soup").extra["mixture"]["kept"] == 0.5
