"""The PEFT tuner: puts bottlenecks and trained norms into a model."""

from __future__ import annotations

from typing import Any, ClassVar

from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from scions.adapters.config import BottleneckConfig
from scions.adapters.layer import AdaptedNorm, BottleneckLinear
from scions.adapters.placement import Sites, find_sites, site_width
from scions.errors import AdapterError
from scions.registration import PREFIX


class BottleneckModel(BaseTuner):
    """Bottleneck adapters (Houlsby et al. 2019) as a PEFT method.

    Raises:
        AdapterError: on injection, where the architecture is unknown or the adapter's name would corrupt saving.
    """

    prefix: str = PREFIX
    tuner_layer_cls = (BottleneckLinear, AdaptedNorm)  # type: ignore[assignment]
    target_module_mapping: ClassVar[dict[str, Any]] = {}

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        return peft_config

    def _prepare_model(self, peft_config: BottleneckConfig, model: nn.Module) -> None:
        # PEFT removes an adapter's name from the end of a tensor's key; a name that is a module's name as well
        # would silently lose tensors on saving.
        parts = {part for name, _ in model.named_modules() for part in name.split(".")[:-1]}
        for name in self.peft_config:
            if name in parts and name not in _adapter_names(model):
                raise AdapterError(f"an adapter cannot be named {name!r}: the base model has a module of that name")
        self._sites = find_sites(model, peft_config)
        modules = dict(model.named_modules())
        self._widths = {name: site_width(modules, self._sites, name) for name in self._sites.bottlenecks}
        self._root = model
        # Read by _check_target_module_exists, which PEFT calls on the class with the config alone.
        peft_config._scions_sites = self._sites  # type: ignore[attr-defined]

    @staticmethod
    def _check_target_module_exists(peft_config: Any, key: str) -> bool:
        sites: Sites = peft_config._scions_sites
        return key in sites.bottlenecks or key in sites.norms

    def _create_and_replace(  # type: ignore[override]
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        inference = bool(peft_config.inference_mode)
        if current_key in self._sites.norms:
            norm = target if isinstance(target, AdaptedNorm) else AdaptedNorm(target)
            if norm is not target:
                norm._active_adapter = adapter_name
                self._replace_module(parent, target_name, norm, target)
            norm.update_layer(adapter_name, inference_mode=inference)
            return
        source_name = self._sites.inputs.get(current_key)
        source = self._root.get_submodule(source_name) if source_name else None
        if isinstance(target, BottleneckLinear):
            if target.parallel != (source is not None):
                raise AdapterError(
                    f"adapter {adapter_name!r} is placed {peft_config.placement}, but {current_key} already holds "
                    "adapters that read the other side of the feed-forward block; load it on a model of its own"
                )
            linear = target
        else:
            linear = BottleneckLinear(target, source)
            linear._active_adapter = adapter_name
            self._replace_module(parent, target_name, linear, target)
        width_in, _width_out = self._widths[current_key]
        linear.update_layer(adapter_name, peft_config, width_in, current_key, inference_mode=inference)

    def _check_merge_allowed(self) -> None:
        raise AdapterError("a bottleneck adapter has a non-linearity inside: it cannot be merged into the base")


def _adapter_names(model: nn.Module) -> set[str]:
    return set(getattr(model, "peft_config", {}))
