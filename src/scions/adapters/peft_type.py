"""The name under which PEFT knows bottleneck adapters, and the prefix of their modules."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    pass


class ScionsPeftType(str, Enum):
    """The one method Scions adds to PEFT's list.

    transformers calls ``peft_type.value.lower()`` and PEFT compares with strings: the type must be an ``Enum`` that is
    a ``str``, and its member's name must equal its value.
    """

    BOTTLENECK = "BOTTLENECK"


BOTTLENECK = ScionsPeftType.BOTTLENECK
# No module path of a base model may contain it: PEFT finds an adapter's tensors by it.
PREFIX = "bottleneck_"


# What PEFT puts before the names of all tensors in an adapter's file.
FILE_PREFIX = "base_model.model."
