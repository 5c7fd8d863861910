"""From token ids with an adapter a row to vectors: checked, cut into batches, run by the engine that fits the base."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scions.encoder.bank import AdapterBank
from scions.encoder.base_info import limit_of
from scions.encoder.packed_engine import PackedEngine
from scions.encoder.peft_engine import PeftEngine
from scions.encoder.tokenization import RowTokenizer, only_fast
from scions.engine.adapter_weights import AdapterWeights
from scions.engine.batches import BATCH_TOKENS, FLOAT_BATCH_TOKENS, batches_by_length
from scions.errors import AdapterError, UsageError
from scions.routing.sample import RoutingSample
from scions.store.base import max_positions


class RowEncoder:
    """What is inside a `DomainEncoder`: the engine, the tokeniser and the bank of adapters of one base.

    Args:
        model: the base, a SentenceTransformer.
        bank: its adapters.
        dtype: to compute in.
        deterministic: a batch for every row.
    """

    def __init__(self, model: Any, bank: AdapterBank, dtype: torch.dtype, deterministic: bool) -> None:
        self.model, self.bank, self.deterministic = model, bank, deterministic
        self.tokens = RowTokenizer()
        self.engine: PackedEngine | PeftEngine = PackedEngine.of(model, dtype) or PeftEngine(
            model, dtype, self.tokens.lock
        )

    def vectors(
        self,
        token_ids: Sequence[Sequence[int]],
        adapters: Sequence[AdapterWeights | None],
        strengths: Sequence[float],
        prompt_lengths: Sequence[int] | None = None,
        batch_size: int | None = None,
        on_rows: Callable[[int], Any] = lambda rows: None,
        looked: RoutingSample | None = None,
    ) -> Tensor:
        """``[rows, dimensions]`` float32 on the base's device.

        Args:
            token_ids: of each row, with special tokens.
            adapters: of each row; None: the bare base.
            strengths: of each row; 0 is the bare base too.
            prompt_lengths: tokens of the prompt, for poolings that leave it out; None: no prompts.
            batch_size: at most so many rows a batch.
            on_rows: called with the number of rows of each batch that is done.
            looked: vectors of the bare base that are there already: such rows are not computed again.

        Raises:
            UsageError: a row without tokens, or longer than the base has positions.
        """
        lengths = np.fromiter(map(len, token_ids), np.int64, len(token_ids))
        self._check_lengths(lengths)
        used = [None if strength == 0 else a for a, strength in zip(adapters, strengths, strict=True)]
        prompts = [0] * len(used) if prompt_lengths is None else prompt_lengths
        if self.model.training:
            self.model.eval()
        on_processor = self.model.device.type == "cpu" and self.engine.dtype == torch.float32
        tokens = FLOAT_BATCH_TOKENS if on_processor else BATCH_TOKENS
        todo = np.arange(len(lengths))
        result: Tensor | None = None
        bare = [adapter is None and not length for adapter, length in zip(used, prompts, strict=True)]
        known = [] if looked is None else looked.reusable(token_ids, bare)
        if looked is not None and known:
            result = looked.vectors.new_empty(len(lengths), looked.vectors.shape[1])
            result[known] = looked.of(known)
            todo = np.setdiff1d(todo, known)
            on_rows(len(known))
        for part in batches_by_length(lengths[todo], 1 if self.deterministic else batch_size, tokens):
            batch = todo[part]
            rows = batch.tolist()
            chosen = [[values[i] for i in rows] for values in (token_ids, used, strengths, prompts)]
            found = self.engine.vectors(*chosen)  # type: ignore[arg-type]
            if result is None:
                result = torch.empty(len(lengths), found.shape[1], dtype=torch.float32, device=found.device)
            with torch.no_grad():
                result[torch.from_numpy(batch).to(found.device)] = found
            on_rows(len(rows))
        return torch.empty(0, self.dimensions, dtype=torch.float32) if result is None else result

    def limit(self, task: str | None = None) -> int | None:
        """`limit_of` the base, never what a thread has set for the moment in which it tokenises."""
        with nullcontext() if only_fast(self.model[0]) else self.tokens.lock:
            return limit_of(self.model, task)

    def precision(self) -> Any:
        """The precision in which SentenceTransformer's own path runs, as a context."""
        return self.engine.autocast() if isinstance(self.engine, PeftEngine) else nullcontext()

    @property
    def positions(self) -> int | None:
        """Tokens of a row that the base has places for; None where it sets no bound."""
        return max_positions(getattr(self.model[0], "auto_model", None))

    @property
    def dimensions(self) -> int:
        """Length of the vectors, before any truncation."""
        # The model's own answer heeds its truncate_dim, which other threads may be using.
        for module in reversed(list(self.model)):
            known = getattr(module, "get_embedding_dimension", None)
            if known is not None and known() is not None:
                return int(known())
        return 0

    def check_ids(self, token_ids: Sequence[Sequence[int]]) -> None:
        """Raises UsageError where an id is no whole number or none of the base's tokens; names the row.

        Raises AdapterError where the base is no transformer.
        """
        from scions.encoder.inject import network_of

        vocabulary = int(network_of(self.model).config.vocab_size)
        for row, ids in enumerate(token_ids, 1):
            try:
                least, most = min(map(operator.index, ids), default=0), max(ids, default=0)
            except TypeError as error:
                raise UsageError(f"row {row}: token ids are whole numbers: {error}") from error
            if least < 0 or most >= vocabulary:
                raise UsageError(
                    f"row {row}: token id {least if least < 0 else most}, but the base's run from 0 to {vocabulary - 1}"
                )

    def check_adapters(self, adapters: Sequence[AdapterWeights | None], base_sha256: str) -> None:
        """Raises AdapterError where one was loaded for another base."""
        for weights in {id(a): a for a in adapters if a is not None}.values():
            if weights.base != base_sha256:
                raise AdapterError(
                    f"adapter {weights.name!r} was loaded for a base with weights {weights.base[:12]}, these are "
                    f"{base_sha256[:12]}"
                )

    def _check_lengths(self, lengths: np.ndarray) -> None:
        empty = np.flatnonzero(lengths == 0)
        if len(empty):
            raise UsageError(f"row {int(empty[0]) + 1} has no tokens")
        most = self.positions
        if most is not None and len(lengths) and lengths.max() > most:
            row = int(lengths.argmax())
            raise UsageError(
                f"row {row + 1} has {int(lengths[row])} tokens, the base has positions for {most}; cut it, or set "
                "max_seq_length"
            )
