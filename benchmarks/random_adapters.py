"""Publish adapters with random weights, for benchmarks of size and speed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

# About the sizes after training: the layer norms stay near the base's, and vectors move without falling apart.
DOWN, UP, SMALL = 0.05, 0.02, 0.02


def publish_random(folder: Path, base: Any, rank: int, seed: int) -> Path:
    """Publish a houlsby adapter as training does, float32 and with a manifest; returns its folder.

    Args:
        folder: where it shall stand; its name is the adapter's.
        base: the SentenceTransformer it is for.
        rank: width of the bottleneck.
        seed: of its weights.
    """
    from safetensors.torch import save_file

    from scions import BottleneckConfig
    from scions.store import write_folder

    config = BottleneckConfig(rank=rank)
    tensors = _tensors(base[0].auto_model, config, torch.Generator().manual_seed(seed))
    manifest = _manifest(folder.name, base, rank, seed, sum(tensor.numel() for tensor in tensors.values()))

    def write(staging: Path) -> None:
        content = {**config.to_dict(), "peft_type": config.peft_type.value}
        (staging / "adapter_config.json").write_text(json.dumps(content, default=sorted))
        save_file(tensors, staging / "adapter_model.safetensors", metadata={"format": "pt"})
        (staging / "scions.json").write_text(manifest.to_json())

    return write_folder(folder, write)


def _tensors(network: Any, config: Any, generator: torch.Generator) -> dict[str, torch.Tensor]:
    from scions.adapters.placement import find_sites, site_width

    sites, modules = find_sites(network, config), dict(network.named_modules())

    def random(scale: float, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * scale

    tensors = {}
    for site in sites.bottlenecks:
        width_in, width_out = site_width(modules, sites, site)
        tensors |= {
            f"{site}.bottleneck_down.weight": random(DOWN, config.rank, width_in),
            f"{site}.bottleneck_down.bias": random(SMALL, config.rank),
            f"{site}.bottleneck_up.weight": random(UP, width_out, config.rank),
            f"{site}.bottleneck_up.bias": random(SMALL, width_out),
        }
    for norm in sites.norms:
        for leaf in ("weight", "bias"):
            own = getattr(modules[norm], leaf).detach().float().cpu()
            tensors[f"{norm}.bottleneck_norm.{leaf}"] = own + random(SMALL, *own.shape)
    return {f"base_model.model.{key}": tensor for key, tensor in tensors.items()}


def _manifest(name: str, base: Any, rank: int, seed: int, parameters: int) -> Any:
    from scions.encoder import pooling_of
    from scions.store import Base, DataRecord, Initialization, Manifest, base_fingerprint, base_id

    network = base[0].auto_model
    return Manifest(
        name=name,
        base=Base(
            id=base_id(network.name_or_path),
            weights_sha256=base_fingerprint(base),
            architecture=str(network.config.model_type),
            hidden_size=int(network.config.hidden_size),
            layers=int(network.config.num_hidden_layers),
        ),
        method="houlsby",
        placement={"placement": "houlsby", "layers": None},
        rank=rank,
        trainable_parameters=parameters,
        trainable_share=parameters / sum(parameter.numel() for parameter in network.parameters()),
        initialisation=Initialization(seed=seed, id="random"),
        data=DataRecord(source="none, random weights", fingerprint="none", shape="pairs", rows={}),
        pooling=pooling_of(base),
        # The base's own: rows with an adapter are cut where rows without one are.
        max_length=int(base.max_seq_length or 0),
        seed=seed,
        space_fingerprint="none",
    )
