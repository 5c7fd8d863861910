"""Sparse adapter files: what they stand for, and that a broken or crafted one is refused."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from scions.adapters.initial import initial_weights
from scions.errors import AdapterError
from scions.store.names import SPARSE_WEIGHTS_FILE
from scions.store.sparse import write_sparse
from scions.store.tensor_check import check_tensors
from scions.store.weights import adapter_fingerprint, check_weights, find_weights_file, read_weights

SITE = "base_model.model.encoder.layer.0.output.dense"
DOWN, UP = f"{SITE}.bottleneck_down.weight", f"{SITE}.bottleneck_up.weight"
BIAS = f"{SITE}.bottleneck_down.bias"


@pytest.fixture
def tensors():
    start = initial_weights({DOWN: (3, 7), UP: (7, 3)}, 0)
    start[DOWN][1, 2:5] += 1
    start[UP][0, 0] = 0  # a zero of its own is a value like any other
    return start | {BIAS: torch.arange(3.0)}


@pytest.fixture
def folder(tmp_path, tensors):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "BOTTLENECK", "init_seed": 0}))
    write_sparse(tmp_path, tensors, 0)
    return tmp_path


def changed(folder, **parts):
    """Write the file anew with some parts exchanged (None: left out)."""
    held = load_file(folder / SPARSE_WEIGHTS_FILE)
    for key, value in parts.items():
        name = {"mask": f"{DOWN}.mask", "values": f"{DOWN}.values", "shape": f"{DOWN}.shape", "start": "start.sum"}.get(
            key, key
        )
        held.pop(name, None)
        if value is not None:
            held[name] = value
    save_file(held, folder / SPARSE_WEIGHTS_FILE)


def test_it_stands_for_the_dense_tensors(folder, tensors):
    found = read_weights(folder)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert load_file(folder / SPARSE_WEIGHTS_FILE)[f"{DOWN}.values"].tolist() == tensors[DOWN][1, 2:5].tolist()


def test_its_fingerprint_is_that_of_the_tensors(folder, tensors, tmp_path):
    dense = tmp_path / "dense"
    dense.mkdir()
    save_file(tensors, dense / "adapter_model.safetensors")
    assert adapter_fingerprint(folder) == adapter_fingerprint(dense)


@pytest.mark.parametrize("other", [lambda drawn: 1.001 * drawn, lambda drawn: drawn.flip(1)])
def test_another_pytorch_that_draws_otherwise_gives_neither_tensors_nor_a_fingerprint(folder, monkeypatch, other):
    def drawn(shapes, seed):
        return {name: other(tensor).contiguous() for name, tensor in initial_weights(shapes, seed).items()}

    monkeypatch.setattr("scions.adapters.initial.initial_weights", drawn)
    for read in (read_weights, adapter_fingerprint):
        with pytest.raises(AdapterError, match="this PyTorch draws differently"):
            read(folder)


def test_a_dense_file_comes_first(folder, tensors):
    save_file(tensors, folder / "adapter_model.safetensors")
    assert find_weights_file(folder).name == "adapter_model.safetensors"


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"mask": None}, "lacks .*mask"),
        ({"values": None}, "lacks .*values"),
        ({"shape": None}, "lacks .*shape"),
        ({"start": None}, "is no sparse adapter"),
        ({"mask": torch.zeros(3)}, "is F32 of shape .*expected U8"),
        ({"mask": torch.zeros(4, dtype=torch.uint8)}, "takes 3 bytes of mask, not 4"),
        ({"mask": torch.full((3,), 255, dtype=torch.uint8)}, "goes on beyond its 21 values"),
        ({"mask": torch.tensor([255, 0, 0], dtype=torch.uint8)}, "selects 8 values, 3 are stored"),
        ({"values": torch.ones(3, 1)}, "expected F32 of 1 dimension"),
        ({"values": torch.ones(4)}, "selects 3 values, 4 are stored"),
        ({"values": torch.tensor([1.0, float("nan"), 1.0])}, "not finite"),
        ({"shape": torch.tensor([10**6, 10**6])}, "takes 125000000000 bytes of mask, not 3"),
        ({"shape": torch.tensor([-3, -7])}, "is no matrix's shape"),
        ({"shape": torch.tensor([21])}, "is no matrix's shape"),
        ({"shape": torch.tensor([7, 3])}, "are not those it was written with"),
        ({"start": torch.tensor([1.0], dtype=torch.float64)}, "are not those it was written with"),
        ({DOWN: torch.zeros(3, 7)}, "is there twice"),
        ({"mask": None, "values": None, "shape": None, DOWN: torch.zeros(5)}, "is no bottleneck's matrix"),
        ({"mask": None, "values": None, "shape": None, DOWN: torch.zeros(3, 0)}, "is no bottleneck's matrix"),
        ({"odd": torch.zeros(3, dtype=torch.int64)}, "tensor 'odd' is I64"),
        ({f"{UP}.mask": None, f"{UP}.values": None, f"{UP}.shape": None}, "is no bottleneck's matrix"),
    ],
)
def test_parts_that_contradict_each_other_are_refused(folder, parts, said):
    changed(folder, **parts)
    with pytest.raises(AdapterError, match=said):
        read_weights(folder)


def test_a_file_cut_short_is_refused(folder):
    path = folder / SPARSE_WEIGHTS_FILE
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(AdapterError, match="cut short"):
        read_weights(folder)
    with pytest.raises(AdapterError, match="cut short"):
        check_weights(path)


@pytest.mark.parametrize("config", ["{", "[]", '{"init_seed": "0"}', '{"init_seed": true}', '{"init_seed": 1}', "{}"])
def test_the_seed_must_be_there_and_right(folder, config):
    (folder / "adapter_config.json").write_text(config)
    with pytest.raises(AdapterError, match=r"init_seed|are not those it was written with"):
        read_weights(folder)


def test_expected_shapes_are_those_of_the_dense_tensors(folder):
    check_tensors("legal", read_weights(folder), {DOWN: (3, 7), UP: (7, 3), BIAS: (3,)})
    with pytest.raises(AdapterError, match="of another shape"):
        check_tensors("legal", read_weights(folder), {DOWN: (3, 8), UP: (7, 3), BIAS: (3,)})


def test_what_is_no_bottleneck_is_not_written_so(tmp_path):
    with pytest.raises(AdapterError, match="none of its 1 tensors is a bottleneck's"):
        write_sparse(tmp_path, {"lora_A.weight": torch.zeros(2, 2)}, 0)
