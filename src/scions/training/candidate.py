"""The files of an adapter as they will be published, and how they are put to the test."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from scions.encoder.grafting import graft_weights
from scions.store import load_base, read_weights

PEFT_PREFIX = "base_model.model."


def write_weights(model: SentenceTransformer, method: str, base_id: str, folder: Path) -> None:
    """Write config and weights (float32) of the adapter named ``default``; of ``full``, the whole model."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    if method == "full":
        model.save_pretrained(str(folder), create_model_card=False)
        return
    from safetensors.torch import save_file

    transformer: Any = model[0].auto_model
    # With PEFT's own prefix: without it `PeftModel.from_pretrained` would warn and go on with fresh weights.
    tensors = {
        PEFT_PREFIX + key: value.detach().float().contiguous() for key, value in adapter_tensors(transformer).items()
    }
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    config = transformer.peft_config["default"]
    # Where the base lay on this machine is nobody's business; its id is what others can load.
    config.base_model_name_or_path = base_id
    config.inference_mode = True
    config.save_pretrained(str(folder))
    written = json.loads((folder / "adapter_config.json").read_text())
    written["base_model_name_or_path"] = base_id
    (folder / "adapter_config.json").write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")


def adapter_tensors(transformer: Any) -> dict[str, Any]:
    """The tensors of the adapter ``default`` under the names of PEFT's file format, less `PEFT_PREFIX`."""
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(transformer, adapter_name="default", save_embedding_layers=False)


def reload(folder: Path, method: str, base: str, name: str) -> SentenceTransformer:
    """A fresh float32 model from the files in ``folder``, checked as any adapter is on loading."""
    if method == "full":
        return load_base(str(folder), device="cpu")
    model = load_base(base)
    config = json.loads((folder / "adapter_config.json").read_text())
    graft_weights(model, name, config, read_weights(folder))
    return model
