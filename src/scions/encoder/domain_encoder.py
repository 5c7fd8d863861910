"""One base and any number of adapters behind sentence-transformers' interface, an adapter chosen for every row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.util.decorators import deprecated_kwargs

from scions.encoder import auto_choice
from scions.encoder.adapter_choice import SET_ADAPTER, adapter_rows, default_name, is_auto, strength_rows
from scions.encoder.arguments import SentenceTransformersMeta, check_call, converted, only_parent, progress
from scions.encoder.bank import AdapterBank
from scions.encoder.base_info import DOCUMENT_PROMPTS, pooling_of, row_limit, row_space
from scions.encoder.query_side import documents_choice
from scions.encoder.read_adapter import read_adapter_folder
from scions.encoder.row_encoder import RowEncoder
from scions.encoder.tokenization import prompts_of_rows, row_tokens
from scions.engine.adapter_weights import AdapterWeights
from scions.engine.precision import compute_dtype
from scions.errors import ScionsError, UsageError
from scions.routing.decision import RoutingDecision
from scions.store import base_fingerprint, base_id, check_name, find_adapter, resolve_base

_HUB_OPTIONS = ("cache_folder", "revision", "token")


class DomainEncoder(SentenceTransformer, metaclass=SentenceTransformersMeta):
    """A SentenceTransformer whose rows can each have an adapter of their own, in one batch.

    ``load_adapter``, ``delete_adapter`` and ``set_adapter`` act on a bank beside the model: the model itself stays the
    plain base, which is what ``save_pretrained`` saves. ``encode``, ``encode_rows`` and the three may be called from
    any number of threads at the same time; a call computes to its end with the adapters there were when it began.
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
        from safetensors import SafetensorError

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
        self._rows = RowEncoder(self, self._bank, self.compute_dtype, deterministic)

    @property
    def engine(self) -> str:
        """``"packed"``: the loop of many adapters a batch; ``"peft"``: for other architectures, one after another."""
        return self._rows.engine.name

    @property
    def adapters(self) -> Mapping[str, AdapterWeights]:
        """The adapters loaded at this moment, by name; read-only."""
        return self._bank.snapshot()

    @cached_property
    def base_sha256(self) -> str:
        """`scions.store.base_fingerprint` of the base."""
        return base_fingerprint(self)

    def load_adapter(self, path_or_name: str | Path, name: str | None = None, replace: bool = False) -> AdapterWeights:
        """Load a published adapter.

        Args:
            path_or_name: its folder, or its name where `scions.store.default_root` says adapters lie.
            name: what to call it here; None: as its folder is called.
            replace: put it in the place of one of that name; calls under way finish with the old one.

        Returns:
            What was loaded.

        Raises:
            AdapterError: there is none, it is damaged, of another base, of a kind that cannot be chosen per row, or
                the name is taken or not allowed.
        """
        folder = find_adapter(path_or_name)
        called = check_name(folder.resolve().name if name is None else name)
        weights = self.read_adapter(folder, called)
        (self._bank.replace if replace else self._bank.load)(weights)
        return weights

    def read_adapter(self, folder: Path, name: str) -> AdapterWeights:
        """Read a published adapter without loading it: `encode_rows` takes what this gives. Raises AdapterError."""
        return self._rows.engine.prepare(read_adapter_folder(folder, name, self.base_sha256, self.base_name))

    def delete_adapter(self, name: str) -> AdapterWeights:
        """Forget an adapter; returns it. Raises AdapterError, listing those there are, where there is none."""
        return self._bank.delete(name)

    def set_adapter(self, name: str | None) -> None:
        """Choose what ``encode`` uses where it is not told: an adapter's name, or None for the bare base.

        Raises:
            AdapterError: it is not loaded; lists those that are.
            UsageError: ``"auto"`` or ``"auto-rows"``, which would decide anew in every call.
        """
        self._default = default_name(name, self.adapters)

    def active_adapters(self) -> list[str]:
        """What `set_adapter` chose: one name, or none."""
        return [] if self._default is None else [self._default]

    def route(self, texts: str | Sequence[str], adapters: Sequence[str] | None = None) -> RoutingDecision:
        """Which adapter texts that belong together go to, or the bare base where no domain fits.

        The bare base's vectors of at most 20 of them, evenly spread, are held against the training domains in the
        adapters' manifests (`scions.routing.decision`). ``encode(texts, adapter=found.adapter)`` follows it.

        Args:
            texts: as they are; no prompt is put before them.
            adapters: names to choose among; None: all that are loaded and have such statistics (imported ones have
                none). Where there are none, it is the base with confidence 1, and nothing is encoded.

        Raises:
            AdapterError: a name that is not loaded, or has no statistics.
            UsageError: no texts.
        """
        return auto_choice.route(self._rows, texts, adapters)

    def _not_here(self, *_: Any, **__: Any) -> None:
        """Not here: adapters stay beside the model, which is not trained. Raises UsageError."""
        raise UsageError(
            "a DomainEncoder keeps adapters beside the model: load_adapter, set_adapter and delete_adapter are what it "
            "has. Train with scions.train, or on a plain SentenceTransformer, and load what was published"
        )

    add_adapter = enable_adapters = disable_adapters = active_adapter = get_adapter_state_dict = _not_here

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
        """Vectors of texts, as ``SentenceTransformer.encode`` gives them, each with its adapter.

        Args:
            inputs: a text, or a sequence of texts.
            batch_size: at most so many rows a batch; None: as many as fit a batch by their tokens.
            adapter: a name for all rows, None (or ``"base"``) for the bare base, or a sequence of one a row. Not
                given: what `set_adapter` chose. ``"auto"``: what `route` says of these texts. ``"auto-rows"``: each row
                by itself; such vectors lie in different spaces and must not be compared with each other.
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
        check_call(self, rows, kwargs, batch_size, precision, truncate_dim)
        special = only_parent(rows, output_value, device, pool, kwargs)
        if device is not None and not special:
            self._resolve_inference_device(device)
        choice = self._default if adapter is SET_ADAPTER else adapter
        strengths = strength_rows(strength, len(rows))
        weights, looked = auto_choice.chosen(self._rows, choice, rows, kwargs.get("task"), special)
        bare = all(w is None or s == 0 for w, s in zip(weights, strengths, strict=True))
        if special and not bare:
            raise UsageError(f"{special}: only for the bare base; pass adapter=None")
        if special or (bare and self.engine == "peft"):
            with self._rows.tokens.lock, self._rows.precision():
                return super().encode(
                    inputs, prompt_name, prompt, 1 if self._rows.deterministic else batch_size or 32, show_progress_bar,
                    output_value, precision, convert_to_numpy, convert_to_tensor, device, normalize_embeddings,
                    truncate_dim, pool, chunk_size, **kwargs,
                )  # fmt: skip
        prompts = prompts_of_rows(self, weights, prompt, prompt_name)
        limit, positions = self._rows.limit(kwargs.get("task")), self._rows.positions
        limits = [row_limit(None if self._length_was_set else w, limit, positions) for w in weights]
        ids, lengths = row_tokens(self, self._rows.tokens, rows, prompts, limits)
        with progress(len(rows), show_progress_bar) as bar:
            vectors = self._rows.vectors(ids, weights, strengths, lengths, batch_size, bar.update, looked)
        vectors = vectors[:, : self.truncate_dim if truncate_dim is None else truncate_dim]
        result = converted(vectors, normalize_embeddings, precision, convert_to_numpy, convert_to_tensor)
        return result[0] if single else result

    @deprecated_kwargs(sentences="inputs")
    def encode_query(
        self, inputs: Any, prompt_name: str | None = None, prompt: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As `encode`, with the prompt for queries where none is given."""
        return self._encode_as("query", ("query",), inputs, prompt_name, prompt, *args, **kwargs)

    @deprecated_kwargs(sentences="inputs")
    def encode_document(
        self, inputs: Any, prompt_name: str | None = None, prompt: str | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As `encode`, with the prompt for documents where none is given; query-side adapters leave documents alone."""
        chosen = kwargs.pop("adapter", SET_ADAPTER)
        chosen = self._default if chosen is SET_ADAPTER else chosen
        kwargs["adapter"] = chosen if is_auto(chosen) else documents_choice(chosen, self.adapters)
        return self._encode_as("document", DOCUMENT_PROMPTS, inputs, prompt_name, prompt, *args, **kwargs)

    def encode_rows(
        self,
        token_ids: Sequence[Sequence[int]],
        adapters: Sequence[str | AdapterWeights | None],
        strengths: Sequence[float],
    ) -> np.ndarray:
        """Vectors of rows that are tokenised already: ``[rows, dimensions]`` float32, neither cut nor normalised.

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
        self._rows.check_ids(token_ids)
        self._rows.check_adapters(weights, self.base_sha256)
        return self._rows.vectors(token_ids, weights, numbers).cpu().numpy()

    def tokenize_rows(
        self, texts: Sequence[str], prompt: str = "", max_length: int | None = None
    ) -> tuple[list[list[int]], int]:
        """Token ids of each text for `encode_rows`, and how many texts were cut.

        Args:
            texts: any strings.
            prompt: stands before each of them.
            max_length: in tokens, special ones included; None: the base's.
        """
        return self._rows.tokens.tokenize(self, texts, prompt, self._rows.limit() if max_length is None else max_length)

    def space(
        self, adapter: str | AdapterWeights | None = None, strength: float = 1.0, truncate_dim: int | None = None
    ) -> str:
        """The fingerprint of the space that such vectors lie in (`scions.store.space_fingerprint`).

        Raises:
            AdapterError: the adapter is not loaded.
            UsageError: the strength is not finite, or ``truncate_dim`` is not positive.
        """
        (weights,), (number,) = adapter_rows(adapter, 1, self.adapters), strength_rows(strength, 1)
        kept = self.truncate_dim if truncate_dim is None else truncate_dim
        dimensions = self._rows.dimensions if kept is None else min(kept, self._rows.dimensions)
        return row_space(
            self.base_sha256,
            None if weights is None else weights.fingerprint,
            number,
            query_side=weights is not None and weights.query_side,
            pooling=pooling_of(self),
            dimensions=dimensions,
        )

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
        if "_rows" in self.__dict__:
            self._bank.change_all(self._rows.engine.moved)
        return result

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["_rows"] = state["_rows"].deterministic
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._rows = RowEncoder(self, self._bank, self.compute_dtype, state["_rows"])
