"""The name under which PEFT knows bottleneck adapters, and the prefix of their modules."""

from __future__ import annotations

from enum import Enum


class ScionsPeftType(str, Enum):
    """The one method Scions adds to PEFT's list."""

    BOTTLENECK = "BOTTLENECK"


BOTTLENECK = ScionsPeftType.BOTTLENECK


PREFIX = "bottleneck_"
