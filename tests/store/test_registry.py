from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from scions.errors import AdapterError
from scions.store import Manifest, default_root, find_adapter, list_adapters, read_adapter

MakeAdapter = Callable[..., Path]


def test_good_adapters_are_listed_by_name(tmp_path: Path, make_adapter: MakeAdapter) -> None:
    make_adapter("medical")
    make_adapter("legal")
    (tmp_path / "adapters" / "notes.txt").write_text("x")
    found = list_adapters(tmp_path / "adapters")
    assert [entry.name for entry in found] == ["legal", "medical"]
    assert all(entry.problem is None for entry in found)
    assert found[0].manifest is not None
    assert found[0].manifest.name == "legal"


def test_publications_under_way_are_not_listed(tmp_path: Path, make_adapter: MakeAdapter) -> None:
    make_adapter(".legal.partial-1-0123456789abcdef")
    make_adapter(".legal.old-1-0123456789abcdef")
    assert list_adapters(tmp_path / "adapters") == []


def test_broken_folders_are_listed_with_their_problem(tmp_path: Path, make_adapter: MakeAdapter) -> None:
    root = tmp_path / "adapters"
    (make_adapter("a-foreign") / "scions.json").unlink()
    (make_adapter("b-noconfig") / "adapter_config.json").unlink()
    (make_adapter("c-badjson") / "scions.json").write_text("{")
    weights = make_adapter("d-cut") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    pickled = make_adapter("e-pickle")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    newer = make_adapter("f-newer") / "scions.json"
    newer.write_text(json.dumps(json.loads(newer.read_text()) | {"format_version": 3}))
    make_adapter("attention")
    (root / "g-empty").mkdir()
    (make_adapter("h-config") / "adapter_config.json").write_text("{}")
    problems = {entry.name: entry.problem or "" for entry in list_adapters(root)}
    for name, problem in {
        "a-foreign": "no scions.json",
        "b-noconfig": "no adapter_config.json",
        "c-badjson": "scions.json: is not valid JSON",
        "d-cut": "adapter_model.safetensors: is cut short",
        "e-pickle": "its weights are a pickle (adapter_model.bin)",
        "f-newer": "scions.json: format_version: 3 is newer",
        "attention": "adapter name 'attention': it is part of",
        "g-empty": "no adapter_config.json",
        "h-config": "adapter_config.json: peft_type: expected a string",
    }.items():
        assert problems.pop(name).startswith(problem), name
    assert problems == {}


def test_no_root_is_no_adapters_and_a_file_is_an_error(tmp_path: Path) -> None:
    assert list_adapters(tmp_path / "absent") == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(AdapterError, match="cannot be read as a folder of adapters"):
        list_adapters(tmp_path / "file")


def test_default_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, make_adapter: MakeAdapter) -> None:
    monkeypatch.delenv("SCIONS_ADAPTERS", raising=False)
    assert default_root() == Path("adapters")
    monkeypatch.setenv("SCIONS_ADAPTERS", str(tmp_path / "adapters"))
    make_adapter("legal")
    assert [entry.name for entry in list_adapters()] == ["legal"]
    assert find_adapter("legal") == tmp_path / "adapters" / "legal"


def test_find_by_name_and_by_path(tmp_path: Path, make_adapter: MakeAdapter, monkeypatch: pytest.MonkeyPatch) -> None:
    legal = make_adapter("legal")
    elsewhere = make_adapter("legal", root=tmp_path)
    monkeypatch.chdir(tmp_path)
    assert find_adapter("legal", tmp_path / "adapters") == legal
    assert find_adapter("./legal", tmp_path / "adapters") == Path("legal")
    assert find_adapter(elsewhere, tmp_path / "adapters") == elsewhere
    assert find_adapter("legal", tmp_path / "absent") == Path("legal")


def test_an_unknown_name_is_answered_with_close_ones_and_all(tmp_path: Path, make_adapter: MakeAdapter) -> None:
    make_adapter("medical")
    make_adapter("legal")
    root = tmp_path / "adapters"
    with pytest.raises(AdapterError, match=r"no adapter 'leagl'. Did you mean 'legal'?.* holds legal, medical"):
        find_adapter("leagl", root)
    with pytest.raises(AdapterError, match=r"no adapter 'x'. .*absent holds no adapters"):
        find_adapter("x", tmp_path / "absent")
    with pytest.raises(AdapterError, match="name is empty"):
        find_adapter("", root)


def test_read_gives_all_three_parts(make_adapter: MakeAdapter, tensors: dict[str, torch.Tensor]) -> None:
    config, manifest, weights = read_adapter(make_adapter(), "a" * 64)
    assert config["peft_type"] == "BOTTLENECK"
    assert isinstance(manifest, Manifest)
    assert manifest.rank == 2
    assert torch.equal(weights["layer.0.up.weight"], tensors["layer.0.up.weight"])


def test_another_base_is_refused_and_both_are_named(make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    message = "'legal' was trained on org/tiny (weights aaaaaaaaaaaa) and cannot be loaded onto "
    with pytest.raises(AdapterError, match=re.escape(message + "org/other (weights cccccccccccc)")):
        read_adapter(folder, "c" * 64, base_name="org/other")
    with pytest.raises(AdapterError, match=re.escape(message + "the base with weights cccccccccccc")):
        read_adapter(folder, "c" * 64)


def test_another_base_is_noticed_before_the_weights_are_read(make_adapter: MakeAdapter) -> None:
    folder = make_adapter()
    save_file({"x": torch.tensor([float("nan")])}, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="cannot be loaded onto"):
        read_adapter(folder, "c" * 64)
    with pytest.raises(AdapterError, match="not finite"):
        read_adapter(folder, "a" * 64)


def test_a_folder_of_peft_alone_and_no_folder(make_adapter: MakeAdapter, tmp_path: Path) -> None:
    folder = make_adapter()
    (folder / "scions.json").unlink()
    with pytest.raises(AdapterError, match=r"no scions\.json: it is a PEFT adapter"):
        read_adapter(folder)
    with pytest.raises(AdapterError, match="no such folder"):
        read_adapter(tmp_path / "absent")


def test_a_model_trained_whole_is_whole_without_an_adapters_files(tmp_path: Path, make_adapter: MakeAdapter) -> None:
    folder = make_adapter("whole", method="full", rank=None)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (folder / name).unlink()
    [entry] = list_adapters(tmp_path / "adapters")
    assert entry.problem == "no adapter_config.json"
    (folder / "modules.json").write_text(json.dumps([{"idx": 0, "path": ""}]))
    [entry] = list_adapters(tmp_path / "adapters")
    assert "safetensors" in (entry.problem or "")
    save_file({"weight": torch.zeros(2)}, folder / "model.safetensors")
    [entry] = list_adapters(tmp_path / "adapters")
    assert entry.problem is None
    assert entry.manifest is not None
    assert entry.manifest.method == "full"
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-1])
    [entry] = list_adapters(tmp_path / "adapters")
    assert (entry.problem or "").startswith("model.safetensors: is cut short")
