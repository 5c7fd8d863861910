"""Compute the vectors of rows of token ids, each row with its adapter, in batches; one subclass an implementation."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from scions.encoder.inject import network_of
from scions.engine.adapter_weights import AdapterWeights
from scions.engine.batches import BATCH_TOKENS, FLOAT_BATCH_TOKENS, batches_by_length
from scions.errors import AdapterError, UsageError
from scions.routing.sample import RoutingSample
from scions.store.base import max_positions
from scions.store.registry import PublishedAdapter


class RowBatch(NamedTuple):
    """Rows that are computed together: token ids, adapter (None: the bare base), strength and tokens of the prompt."""

    token_ids: list[Sequence[int]]
    adapters: list[AdapterWeights | None]
    strengths: list[float]
    prompt_lengths: list[int]


class RowEngine(ABC):
    """Encode rows of token ids with one base, in ``dtype``; ``deterministic``: a batch for every row.

    Any number of threads may call `encode`.
    """

    name: ClassVar[str]

    def __init__(self, model: SentenceTransformer, dtype: torch.dtype, deterministic: bool) -> None:
        self.model, self.dtype, self.deterministic = model, dtype, deterministic

    @abstractmethod
    def prepare(self, published: PublishedAdapter) -> AdapterWeights:
        """Return an adapter ready for `encode`. Raises AdapterError where the base has no place for it."""

    @abstractmethod
    def moved(self, weights: AdapterWeights) -> AdapterWeights:
        """Return ``weights`` on the device where the base is now."""

    @abstractmethod
    def encode_batch(self, batch: RowBatch) -> Tensor:
        """Return the vectors ``[rows, dimensions]`` float32 of a batch, in its order; see `encode`."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Return a context in which SentenceTransformer's own path runs in the engine's precision."""
        return nullcontext()

    def encode(
        self,
        token_ids: Sequence[Sequence[int]],
        adapters: Sequence[AdapterWeights | None],
        strengths: Sequence[float],
        prompt_lengths: Sequence[int] | None = None,
        batch_size: int | None = None,
        progress: Callable[[int], Any] = lambda rows: None,
        sample: RoutingSample[Tensor] | None = None,
    ) -> Tensor:
        """Return vectors ``[rows, dimensions]`` float32 on the base's device.

        Args:
            token_ids: of each row, with special tokens.
            adapters: of each row; None: the bare base.
            strengths: of each row; 0 is the bare base too.
            prompt_lengths: tokens of the prompt, for poolings that leave it out; None: no prompts.
            batch_size: maximum rows a batch; None: as many as its tokens allow.
            progress: called with the number of rows of each finished batch.
            sample: vectors of the bare base that routing has computed; such rows are not computed again.

        Raises:
            UsageError: a row without tokens, or longer than the base has positions for.
        """
        lengths = np.fromiter(map(len, token_ids), np.int64, len(token_ids))
        self._check_lengths(lengths)
        used = [None if strength == 0 else a for a, strength in zip(adapters, strengths, strict=True)]
        prompts = [0] * len(used) if prompt_lengths is None else prompt_lengths
        if self.model.training:
            self.model.eval()
        float_on_cpu = self.model.device.type == "cpu" and self.dtype == torch.float32
        todo = np.arange(len(lengths))
        result: Tensor | None = None
        bare = [adapter is None and not length for adapter, length in zip(used, prompts, strict=True)]
        known = [] if sample is None else sample.reusable(token_ids, bare)
        if sample is not None and known:
            result = sample.vectors.new_empty(len(lengths), sample.vectors.shape[1])
            result[known] = sample.of(known)
            todo = np.setdiff1d(todo, known)
            progress(len(known))
        tokens = FLOAT_BATCH_TOKENS if float_on_cpu else BATCH_TOKENS
        for part in batches_by_length(lengths[todo], 1 if self.deterministic else batch_size, tokens):
            rows = todo[part].tolist()
            columns: Any = ([values[i] for i in rows] for values in (token_ids, used, strengths, prompts))
            vectors = self.encode_batch(RowBatch(*columns))
            if result is None:
                result = torch.empty(len(lengths), vectors.shape[1], dtype=torch.float32, device=vectors.device)
            with torch.no_grad():
                result[torch.from_numpy(todo[part]).to(vectors.device)] = vectors
            progress(len(rows))
        return torch.empty(0, self.dimensions, dtype=torch.float32) if result is None else result

    @property
    def positions(self) -> int | None:
        """Tokens of a row that the base has places for; None where it sets no bound."""
        return max_positions(getattr(self.model[0], "auto_model", None))

    @property
    def dimensions(self) -> int:
        """Length of the vectors, before any truncation."""
        # The model's own answer heeds its truncate_dim, which other threads may be using.
        for module in reversed(list(self.model)):
            dimension = getattr(module, "get_embedding_dimension", None)
            if dimension is not None and dimension() is not None:
                return int(dimension())
        return 0

    def check_ids(self, token_ids: Sequence[Sequence[int]]) -> None:
        """Raise where an id is no whole number or none of the base's tokens.

        Raises:
            AdapterError: the base is no transformer.
            UsageError: names the row.
        """
        vocabulary = int(network_of(self.model).config.vocab_size)
        for row, ids in enumerate(token_ids, 1):
            try:
                lowest, highest = min(map(operator.index, ids), default=0), max(ids, default=0)
            except TypeError as error:
                raise UsageError(f"row {row}: token ids are whole numbers: {error}") from error
            if lowest < 0 or highest >= vocabulary:
                wrong = lowest if lowest < 0 else highest
                raise UsageError(f"row {row}: token id {wrong}, but the base's run from 0 to {vocabulary - 1}")

    def check_adapters(self, adapters: Sequence[AdapterWeights | None], base_sha256: str) -> None:
        """Raise AdapterError where an adapter was loaded for another base."""
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
        positions = self.positions
        if positions is not None and len(lengths) and lengths.max() > positions:
            row = int(lengths.argmax())
            raise UsageError(
                f"row {row + 1} has {int(lengths[row])} tokens, the base has positions for {positions}; cut it, or set "
                "max_seq_length"
            )
