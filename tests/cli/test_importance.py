"""`scions importance`."""

from __future__ import annotations

import pytest

from scions.store import load_base


def test_a_value_a_head_and_a_picture(run, pairs, tiny_base, tmp_path):
    config = load_base(tiny_base, device="cpu")[0].auto_model.config
    target = tmp_path / "heads.png"
    code, out, err = run("importance", pairs, "--base", tiny_base, "-o", target)
    assert code == 0, err
    rows = [line.split("│")[1:-1] for line in out.splitlines() if line.startswith("│")]
    assert len(rows) == config.num_hidden_layers
    for number, (layer, *values) in enumerate(rows):
        assert int(layer) == number
        assert len(values) == config.num_attention_heads
        assert all(0 <= float(value) <= 1 for value in values)
    assert target.read_bytes()[:4] == b"\x89PNG"
    assert run("importance", pairs, "--base", tiny_base, "-o", target)[0] == 2
    assert run("importance", pairs, "--base", tiny_base, "-o", target, "--force")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.jsonl"], "no such file"),
        (["none.jsonl", "--seed", "-1"], "--seed"),
        (["none.jsonl", "-o", "heads.txt"], ".png, .svg, .pdf"),
        (["none.jsonl", "-o", "nowhere/heads.png"], "nowhere does not exist"),
    ],
)
def test_what_is_refused(run, tiny_base, arguments, message):
    code, _, err = run("importance", "--base", tiny_base, *arguments)
    assert code != 0
    assert message in err


def test_a_place_that_cannot_be_written_is_an_error_and_no_fault(run, pairs, tiny_base, tmp_path, monkeypatch):
    from scions.errors import ScionsError

    def refused(path, data):
        raise ScionsError(f"{path}: cannot be written")

    monkeypatch.setattr("scions.store.write_file", refused)
    code, _, err = run("importance", pairs, "--base", tiny_base, "-o", tmp_path / "heads.png")
    assert code == 1
    assert "heads.png: cannot be written" in err
    assert "fault" not in err
