"""Bottleneck adapters as a PEFT method: config, layers, placement and tuner.

Importing this package registers the method. ``peft.register_peft_method`` accepts only names of PEFT's own enum, so the
tuner is written into the mappings which that function fills. ``tests/test_peft_hook.py`` fails when PEFT moves them.
"""

from __future__ import annotations

from peft import mapping

from scions.adapters.config import BottleneckConfig
from scions.adapters.peft_type import BOTTLENECK, PREFIX
from scions.adapters.tuner import BottleneckModel

__all__ = ["BOTTLENECK", "PREFIX", "BottleneckConfig", "BottleneckModel"]

mapping.PEFT_TYPE_TO_CONFIG_MAPPING[BOTTLENECK] = BottleneckConfig  # type: ignore[index]
mapping.PEFT_TYPE_TO_TUNER_MAPPING[BOTTLENECK] = BottleneckModel  # type: ignore[index]
mapping.PEFT_TYPE_TO_PREFIX_MAPPING[BOTTLENECK] = PREFIX  # type: ignore[index]
