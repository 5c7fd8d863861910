"""The bottleneck at one site, and the layer norm that is trained with it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from scions.adapters.config import BottleneckConfig
from scions.adapters.initial import fill_initial_

_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "gelu": nn.GELU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


class BottleneckLinear(nn.Module, BaseTunerLayer):
    """A projection followed by adapters: ``y + up(act(down(y)))`` (Houlsby et al. 2019, figure 2).

    With ``source`` (parallel placement) the bottleneck reads the input of the feed-forward block instead of ``y``.

    Shape: any leading dimensions; the last is the projection's input width, and its output width on return.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_rank", "bottleneck_act")

    def __init__(self, base_layer: nn.Module, source: nn.Module | None = None) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_act = nn.ModuleDict()
        self.bottleneck_rank: dict[str, int] = {}
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._source_input: torch.Tensor | None = None
        self.parallel = source is not None
        if source is not None:
            source.register_forward_pre_hook(self._remember_input)

    def _remember_input(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        self._source_input = inputs[0]

    def update_layer(
        self,
        adapter_name: str,
        config: BottleneckConfig,
        width_in: int,
        key: str,
        inference_mode: bool = False,
        activate: bool = True,
    ) -> None:
        """Add the bottleneck of ``adapter_name``; ``key`` (the site's name) fixes its initial weights.

        With ``activate=False`` device and active adapters are left to the caller.
        """
        width_out = int(self.get_base_layer().out_features)  # type: ignore[arg-type]
        down, up = nn.Linear(width_in, config.rank), nn.Linear(config.rank, width_out)
        self.bottleneck_rank[adapter_name] = config.rank
        self.bottleneck_act[adapter_name] = _ACTIVATIONS[config.activation]()
        if down.weight.device.type != "meta":
            fill_initial_(down.weight, up.weight, config.init_seed, key)
            nn.init.zeros_(down.bias)
            nn.init.zeros_(up.bias)
        self.bottleneck_down[adapter_name] = down
        self.bottleneck_up[adapter_name] = up
        if activate:
            self._move_adapter_to_device_of_base_layer(adapter_name)
            self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        output = self.base_layer(x, *args, **kwargs)
        # Let go at once: a tensor with its graph would hold memory, and forbid copying the model.
        source, self._source_input = self._source_input, None
        if self.disable_adapters:
            return output
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                read = output if source is None else source
                down, up = self.bottleneck_down[name], self.bottleneck_up[name]
                if not torch.is_autocast_enabled(read.device.type):
                    read = self._cast_input_dtype(read, down.weight.dtype)
                delta = up(self.bottleneck_act[name](down(read)))
                output = output + delta.to(output.dtype)
        return output


class AdaptedNorm(nn.Module, BaseTunerLayer):
    """A layer norm of which each adapter has its own trained copy, in place of the base's.

    With several adapters active the first that has a copy is used: norms do not add up.
    """

    adapter_layer_names = ("bottleneck_norm",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_norm = nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def update_layer(self, adapter_name: str, inference_mode: bool = False, activate: bool = True) -> None:
        """Give ``adapter_name`` its own copy, which starts as the base's; ``activate`` as for `BottleneckLinear`."""
        self.bottleneck_norm[adapter_name] = copy.deepcopy(self.get_base_layer()).requires_grad_(True)
        if activate:
            self._move_adapter_to_device_of_base_layer(adapter_name)
            self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        if not self.disable_adapters:
            for name in self.active_adapters:
                if name in self.bottleneck_norm:
                    return self.bottleneck_norm[name](x, *args, **kwargs)
        return self.base_layer(x, *args, **kwargs)
