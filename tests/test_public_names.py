"""The package's public names: there before first use, typed, and the old ones for one release."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import scions

OLD = [
    "encoder.AdapterWeights",
    "encoder.EmbedReport",
    "encoder.Space",
    "encoder.embed_file",
    "encoder.graft_weights",
    "evaluation.LinearMap",
    "evaluation.Remembering",
    "evaluation.fit_linear_map",
    "serving.Encoder",
    "serving.Reader",
    "serving.Stock",
    "store.Initialisation",
    "store.publish",
    "training.Fitted",
    "training.Result",
    "training.Verdict",
]


def test_names_are_shown_before_first_use():
    script = "import scions, sys; assert set(scions.__all__) <= set(dir(scions)); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert set(scions.__all__) == {
        *("BottleneckConfig", "DomainEncoder", "load_encoder", "train", "evaluate"),
        *("compare", "mix", "select", "prune", "ScionsError", "__version__"),
    }


@pytest.mark.parametrize("name", scions.__all__)
def test_every_name_is_there(name):
    assert getattr(scions, name) is not None


@pytest.mark.parametrize("path", OLD)
def test_an_old_name_warns_and_gives_the_new_one(path):
    module, name = path.split(".")
    with pytest.warns(DeprecationWarning, match=rf"scions\.{module}\.{name} is deprecated; use scions\.") as warned:
        got = getattr(importlib.import_module(f"scions.{module}"), name)
    place, _, new = str(warned[0].message).rpartition(" ")[2].rpartition(".")
    assert got is getattr(importlib.import_module(place), new)
    assert warned[0].filename == __file__


def test_an_unknown_name_is_an_attribute_error():
    for module in ("scions", "scions.encoder", "scions.training"):
        with pytest.raises(AttributeError, match="nonsense"):
            _ = importlib.import_module(module).nonsense


@pytest.mark.slow
def test_a_type_checker_sees_their_types(tmp_path):
    api = pytest.importorskip("mypy.api")
    names = sorted(set(scions.__all__) - {"__version__"})
    script = tmp_path / "script.py"
    script.write_text("import scions\n" + "".join(f"reveal_type(scions.{name})\n" for name in names))
    out, err, _ = api.run([str(script), "--follow-imports=silent", "--cache-dir", str(tmp_path / "cache")])
    lines = [line for line in out.splitlines() if "Revealed type is" in line]
    assert len(lines) == len(names), out + err
    assert all('is "def ' in line for line in lines), out
