"""Configuration of a bottleneck adapter, as PEFT stores it in ``adapter_config.json``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from peft.config import PeftConfig
from torch.nn import functional as F

from scions.adapters.peft_type import BOTTLENECK
from scions.errors import UsageError

PLACEMENTS = ("houlsby", "pfeiffer", "parallel")
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gelu": F.gelu,
    "relu": F.relu,
    "silu": F.silu,
    "tanh": torch.tanh,
}


@dataclass
class BottleneckConfig(PeftConfig):  # type: ignore[misc]
    """A bottleneck adapter: ``y + up(act(down(y)))`` after the projections that ``placement`` selects.

    Source: Houlsby et al. 2019 (arXiv 1902.00751), section 2.1; ``pfeiffer`` is Pfeiffer et al. 2021
    (arXiv 2005.00247), ``parallel`` is He et al. 2022 (arXiv 2110.04366).

    Raises:
        UsageError: a field has a value that it does not allow; the message names the field and the choices.
    """

    rank: int = field(default=64, metadata={"help": "Width of the bottleneck (rows of `down`)."})
    placement: str = field(default="houlsby", metadata={"help": "houlsby, pfeiffer or parallel."})
    activation: str = field(default="gelu", metadata={"help": "gelu, relu, silu or tanh."})
    train_norms: bool = field(default=True, metadata={"help": "Train the adapted layers' LayerNorms too."})
    layers: int | None = field(default=None, metadata={"help": "Adapt only the upper `layers` layers."})
    target_modules: str | list[str] | None = field(
        default=None,
        metadata={"help": "For an unknown architecture: output projections by full name, or one regex."},
    )
    init_seed: int = field(
        default=0, metadata={"help": "Adapters of one base mix well only when this is the same for all."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = BOTTLENECK
        if self.placement not in PLACEMENTS:
            raise UsageError(f"placement {self.placement!r} is unknown; choose from {', '.join(PLACEMENTS)}")
        if self.activation not in ACTIVATIONS:
            raise UsageError(f"activation {self.activation!r} is unknown; choose from {', '.join(ACTIVATIONS)}")
        if not isinstance(self.rank, int) or self.rank < 1:
            raise UsageError(f"rank must be a whole number of at least 1, got {self.rank!r}")
        if self.layers is not None and (not isinstance(self.layers, int) or self.layers < 1):
            raise UsageError(f"layers must be a whole number of at least 1 (the upper ones), got {self.layers!r}")
        if self.placement == "parallel" and self.target_modules is not None:
            raise UsageError("placement 'parallel' needs a known architecture; use houlsby with target_modules")
