"""What an earlier version wrote still loads, and gives the same vectors in the same spaces.

``tests/fixtures/written_by_0_1`` holds a tiny base, adapters of every kind (trained, mixed, pruned, LoRA) and files of
vectors, as commit 5e05a7e wrote them; ``expected.npz`` and ``spaces.json`` hold its vectors and space fingerprints.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import scions

FIXTURE = Path(__file__).parent / "fixtures" / "written_by_0_1"
ADAPTERS = sorted(path.name for path in (FIXTURE / "adapters").iterdir())


@pytest.fixture
def before(tmp_path, monkeypatch):
    """A copy of the fixture, as the current folder: its manifests name their base ``./base``."""
    folder = tmp_path / "before"
    shutil.copytree(FIXTURE, folder)
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_gives_the_same_vectors_in_the_same_space(before, name):
    texts = (before / "texts.txt").read_text().splitlines()
    expected = np.load(before / "expected.npz")
    encoder = scions.DomainEncoder("./base", dtype="float32", device="cpu")
    encoder.load_adapter(before / "adapters" / name)
    np.testing.assert_allclose(encoder.encode(texts, adapter=name), expected[name], atol=1e-6)
    np.testing.assert_allclose(encoder.encode(texts, adapter=None), expected["base"], atol=1e-6)
    assert np.abs(expected[name] - expected["base"]).max() > 1e-3
    spaces = json.loads((before / "spaces.json").read_text())
    assert encoder.space(name) == spaces[name]
    assert encoder.space() == spaces["base"]


@pytest.mark.parametrize("kind", ["npy", "parquet", "jsonl"])
def test_a_file_of_vectors_is_read_with_its_space(before, kind):
    from scions.encoder import load_encoder, space_of
    from scions.vectors.reader import read_vectors

    adapter = before / "adapters" / "legal"
    found = read_vectors(before / f"vectors.{kind}")
    np.testing.assert_allclose(found.matrix, np.load(before / "expected.npz")["legal"], atol=1e-6)
    assert found.space == space_of(load_encoder(adapter), adapter).fingerprint


def test_the_manifest_is_written_as_it_was_read(before):
    from scions.store import Manifest

    for name in ADAPTERS:
        text = (before / "adapters" / name / "scions.json").read_text()
        assert json.loads(Manifest.read(before / "adapters" / name).to_json()) == json.loads(text)


def test_the_record_of_vectors_has_the_keys_it_had(before):
    from scions.encoder import load_encoder, space_of
    from scions.vectors import embed_file

    encoder = load_encoder("base", base="./base")
    embed_file(encoder, before / "texts.txt", before / "new.npy", space=space_of(encoder))
    was, now = (json.loads((before / f"{name}.npy.json").read_text()) for name in ("base", "new"))
    assert was.keys() == now.keys()
    assert was["source"].keys() == now["source"].keys()
    assert {**now, "source": None} == {**was, "source": None}
