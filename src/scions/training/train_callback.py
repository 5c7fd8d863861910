"""Report progress, score each epoch, save checkpoints and handle Ctrl-C between training steps."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from scions.training.best_epoch import BestEpoch
from scions.training.recipe import Recipe
from scions.training.trainer import AdapterTrainer, mark_complete

CHECKPOINT_SECONDS = 120.0


@dataclass(frozen=True)
class Step:
    """Progress after a step: ``rows_per_second`` over the training so far, ``seconds_left`` estimated."""

    step: int
    steps: int
    loss: float
    rows_per_second: float
    seconds_left: float


class TrainCallback(TrainerCallback):
    """Report progress, score each epoch, save checkpoints and stop on Ctrl-C."""

    def __init__(
        self, best_epoch: BestEpoch, steps: int, recipe: Recipe, on_step: Callable[[Step], None] | None
    ) -> None:
        self.best_epoch, self.steps, self.recipe, self.on_step = best_epoch, steps, recipe, on_step
        self.steps_per_epoch = max(1, round(steps / recipe.epochs))
        self.trainer: AdapterTrainer | None = None
        self.stop = False
        self.first_step = 0
        self._start = self._last_save = self._end = 0.0

    def elapsed(self) -> float:
        """Return seconds of training, without scoring."""
        return (self._end or time.perf_counter()) - self._start - self.best_epoch.seconds

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.best_epoch.history:
            self.best_epoch.check(0)
        self.best_epoch.seconds = 0.0
        self.first_step = state.global_step
        self._start = self._last_save = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        step, now = state.global_step, time.perf_counter()
        if step >= self.steps:
            self._end = now
        if step % self.steps_per_epoch == 0 or step == self.steps:
            scored = self.best_epoch.seconds
            self.best_epoch.check(step)
            if self._end:
                self.best_epoch.seconds = scored
        if self.stop or now - self._last_save > CHECKPOINT_SECONDS:
            control.should_save = True
            self._last_save = now
        if self.stop:
            control.should_training_stop = True
        if self.on_step is not None and self.trainer is not None:
            elapsed = self.elapsed()
            done = step - self.first_step
            rows = done * self.recipe.batch_size
            left = elapsed / done * (self.steps - step)
            self.on_step(Step(step, self.steps, self.trainer.last_loss, rows / max(elapsed, 1e-9), left))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        mark_complete(Path(args.output_dir) / f"checkpoint-{state.global_step}")

    @contextmanager
    def stopped_by_ctrl_c(self) -> Iterator[None]:
        """Stop at the next step, with a checkpoint, on the first Ctrl-C, and at once on the second."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def handle(signum: int, frame: Any) -> None:
            if self.stop:
                raise KeyboardInterrupt
            self.stop = True

        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
