"""Encoders by name on the same rows, from Python."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest

import scions
from scions.data import read
from scions.encoder.loading import load_encoder
from scions.errors import UsageError
from scions.evaluation import evaluate, interval, paired_difference


@pytest.fixture
def pairs(tmp_path):
    words = ["court", "contract", "party", "claim", "judge", "law", "patient", "dose", "drug", "fever"]
    path = tmp_path / "pairs.jsonl"
    rows = [{"anchor": f"the {a}", "positive": f"a {a} of the {b}"} for a, b in pairwise(words)]
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_scores_intervals_and_differences_are_those_of_each_encoder(publish_adapter, tiny_base, pairs):
    folder, _ = publish_adapter("legal")
    stages = []
    result = scions.evaluate(["legal", "base"], pairs, adapters=folder.parent, on_stage=stages.append)
    assert [encoder.name for encoder in result] == ["legal", "base"]
    assert stages == ["reading", "scoring legal", f"scoring base: {tiny_base}"]
    base, legal = (evaluate(load_encoder(name, base=str(tiny_base)), read(pairs)) for name in ("base", "legal"))
    assert result.reference is result["base"]
    assert result["base"].difference is None
    assert result["legal"].score == interval(legal)
    assert result["legal"].difference == paired_difference(base, legal)
    assert result["legal"].rows.interval("mrr@10") == interval(legal, "mrr@10")
    entry = result.to_dict()["encoders"][0]
    assert entry["difference"]["value"] == result["legal"].difference.value
    with pytest.raises(KeyError):
        result["medical"]


def test_without_the_base_differences_are_to_the_first(publish_adapter, tiny_base, pairs):
    publish_adapter("legal")
    result = scions.evaluate([tiny_base, "legal"], read(pairs))
    assert result.reference is result[str(tiny_base)]
    assert not result.reference.is_base
    assert result["legal"].difference == scions.evaluate(["base", "legal"], pairs)["legal"].difference


def test_one_name_may_stand_alone(publish_adapter, pairs):
    publish_adapter("legal")
    assert scions.evaluate("legal", pairs)["legal"].score == scions.evaluate(["legal"], pairs).reference.score


def test_adapters_of_different_bases_have_no_common_base(publish_adapter, tiny_model, pairs):
    publish_adapter("legal")
    publish_adapter("medical", on=tiny_model("electra"))
    with pytest.raises(UsageError, match="side by side without the base"):
        scions.evaluate(["base", "legal", "medical"], pairs)
    assert len(scions.evaluate(["legal", "medical"], pairs).encoders) == 2


@pytest.mark.parametrize(
    ("encoders", "options", "message"),
    [
        (["legal"], {}, r"nothing to score on: give `data=\.\.\.`"),
        ([], {"data": "x.jsonl"}, "nothing to score: name"),
        (["legal"], {"sts": ".", "few_shot": "x"}, "serves labelled data only, without `data=...`"),
        (["legal"], {"data": "docstrings", "part": "dve"}, "`part='dve'`: the built-in corpus has"),
    ],
)
def test_what_is_refused(encoders, options, message):
    with pytest.raises(UsageError, match=message):
        scions.evaluate(encoders, **options)


def test_an_encoder_and_a_table_are_still_scored_with_a_warning(words, pairs):
    table = read(pairs)
    with pytest.warns(DeprecationWarning, match=r"use scions\.evaluation\.evaluate") as seen:
        scored = scions.evaluate(words, table, batch_size=8)
    assert scored.scores == evaluate(words, table).scores
    assert seen[0].filename == __file__
