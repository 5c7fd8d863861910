"""Write the files of an adapter's folder, and load a model from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors.torch import save_file
from sentence_transformers import SentenceTransformer
from torch import Tensor

from scions.adapters.peft_type import FILE_PREFIX
from scions.encoder.base_info import row_space
from scions.encoder.inject import inject_adapter
from scions.evaluation.verdict import Verdict
from scions.publishing.plots import SCORES, draw_scores
from scions.store import Manifest, adapter_fingerprint, load_base, read_weights
from scions.store.names import CONFIG_FILE, MANIFEST_FILE, WEIGHTS_FILE
from scions.store.sparse import write_sparse

CARD_FILE = "README.md"


def write_weights(model: SentenceTransformer, method: str, base_id: str, folder: Path) -> None:
    """Write config and weights (float32) of the adapter named ``default``; of ``full``, the whole model."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    if method == "full":
        model.save_pretrained(str(folder), create_model_card=False)
        return
    transformer: Any = model[0].auto_model
    config = transformer.peft_config["default"]
    config.inference_mode = True
    config.save_pretrained(str(folder))
    # The id of the base, which others can load, instead of its folder on this machine.
    written = {**json.loads((folder / CONFIG_FILE).read_text()), "base_model_name_or_path": base_id}
    # With PEFT's own prefix: without it `PeftModel.from_pretrained` would warn and go on with fresh weights.
    tensors = {FILE_PREFIX + key: value for key, value in adapter_tensors(transformer).items()}
    _write_tensors(folder, tensors, written)


def adapter_tensors(transformer: Any) -> dict[str, Any]:
    """Return the tensors of the adapter ``default`` under the names of PEFT's file format, less `FILE_PREFIX`."""
    return get_peft_model_state_dict(transformer, adapter_name="default", save_embedding_layers=False)


def reload(folder: Path, method: str, base: str, name: str) -> SentenceTransformer:
    """Return a fresh float32 model from the files in ``folder``, checked as any adapter is on loading."""
    if method == "full":
        return load_base(str(folder), device="cpu")
    model = load_base(base)
    config = json.loads((folder / CONFIG_FILE).read_text())
    inject_adapter(model, name, config, read_weights(folder))
    return model


def write_adapter(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any],
    manifest: Manifest,
    *,
    sparse: bool = False,
    card: str | None = None,
) -> Manifest:
    """Write config, weights (float32), manifest and card into an empty folder.

    Args:
        folder: the folder to write into.
        tensors: by the names of an adapter's file.
        config: the content of ``adapter_config.json``.
        manifest: written with the space fingerprint of the weights as they are on disk.
        sparse: write only what differs from the adapters' common first weights.
        card: the text of ``README.md``; None: none is written.

    Returns:
        The manifest as written.
    """
    _write_tensors(folder, tensors, config, sparse)
    dimensions = len(manifest.domain.mean) if manifest.domain else manifest.base.hidden_size
    space = row_space(
        manifest.base.weights_sha256,
        adapter_fingerprint(folder),
        query_side=manifest.query_side,
        pooling=manifest.pooling,
        dimensions=dimensions,
    )
    settled = replace(manifest, space_fingerprint=space)
    write_description(folder, settled, card)
    return settled


def write_description(folder: Path, manifest: Manifest, card: str | None, verdict: Verdict | None = None) -> None:
    """Write the manifest, the card, and of a verdict the plot of its scores, beside an adapter's weights."""
    (folder / MANIFEST_FILE).write_text(manifest.to_json(), encoding="utf-8")
    if card is not None:
        (folder / CARD_FILE).write_text(card, encoding="utf-8")
    if verdict is not None:
        (folder / SCORES).write_bytes(draw_scores(verdict))


def _write_tensors(
    folder: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], sparse: bool = False
) -> None:
    (folder / CONFIG_FILE).write_text(json.dumps(dict(config), indent=2, sort_keys=True) + "\n")
    if sparse:
        write_sparse(folder, tensors, int(config["init_seed"]))
        return
    dense = {name: tensor.detach().float().contiguous() for name, tensor in tensors.items()}
    save_file(dense, folder / WEIGHTS_FILE, metadata={"format": "pt"})
