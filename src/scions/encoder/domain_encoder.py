"""Encode with one base model and any number of adapters, chosen row by row, as a SentenceTransformer."""

from __future__ import annotations

from abc import ABCMeta
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.decorators import deprecated_kwargs

from scions.encoder.adapter_choice import SET_ADAPTER, adapter_rows, is_auto, strength_rows
from scions.encoder.adapter_mixin import AdapterMixin
from scions.encoder.arguments import check_encode, converted, only_parent, progress_bar
from scions.encoder.auto_choice import AutoChoice
from scions.encoder.bank import AdapterBank
from scions.encoder.base_info import DOCUMENT_PROMPTS, pooling_of, row_limit, weights_space
from scions.encoder.packed_engine import PackedEngine
from scions.encoder.peft_engine import PeftEngine
from scions.encoder.row_engine import RowEngine
from scions.encoder.tokenization import RowTokenizer, prompts_of_rows
from scions.engine.adapter_weights import AdapterWeights
from scions.engine.precision import compute_dtype
from scions.errors import ScionsError, UsageError
from scions.routing.decision import RoutingDecision
from scions.store import base_id, resolve_base

_HUB_OPTIONS = ("cache_folder", "revision", "token")


class _PrintsAsSentenceTransformer(ABCMeta):
    """Metaclass of a class whose printed name contains that of sentence-transformers."""

    def __repr__(cls) -> str:
        # BERTopic looks for the package's name in this text where others ask isinstance, and without it silently takes
        # a model of its own.
        return f"<class '{cls.__module__}.{cls.__qualname__}', a sentence_transformers.SentenceTransformer>"


class DomainEncoder(AdapterMixin, SentenceTransformer, metaclass=_PrintsAsSentenceTransformer):
    """A SentenceTransformer with many adapters: every row of a batch can have another one.

    ``load_adapter``, ``delete_adapter`` and ``set_adapter`` act on a bank beside the model: the model itself stays the
    plain base, which is what ``save_pretrained`` saves. ``encode``, ``encode_rows`` and the three may be called from
    any number of threads at the same time; a call finishes with the adapters that were loaded when it began.
    Moving the model (``to``, ``device=``) while others encode is not safe.

    Rows with an adapter are cut at the length, and given the prompts, that it was trained with, unless
    ``max_seq_length`` was set or a ``prompt`` given.

    Args:
        model_name_or_path: the base: a folder, an id on the Hub, or None for the default
            (`scions.store.resolve_base` says where it is looked for).
        dtype: ``"float32"`` or ``"bfloat16"`` to compute in; None: bf16 where the processor has it, else float32.
            Vectors are float32 either way, and the model's own weights stay as they are.
        deterministic: encode every row alone, so that its vector is exactly the same whatever stands beside it (on
            one machine with one number of threads). That gives up batching, and with short texts most of the speed.
            By default two batchings of a row agree to a cosine of 0.9999 or better.
        options: SentenceTransformer's other arguments.

    Raises:
        ScionsError: the base is not there, cannot be loaded, or has an adapter inside.
        UsageError: an argument that cannot be served.
    """

    def __init__(
        self,
        model_name_or_path: str | Path | None = None,
        *,
        dtype: torch.dtype | str | None = None,
        deterministic: bool = False,
        **options: Any,
    ) -> None:
        if options.get("backend", "torch") != "torch":
            raise UsageError(f"backend {options['backend']!r}: DomainEncoder computes with torch only")
        self._bank = AdapterBank()
        self._default: str | None = None
        self.base_name = "the model in memory" if options.get("modules") else base_id(model_name_or_path)
        path = None
        if not options.get("modules"):
            # Where to ask on the Hub, or for what, is then up to SentenceTransformer.
            elsewhere = any(options.get(name) for name in _HUB_OPTIONS)
            path = self.base_name if elsewhere else resolve_base(model_name_or_path)
        options.setdefault("device", "cuda" if torch.cuda.is_available() else "cpu")
        try:
            super().__init__(path, **options)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise ScionsError(f"base {self.base_name!r} cannot be loaded: {error}") from error
        if getattr(self.transformers_model, "_hf_peft_config_loaded", False):
            raise ScionsError(f"{path}: has a PEFT adapter inside; give its base, and the adapter to load_adapter()")
        self._length_was_set = False
        self.compute_dtype = compute_dtype(dtype, self.device)
        self.eval()
        self._build(deterministic)

    def _build(self, deterministic: bool) -> None:
        self._tokenizer, dtype = RowTokenizer(self), self.compute_dtype
        self._engine: RowEngine = PackedEngine.of(self, dtype, deterministic) or PeftEngine(
            self, dtype, deterministic, self._tokenizer.lock
        )
        self._auto = AutoChoice(self._engine, self._tokenizer, self._bank)

    @property
    def engine(self) -> str:
        """``"packed"``: many adapters in one batch; ``"peft"``: for other architectures, one adapter after another."""
        return self._engine.name

    def route(self, texts: str | Sequence[str], adapters: Sequence[str] | None = None) -> RoutingDecision:
        """Choose the adapter for texts that belong together, or the bare base where no domain fits.

        The bare base's vectors of at most 20 of them, evenly spread, are compared with the training domains in the
        adapters' manifests (`scions.routing.decision`). ``encode(texts, adapter=decision.adapter)`` follows it.

        Args:
            texts: as they are; no prompt is put before them.
            adapters: names to choose among; None: all that are loaded and have such statistics (imported ones have
                none). Where there are none, it is the base with confidence 1, and nothing is encoded.

        Raises:
            AdapterError: a name that is not loaded, or has no statistics.
            UsageError: no texts.
        """
        return self._auto.route(texts, adapters)

    @deprecated_kwargs(sentences="inputs")
    def encode(
        self,
        inputs: Any,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        show_progress_bar: bool | None = None,
        output_value: str | None = "sentence_embedding",
        precision: str | None = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        adapter: Any = SET_ADAPTER,
        strength: float | Sequence[float] = 1.0,
        **kwargs: Any,
    ) -> Any:
        """Encode texts as ``SentenceTransformer.encode`` does, each with its adapter.

        Args:
            inputs: a text, or a sequence of texts.
            batch_size: maximum rows a batch; None: as many as its tokens allow.
            adapter: a name for all rows, None (or ``"base"``) for the bare base, or a sequence with one a row. By
                default what `set_adapter` chose. ``"auto"``: what `route` says of these texts. ``"auto-rows"``: each
                row by itself; such vectors lie in different spaces and must not be compared with each other.
            strength: factor on the adapter's contribution, for all rows or one a row: 0 is the base, 1 the adapter as
                trained.
            kwargs: ``task``, and what the base's own modules take.

        The other arguments are SentenceTransformer's. What only it can do (``output_value`` other than
        ``"sentence_embedding"``, inputs that are no texts, several devices) is handed to it for the bare base.

        Returns:
            ``[texts, dimensions]`` as a numpy array, tensor or list of tensors; for one text its vector.

        Raises:
            AdapterError: a name that is not loaded; lists those that are.
            UsageError: lists of another length than the texts, an unknown argument, or something that needs
                SentenceTransformer's own path for a row with an adapter.
        """
        single = self.is_singular_input(inputs)
        rows = [inputs] if single else list(inputs)
        check_encode(self, rows, kwargs, batch_size, precision, truncate_dim)
        special = only_parent(rows, output_value, device, pool, kwargs)
        if device is not None and not special:
            self._resolve_inference_device(device)
        choice = self._default if adapter is SET_ADAPTER else adapter
        strengths = strength_rows(strength, len(rows))
        not_bare = UsageError(f"{special}: only for the bare base; pass `adapter=None`")
        if special and is_auto(choice):
            raise not_bare
        task = kwargs.get("task")
        weights, sample = self._auto.adapter_rows(choice, rows, task)
        bare = all(w is None or s == 0 for w, s in zip(weights, strengths, strict=True))
        if special and not bare:
            raise not_bare
        engine, tokenizer = self._engine, self._tokenizer
        if special or (bare and self.engine == "peft"):
            with tokenizer.lock, engine.autocast():
                return super().encode(
                    inputs, prompt_name, prompt, 1 if engine.deterministic else batch_size or 32, show_progress_bar,
                    output_value, precision, convert_to_numpy, convert_to_tensor, device, normalize_embeddings,
                    truncate_dim, pool, chunk_size, **kwargs,
                )  # fmt: skip
        prompts = prompts_of_rows(self, weights, prompt, prompt_name)
        limit, positions = tokenizer.limit(task), engine.positions
        limits = [row_limit(None if self._length_was_set else w, limit, positions) for w in weights]
        ids, lengths = tokenizer.tokenize_rows(rows, prompts, limits)
        with progress_bar(len(rows), show_progress_bar) as bar:
            vectors = engine.encode(ids, weights, strengths, lengths, batch_size, bar.update, sample)
        vectors = vectors[:, : self.truncate_dim if truncate_dim is None else truncate_dim]
        result = converted(vectors, normalize_embeddings, precision, convert_to_numpy, convert_to_tensor)
        return result[0] if single else result

    @deprecated_kwargs(sentences="inputs")
    def encode_query(
        self, inputs: Any, prompt_name: str | None = None, prompt: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Encode as `encode`, by default with the prompt for queries."""
        return self._encode_as("query", ("query",), inputs, prompt_name, prompt, *args, **kwargs)

    @deprecated_kwargs(sentences="inputs")
    def encode_document(
        self, inputs: Any, prompt_name: str | None = None, prompt: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Encode as `encode`, by default with the prompt for documents; query-side adapters leave them to the base."""
        return self._encode_as("document", DOCUMENT_PROMPTS, inputs, prompt_name, prompt, *args, **kwargs)

    def encode_rows(
        self,
        token_ids: Sequence[Sequence[int]],
        adapters: Sequence[str | AdapterWeights | None],
        strengths: Sequence[float],
    ) -> np.ndarray:
        """Encode rows of token ids into vectors ``[rows, dimensions]`` float32, neither truncated nor normalized.

        Args:
            token_ids: of each row, special tokens included.
            adapters: of each row: a name, an `AdapterWeights` (loaded or no longer), or None for the bare base.
            strengths: of each row.

        Raises:
            AdapterError: a name that is not loaded, or weights of another base.
            UsageError: lists of different lengths, an id that is none of the base's, a row without tokens or with more
                than the base has positions for.
        """
        weights = adapter_rows(list(adapters), len(token_ids), self.adapters)
        numbers = strength_rows(list(strengths), len(token_ids))
        self._engine.check_ids(token_ids)
        self._engine.check_adapters(weights, self.base_sha256)
        return self._engine.encode(token_ids, weights, numbers).cpu().numpy()

    def tokenize_rows(
        self, texts: Sequence[str], prompt: str = "", max_length: int | None = None
    ) -> tuple[list[list[int]], int]:
        """Return the token ids of each text for `encode_rows`, and how many texts were cut.

        Args:
            texts: any strings.
            prompt: put before each text.
            max_length: in tokens, special ones included; None: the base's.
        """
        return self._tokenizer.tokenize(texts, prompt, self._tokenizer.limit() if max_length is None else max_length)

    def space(
        self, adapter: str | AdapterWeights | None = None, strength: float = 1.0, truncate_dim: int | None = None
    ) -> str:
        """Return the fingerprint of the space of such vectors (`scions.encoder.base_info.row_space`).

        Raises:
            AdapterError: the adapter is not loaded.
            UsageError: the strength is not finite, or ``truncate_dim`` is not positive.
        """
        (weights,), (number,) = adapter_rows(adapter, 1, self.adapters), strength_rows(strength, 1)
        cut, full = self.truncate_dim if truncate_dim is None else truncate_dim, self._engine.dimensions
        dimensions = full if cut is None else min(cut, full)
        return weights_space(self.base_sha256, weights, number, pooling_of(self), dimensions)

    @property
    def max_seq_length(self) -> int | None:
        """Tokens of a text that are read; once set, rows with an adapter follow it too."""
        return self[0].max_seq_length

    @max_seq_length.setter
    def max_seq_length(self, value: int | None) -> None:
        self[0].max_seq_length = value
        self._length_was_set = True

    def _encode_as(
        self, task: str, names: Sequence[str], inputs: Any, prompt_name: str | None, prompt: str | None,
        *args: Any, **kwargs: Any,
    ) -> Any:  # fmt: skip
        if prompt_name is None and prompt is None:
            prompt_name = next((name for name in names if name in self.prompts), None)
        return self.encode(inputs, prompt_name, prompt, *args, task=task, **kwargs)

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        result = super()._apply(*args, **kwargs)
        if "_engine" in self.__dict__:
            self._bank.change_all(self._engine.moved)
        return result

    def __getstate__(self) -> dict[str, Any]:
        state = {key: value for key, value in self.__dict__.items() if key not in ("_tokenizer", "_auto")}
        return {**state, "_engine": self._engine.deterministic}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._build(state["_engine"])
