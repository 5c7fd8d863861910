"""Bottleneck adapters as a PEFT method: config, layers, placement and tuner."""

# PEFT comes first: importing it registers the modules of this room (see scions.peft_hook), each then complete.
import peft  # noqa: F401
