"""PEFT's name for bottleneck adapters, and the prefix of their modules."""

from __future__ import annotations

from enum import Enum


class ScionsPeftType(str, Enum):
    """The one method that Scions adds to PEFT's list.

    transformers calls ``peft_type.value.lower()`` and PEFT compares with strings: the type must be an ``Enum`` that is
    a ``str``, and its member's name must equal its value.
    """

    BOTTLENECK = "BOTTLENECK"


BOTTLENECK = ScionsPeftType.BOTTLENECK
# PEFT recognizes an adapter's tensors by it, so no module path of a base model may contain it.
PREFIX = "bottleneck_"
# PEFT writes it before the name of every tensor in an adapter's file.
FILE_PREFIX = "base_model.model."
