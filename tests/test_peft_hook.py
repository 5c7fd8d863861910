"""The import hook on small modules, and that PEFT knows the bottleneck: fails loudly when PEFT moves."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path

import pytest

from scions.adapters.peft_type import BOTTLENECK, PREFIX
from scions.peft_hook import import_after

CHECK = """
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
import scions
assert PEFT_TYPE_TO_CONFIG_MAPPING["BOTTLENECK"] is scions.BottleneckConfig
assert PEFT_TYPE_TO_TUNER_MAPPING["BOTTLENECK"].__name__ == "BottleneckModel"
assert PEFT_TYPE_TO_PREFIX_MAPPING["BOTTLENECK"] == "bottleneck_"
assert not any(type(finder).__module__.startswith("scions") for finder in sys.meta_path)
import peft
assert peft.__spec__.loader is peft.__loader__
assert not type(peft.__loader__).__module__.startswith("scions")
"""
HEAVY = {
    "torch",
    "transformers",
    "peft",
    "sentence_transformers",
    "numpy",
    "datasets",
    "pandas",
    "sklearn",
    "matplotlib",
}
TRIGGER, FOLLOWER = "hook_trigger", "hook_follower"


def _run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", "import sys\n" + code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_mappings_that_are_filled_are_those_that_peft_reads():
    import peft.mapping as mapping
    from peft import PeftConfig, PeftModel, PeftType, mapping_func
    from peft import peft_model as reader

    from scions.adapters.config import BottleneckConfig
    from scions.adapters.tuner import BottleneckModel

    assert mapping.PEFT_TYPE_TO_CONFIG_MAPPING[BOTTLENECK] is BottleneckConfig
    assert mapping.PEFT_TYPE_TO_TUNER_MAPPING[BOTTLENECK] is BottleneckModel
    assert mapping.PEFT_TYPE_TO_PREFIX_MAPPING[BOTTLENECK] == PREFIX
    assert reader.PEFT_TYPE_TO_TUNER_MAPPING is mapping.PEFT_TYPE_TO_TUNER_MAPPING
    assert reader.PEFT_TYPE_TO_PREFIX_MAPPING is mapping.PEFT_TYPE_TO_PREFIX_MAPPING
    assert mapping_func.PEFT_TYPE_TO_PREFIX_MAPPING is mapping.PEFT_TYPE_TO_PREFIX_MAPPING
    assert issubclass(BottleneckConfig, PeftConfig)
    assert PeftModel is not None
    # A method of PEFT's own of this name, or with this prefix, would be shadowed.
    assert "BOTTLENECK" not in PeftType.__members__
    others = [prefix for kind, prefix in mapping.PEFT_TYPE_TO_PREFIX_MAPPING.items() if kind != BOTTLENECK]
    assert not [other for other in others if other.startswith(PREFIX) or PREFIX.startswith(other)]


def test_the_type_is_an_enum_that_is_a_string_named_like_its_value():
    assert isinstance(BOTTLENECK, Enum)
    assert isinstance(BOTTLENECK, str)
    assert BOTTLENECK.name == BOTTLENECK.value == "BOTTLENECK"
    assert {BOTTLENECK: 1}["BOTTLENECK"] == 1


def test_the_config_survives_pefts_json(tmp_path):
    from peft import PeftConfig

    from scions import BottleneckConfig

    config = BottleneckConfig(rank=5, placement="pfeiffer", activation="relu", train_norms=False, layers=1, init_seed=3)
    config.save_pretrained(str(tmp_path))
    again = PeftConfig.from_pretrained(str(tmp_path))
    assert isinstance(again, BottleneckConfig)
    assert again.to_dict() == config.to_dict()


def test_every_public_name_is_there():
    import scions

    assert all(getattr(scions, name) is not None for name in scions.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = scions.nonsense


def test_importing_scions_is_light_and_peft_knows_the_tuner_when_it_comes():
    _run(f"import scions\nheavy = {HEAVY} & set(sys.modules)\nassert not heavy, heavy\nimport peft{CHECK}")


def test_peft_knows_the_tuner_when_it_was_there_before():
    _run(f"import peft\nimport scions{CHECK}")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with a trigger, and a follower that needs the whole of it and counts its imports."""
    (tmp_path / f"{TRIGGER}.py").write_text("imports = []\ndone = True\n")
    (tmp_path / f"{FOLLOWER}.py").write_text(f"import {TRIGGER}\nassert {TRIGGER}.done\n{TRIGGER}.imports.append(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield tmp_path
    for name in (TRIGGER, FOLLOWER):
        sys.modules.pop(name, None)


def _check_hooked() -> None:
    """The follower was imported once, and nothing of the hook is left."""
    trigger = import_module(TRIGGER)
    assert trigger.imports == [1]
    assert FOLLOWER in sys.modules
    assert not any(type(finder).__module__.startswith("scions") for finder in sys.meta_path)
    assert trigger.__spec__.loader is trigger.__loader__
    assert not type(trigger.__loader__).__module__.startswith("scions")


def test_the_hook_is_set_before(modules):
    import_after(TRIGGER, FOLLOWER)
    import_after(TRIGGER, FOLLOWER)
    assert FOLLOWER not in sys.modules
    _check_hooked()


def test_the_hook_is_set_after(modules):
    import_module(TRIGGER)
    assert FOLLOWER not in sys.modules
    import_after(TRIGGER, FOLLOWER)
    _check_hooked()


def test_asking_for_the_trigger_does_not_use_the_hook_up(modules):
    import_after(TRIGGER, FOLLOWER)
    assert importlib.util.find_spec(TRIGGER) is not None
    assert FOLLOWER not in sys.modules
    _check_hooked()


def test_the_follower_itself_imports_the_trigger(modules):
    import_after(TRIGGER, FOLLOWER)
    import_module(FOLLOWER)
    _check_hooked()


def test_the_trigger_comes_from_a_finder_of_its_own(modules):
    # As for packages installed as editable.
    place = modules / f"{TRIGGER}.py"

    class Own:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return importlib.util.spec_from_file_location(name, place) if name == TRIGGER else None

    class Blind:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return None if name == TRIGGER else PathFinder.find_spec(name, path, target)

    sys.meta_path[sys.meta_path.index(PathFinder)] = Blind  # type: ignore[call-overload]
    sys.meta_path.append(Own)  # type: ignore[arg-type]
    import_after(TRIGGER, FOLLOWER)
    _check_hooked()


def test_without_the_trigger_importing_it_fails_as_ever(modules):
    class Missing:
        @staticmethod
        def find_spec(name, path=None, target=None):
            if name == TRIGGER:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    import_after(TRIGGER, FOLLOWER)
    sys.meta_path.insert(1, Missing)  # type: ignore[arg-type]
    with pytest.raises(ModuleNotFoundError) as raised:
        import_module(TRIGGER)
    assert raised.value.name == TRIGGER
    sys.meta_path.remove(Missing)  # type: ignore[arg-type]
    (modules / f"{TRIGGER}.py").unlink()
    importlib.invalidate_caches()
    with pytest.raises(ModuleNotFoundError) as raised:
        import_module(TRIGGER)
    assert raised.value.name == TRIGGER
    assert FOLLOWER not in sys.modules
