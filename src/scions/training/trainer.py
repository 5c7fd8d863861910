"""sentence-transformers' trainer on planned steps.

Optimizer, schedule, clipping, checkpoints and distributed running are the library's. Different are the batches (see
`batches`), one pass for all columns of a row (see `tokens`), and checkpoints that hold only the trained tensors.
"""

from __future__ import annotations

import json
import math
import os
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer.losses import CoSENTLoss
from torch import nn
from torch.utils.data import DataLoader
from transformers import PrinterCallback

from scions.engine.precision import autocast
from scions.errors import ScionsError
from scions.training.batches import PlannedSteps
from scions.training.best_epoch import BestEpoch, copy_into
from scions.training.objectives import contrastive_loss, retrieval_loss
from scions.training.preservation.preserver import Preserver
from scions.training.preservation.soft_mask import ScaledSteps
from scions.training.recipe import Recipe
from scions.training.tokens import encode_pieces
from scions.training.trainable import TrainableParameters

COMPLETE = "complete"
TENSORS = "trained.safetensors"
BEST = "best.safetensors"
HISTORY = "selection.json"


class TrainingDiverged(ScionsError):
    """The loss or a score became undefined."""


class AdapterTrainer(SentenceTransformerTrainer):
    """Trains ``trained`` on planned steps.

    Raises:
        TrainingDiverged: from ``train``, at the first loss that is not finite.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        arguments: SentenceTransformerTrainingArguments,
        steps: PlannedSteps,
        trained: TrainableParameters,
        recipe: Recipe,
        best_epoch: BestEpoch,
        bf16: bool,
        callbacks: list[Any],
        preserver: Preserver | None = None,
    ) -> None:
        self.steps, self.trained, self.recipe, self.best_epoch = steps, trained, recipe, best_epoch
        self.bf16 = bf16
        self.preserver = preserver or Preserver()
        self.last_loss = math.nan
        # This dataset only has the right length: `get_train_dataloader` returns the steps themselves.
        rows = Dataset.from_dict({"step": list(range(len(steps)))})
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=rows,
            loss=nn.Identity(),
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add nothing: the card is written from the verdict."""

    def get_train_dataloader(self) -> DataLoader:
        loader = DataLoader(self.steps, batch_size=1, shuffle=False, collate_fn=itemgetter(0))
        self.accelerator.even_batches = False
        self._train_dataloader = self.accelerator.prepare(loader)
        return self._train_dataloader

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        # The trainer would use the parameters of its loss module, which has none.
        matrices = [p for p in self.trained.parameters.values() if p.ndim > 1]
        vectors = [p for p in self.trained.parameters.values() if p.ndim <= 1]
        groups = [
            {"params": matrices, "weight_decay": self.recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        groups = [group for group in groups if group["params"]]
        self.optimizer = torch.optim.AdamW(groups, lr=self.recipe.learning_rate, fused=True)
        if self.preserver.scaled:
            ScaledSteps(self.optimizer, self.preserver.scaled)
        return self.optimizer

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        with autocast(self.args.device, self.bf16):
            vectors = encode_pieces(model, inputs["pieces"])
        columns = vectors[inputs["index"].T]
        if "documents" in inputs:  # query-side: the documents are constants
            documents, positives, mask = inputs["documents"], inputs["positives"], inputs["mask"]
            loss = retrieval_loss(columns[0], documents, positives, mask, self.recipe.scale)
        elif "scores" in inputs:
            cosent = CoSENTLoss(None, scale=self.recipe.scale)  # without a model: it is given the embeddings
            loss = cosent.compute_loss_from_embeddings(list(columns), inputs["scores"])
        else:
            loss = contrastive_loss(columns, inputs["mask"], self.recipe.scale)
        for term in self.preserver.terms:
            loss = loss + term(self.state.global_step)
        self.last_loss = float(loss.detach())
        if not math.isfinite(self.last_loss):
            raise TrainingDiverged(
                f"training diverged: the loss is {self.last_loss} at step {self.state.global_step + 1} of "
                f"{len(self.steps)}. Nothing was published. "
                f"Try a lower learning rate (now `learning_rate={self.recipe.learning_rate:g}`)"
            )
        return (loss, {}) if return_outputs else loss

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_file(_contiguous(self.trained.parameters), folder / TENSORS)
        if self.best_epoch.best is not None:
            save_file(_contiguous(self.best_epoch.best), folder / BEST)
        (folder / HISTORY).write_text(json.dumps(self.best_epoch.history))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        copy_into(self.trained.parameters, load_file(folder / TENSORS))
        self.best_epoch.best = load_file(folder / BEST) if (folder / BEST).exists() else None
        self.best_epoch.history = json.loads((folder / HISTORY).read_text())


def mark_complete(folder: Path) -> None:
    """Mark a checkpoint as completely written."""
    with open(folder / COMPLETE, "w") as file:
        file.flush()
        os.fsync(file.fileno())


def newest_checkpoint(run: Path) -> Path | None:
    """Return the last complete checkpoint in ``run``, or None."""
    complete = [path for path in run.glob("checkpoint-*") if (path / COMPLETE).exists()]
    return max(complete, key=lambda path: int(path.name.rsplit("-", 1)[1]), default=None)


def _contiguous(tensors: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
