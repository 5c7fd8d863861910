from __future__ import annotations

import json
import re
import struct
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save, save_file

from scions.errors import AdapterError
from scions.store import adapter_fingerprint, read_weights
from scions.store.tensor_check import check_tensors, read_header


@pytest.fixture
def folder(tmp_path: Path, tensors: dict[str, torch.Tensor]) -> Path:
    save_file(tensors, tmp_path / "adapter_model.safetensors", metadata={"format": "pt"})
    return tmp_path


def rewrite(folder: Path, header: object, data: bytes) -> None:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    (folder / "adapter_model.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + data)


def entry(start: int = 0, stop: int = 4, dtype: str = "F32", shape: object = (1,)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


def test_good_weights_come_back_equal(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    found = read_weights(folder)
    check_tensors("legal", found, expected)
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_three_precisions_are_read(tmp_path: Path, dtype: torch.dtype) -> None:
    value = {
        "a": torch.full((3,), torch.finfo(dtype).max, dtype=dtype),
        "scalar": torch.tensor(2.0, dtype=dtype),
    }
    save_file(value, tmp_path / "adapter_model.safetensors")
    found = read_weights(tmp_path)
    check_tensors("legal", found, {"a": (3,), "scalar": ()})
    assert found["a"].dtype == dtype
    assert torch.equal(found["a"], value["a"])


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_other_dtypes_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    save_file({"a": torch.zeros(2, dtype=dtype)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"tensor 'a' is [FI]64, expected F32, F16, BF16"):
        read_weights(tmp_path)


def test_every_truncation_is_noticed(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(AdapterError, match="is cut short"):
            read_weights(folder)
    path.write_bytes(whole + b"\0")
    with pytest.raises(AdapterError, match="is cut short or damaged"):
        read_weights(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_value_that_is_not_finite_names_its_tensor(
    folder: Path, tensors: dict[str, torch.Tensor], value: float, dtype: torch.dtype
) -> None:
    broken = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    broken["layer.0.up.weight"][3, 1] = value
    save_file(broken, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match=r"'layer\.0\.up\.weight' holds 1 value\(s\) of 8"):
        read_weights(folder)


def test_names_and_shapes_that_do_not_fit(folder: Path) -> None:
    expected = {"layer.0.down.weight": (8, 4)} | {f"layer.{n}.up.weight": (4, 2) for n in range(1, 8)}
    with pytest.raises(AdapterError) as caught:
        check_tensors("legal", read_weights(folder), expected)
    message = str(caught.value)
    assert "7 missing: layer.1.up.weight, layer.2.up.weight" in message
    assert "layer.5.up.weight" not in message
    assert "1 that have no place in this base: layer.0.up.weight" in message
    assert "1 of another shape: layer.0.down.weight is [2, 4], expected [8, 4]" in message


DAMAGED = "is cut short or damaged: "
# Two tensors of one name: the only damage that safe_open lets through.
TWICE = f'{{"a": {json.dumps(entry())}, "a": {json.dumps(entry())}}}'.encode()


@pytest.mark.parametrize(
    ("header", "data", "message"),
    [
        (b"{", b"", DAMAGED),
        (b'{"a": 1, "a": 1}', b"", DAMAGED),
        (TWICE, b"1234", "a name occurs twice"),
        (b"[" * 50_000, b"", DAMAGED),
        ([1], b"", DAMAGED),
        ({}, b"", "holds no tensors"),
        ({"a": 3}, b"", DAMAGED),
        ({"a": entry(dtype="F3")}, b"1234", DAMAGED),
        ({"a": entry(dtype=["F32"])}, b"1234", DAMAGED),
        ({"a": entry(shape=(-1, -1))}, b"1234", DAMAGED),
        ({"a": entry(shape="1")}, b"1234", DAMAGED),
        ({"a": entry(start=-4, stop=0)}, b"1234", DAMAGED),
        ({"a": entry(shape=(2,))}, b"1234", DAMAGED),
        ({"a": entry(shape=(2**40, 2**40))}, b"1234", DAMAGED),
        ({"a": entry(4, 8)}, b"12345678", DAMAGED),
        ({"a": entry(), "b": entry()}, b"1234", DAMAGED),
    ],
)
def test_a_header_that_contradicts_itself(tmp_path: Path, header: object, data: bytes, message: str) -> None:
    rewrite(tmp_path, header, data)
    with pytest.raises(AdapterError, match=re.escape(message)):
        read_weights(tmp_path)


def test_safe_open_takes_the_last_of_two_tensors_of_one_name(tmp_path: Path) -> None:
    rewrite(tmp_path, TWICE, b"1234")
    with safe_open(tmp_path / "adapter_model.safetensors", framework="numpy") as file:
        assert list(file.keys()) == ["a"]


def test_a_huge_header_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "adapter_model.safetensors").write_bytes(struct.pack("<Q", 2**40) + b"{}")
    with pytest.raises(AdapterError, match="no safetensors file: its header would have"):
        read_weights(tmp_path)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_damage_is_an_adapter_error_or_harmless(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    whole = bytearray(save({"a": torch.ones(2, 2), "b": torch.ones(3)}))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "adapter_model.safetensors").write_bytes(whole)
    try:
        found = read_weights(folder)
    except AdapterError:
        return
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found.values())


@pytest.mark.parametrize("name", ["adapter_model.bin", "adapter_model.pt", "adapter.pth"])
def test_a_pickle_is_refused_by_name_and_never_opened(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(AdapterError, match=rf"pickle \({name}\)"):
        read_weights(tmp_path)


def test_a_pickle_beside_good_weights_does_not_matter(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"x")
    assert len(read_weights(folder)) == 2


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r"no adapter_model\.safetensors"):
        read_weights(tmp_path)
    with pytest.raises(AdapterError, match="no such folder"):
        read_weights(tmp_path / "absent")


def test_the_fingerprint_is_of_the_tensors_not_of_the_file(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    before = adapter_fingerprint(folder)
    path = folder / "adapter_model.safetensors"
    save_file(dict(reversed(tensors.items())), path, metadata={"other": "metadata, and longer"})
    assert adapter_fingerprint(folder) == before
    renamed = {name.replace("down", "dawn"): tensor for name, tensor in tensors.items()}
    save_file(renamed, path)
    assert adapter_fingerprint(folder) != before
    tensors["layer.0.up.weight"][0, 0] += 1e-6
    save_file(tensors, path)
    assert adapter_fingerprint(folder) != before


def test_an_adapter_of_usual_size_is_read_quickly(tmp_path: Path) -> None:
    weights = {f"layer.{n}.weight": torch.randn(32, 384) for n in range(66)}
    save_file(weights, tmp_path / "adapter_model.safetensors")
    best = min(_timed(tmp_path) for _ in range(10))
    assert best < 0.05, f"{best * 1000:.1f} ms"  # about 3 ms alone; the bound allows for a busy machine


def _timed(folder: Path) -> float:
    start = time.perf_counter()
    read_weights(folder)
    return time.perf_counter() - start


def test_read_header_gives_places_in_the_file(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    raw = (folder / "adapter_model.safetensors").read_bytes()
    for found in read_header(folder / "adapter_model.safetensors"):
        assert raw[found.start : found.stop] == tensors[found.name].numpy().tobytes()
