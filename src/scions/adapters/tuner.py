"""PEFT tuner that injects bottlenecks and trained norms into a model."""

from __future__ import annotations

from typing import Any, ClassVar

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer
from torch import nn

from scions.adapters.config import BottleneckConfig
from scions.adapters.layer import AdaptedNorm, BottleneckLinear
from scions.adapters.peft_type import PREFIX
from scions.adapters.placement import Sites, find_sites, site_width
from scions.errors import AdapterError


class BottleneckModel(BaseTuner):  # type: ignore[misc]
    """Bottleneck adapters (Houlsby et al. 2019) as a PEFT method.

    Raises:
        AdapterError: on injection, if the architecture is unknown, the adapter's name would corrupt saving, or a
            module holds adapters of the other kind. The model is left as it was.
    """

    prefix: str = PREFIX
    tuner_layer_cls = (BottleneckLinear, AdaptedNorm)
    target_module_mapping: ClassVar[dict[str, Any]] = {}

    def _prepare_adapter_config(self, peft_config: Any, model_config: dict[str, Any]) -> Any:
        return peft_config

    def _prepare_model(self, peft_config: BottleneckConfig, model: nn.Module) -> None:
        try:
            self._sites = find_sites(model, peft_config)
            self._refuse(peft_config, model)
        except AdapterError:
            self._withdraw(peft_config, model)
            raise
        modules = dict(model.named_modules())
        self._widths = {name: site_width(modules, self._sites, name) for name in self._sites.bottlenecks}
        # A plain dictionary: as attributes of this module the sources would be in its state a second time.
        self._sources = {site: modules[source] for site, source in self._sites.inputs.items()}
        # Read by _check_target_module_exists, which PEFT calls on the class with the config alone.
        peft_config._scions_sites = self._sites

    def _refuse(self, peft_config: BottleneckConfig, model: nn.Module) -> None:
        """Raise AdapterError, before anything is injected, if the adapter does not fit."""
        modules = dict(model.named_modules())
        parts = {part for name in modules for part in name.split(".")}
        for name in self._new_names(peft_config, model):
            # PEFT removes an adapter's name from the end of a tensor's key: with a name that is also a module's,
            # tensors would silently be lost on saving.
            if name in parts or name.startswith(PREFIX):
                raise AdapterError(f"an adapter cannot be named {name!r}: the base model has a module of that name")
            for site in self._sites.bottlenecks:
                module = modules[site]
                if isinstance(module, BottleneckLinear) and module.parallel != (site in self._sites.inputs):
                    raise AdapterError(
                        f"adapter {name!r} is placed {peft_config.placement}, but {site} already has adapters that "
                        "read the other side of the feed-forward block; load it on a separate model"
                    )

    def _new_names(self, peft_config: BottleneckConfig, model: nn.Module) -> list[str]:
        """Return the names under which ``peft_config`` is about to be injected."""
        layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        present = {name for layer in layers for part in layer.adapter_layer_names for name in getattr(layer, part, ())}
        return [name for name, config in self.peft_config.items() if config is peft_config and name not in present]

    def _withdraw(self, peft_config: BottleneckConfig, model: nn.Module) -> None:
        """Undo what PEFT and transformers recorded of a refused adapter, so that the model can take another."""
        for name in self._new_names(peft_config, model):
            del self.peft_config[name]
        if not self.peft_config and hasattr(model, "_hf_peft_config_loaded"):
            model._hf_peft_config_loaded = False

    @staticmethod
    def _check_target_module_exists(peft_config: Any, key: str) -> bool:
        sites: Sites = peft_config._scions_sites
        return key in sites.bottlenecks or key in sites.norms

    def _create_and_replace(
        self,
        peft_config: BottleneckConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **_: Any,
    ) -> None:
        layer, is_norm = target, current_key in self._sites.norms
        if not isinstance(target, self.tuner_layer_cls):
            layer = AdaptedNorm(target) if is_norm else BottleneckLinear(target, self._sources.get(current_key))
            layer._active_adapter = adapter_name
            self._replace_module(parent, target_name, layer, target)
        inference = bool(peft_config.inference_mode)
        if is_norm:
            layer.update_layer(adapter_name, inference_mode=inference)
        else:
            width_in, _width_out = self._widths[current_key]
            layer.update_layer(adapter_name, peft_config, width_in, current_key, inference_mode=inference)

    def _check_merge_allowed(self) -> None:
        raise AdapterError("a bottleneck adapter cannot be merged into the base: it is not linear")
