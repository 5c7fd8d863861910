"""PEFT tuner layers: a projection with bottleneck adapters, and a layer norm with trained copies."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from scions.adapters.config import ACTIVATIONS, BottleneckConfig
from scions.adapters.initial import fill_initial_


class BottleneckLinear(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A projection followed by adapters: ``y + up(act(down(y)))`` (Houlsby et al. 2019, figure 2).

    With ``source`` (parallel placement) the bottleneck reads the input of the feed-forward block instead of ``y``.

    Shape: any leading dimensions; the last is the projection's input width, and its output width on return.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")
    other_param_names = ("bottleneck_activation",)

    def __init__(self, base_layer: nn.Module, source: nn.Module | None = None) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_down = nn.ModuleDict()
        self.bottleneck_up = nn.ModuleDict()
        self.bottleneck_activation: dict[str, str] = {}
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
        """Add the bottleneck of an adapter.

        Args:
            adapter_name: the adapter.
            config: its configuration.
            width_in: width of the bottleneck's input.
            key: the site's name, which determines the initial weights.
            inference_mode: add it frozen.
            activate: move it to the base layer's device and set it active; else the caller does.
        """
        width_out = int(self.get_base_layer().out_features)
        down, up = nn.Linear(width_in, config.rank), nn.Linear(config.rank, width_out)
        self.bottleneck_activation[adapter_name] = config.activation
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
        # Dropped at once: a tensor with its graph would hold memory, and forbid copying the model.
        source, self._source_input = self._source_input, None
        if self.disable_adapters:
            return output
        for name in self.active_adapters:
            if name in self.bottleneck_down:
                read = output if source is None else source
                down, up = self.bottleneck_down[name], self.bottleneck_up[name]
                if not torch.is_autocast_enabled(read.device.type):
                    read = self._cast_input_dtype(read, down.weight.dtype)
                delta = up(ACTIVATIONS[self.bottleneck_activation[name]](down(read)))
                output = output + delta.to(output.dtype)
        return output


class AdaptedNorm(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """A layer norm with a trained copy for each adapter, used in place of the base's.

    With several active adapters the first that has a copy is used: norms do not add up.
    """

    adapter_layer_names = ("bottleneck_norm",)

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.bottleneck_norm = nn.ModuleDict()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    def update_layer(self, adapter_name: str, inference_mode: bool = False, activate: bool = True) -> None:
        """Add a copy of the base's norm for ``adapter_name``; ``activate`` as in `BottleneckLinear.update_layer`."""
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
