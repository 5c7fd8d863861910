"""Bottleneck adapters as a PEFT method; importing this package registers it.

``peft.register_peft_method`` accepts only names of PEFT's own enum, so the tuner is written into the mappings that the
function fills. ``tests/test_peft_hook.py`` fails when PEFT moves them.
"""

from __future__ import annotations

from peft import mapping

from scions.adapters.config import BottleneckConfig
from scions.adapters.peft_type import BOTTLENECK, PREFIX
from scions.adapters.tuner import BottleneckModel

__all__ = ["BOTTLENECK", "PREFIX", "BottleneckConfig", "BottleneckModel"]

mapping.PEFT_TYPE_TO_CONFIG_MAPPING[BOTTLENECK] = BottleneckConfig
mapping.PEFT_TYPE_TO_TUNER_MAPPING[BOTTLENECK] = BottleneckModel
mapping.PEFT_TYPE_TO_PREFIX_MAPPING[BOTTLENECK] = PREFIX
