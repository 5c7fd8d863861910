"""The shim that makes PEFT know the bottleneck: fails loudly when PEFT moves."""

from __future__ import annotations

import subprocess
import sys
from enum import Enum

import pytest

from scions.adapters.peft_type import BOTTLENECK, PREFIX

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


def test_importing_scions_is_light():
    heavy = [
        "torch",
        "transformers",
        "peft",
        "sentence_transformers",
        "numpy",
        "datasets",
        "pandas",
        "sklearn",
        "matplotlib",
    ]
    _run(f"import scions\nfound = {set(heavy)} & set(sys.modules)\nassert not found, found")


def test_every_public_name_is_there():
    import scions

    assert all(getattr(scions, name) is not None for name in scions.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = scions.nonsense


@pytest.mark.parametrize(
    "first",
    [
        "import scions\nimport peft",
        "import peft\nimport scions",
        "import scions, importlib.util\nassert importlib.util.find_spec('peft') is not None\nimport peft",
        "import scions\nfrom scions import BottleneckConfig",
    ],
    ids=["before", "after", "asked", "through-scions"],
)
def test_registered_whichever_is_imported_first(first):
    _run(first + CHECK)


def test_registered_where_peft_comes_from_a_finder_of_its_own():
    # As for packages installed as editable.
    _run(
        """
import importlib.machinery, importlib.util
spec = importlib.util.find_spec("peft")
place, parts = spec.origin, spec.submodule_search_locations
class Own:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "peft":
            return importlib.util.spec_from_file_location(name, place, submodule_search_locations=list(parts))
paths = importlib.machinery.PathFinder
class Blind:
    find_distributions = paths.find_distributions
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None if name == "peft" else paths.find_spec(name, path, target)
sys.meta_path[sys.meta_path.index(paths)] = Blind
sys.meta_path.append(Own)
import scions
import peft"""
        + CHECK
    )


def test_without_peft_importing_it_fails_as_ever():
    _run(
        """
import scions
class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "peft":
            raise ModuleNotFoundError("No module named 'peft'", name="peft")
sys.meta_path.insert(1, Missing)
try:
    import peft
except ModuleNotFoundError as error:
    assert error.name == "peft"
else:
    raise SystemExit("peft was found")
"""
    )
