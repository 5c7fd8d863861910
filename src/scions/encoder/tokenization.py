"""Turn texts of rows into token ids, each row with its adapter's prompt and length."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from sentence_transformers import SentenceTransformer

from scions.encoder.base_info import limit_of, row_prompts, rows_by_key
from scions.engine.adapter_weights import AdapterWeights

_MAX_COPIES = 8


class RowTokenizer:
    """Tokenize for ``model``, cut at any length, from any number of threads.

    A tokenizer of transformers keeps padding and truncation as its state, so two threads must not use one together.
    Where the fast one does all the work, each length gets a copy of it that is never changed; where there is more to
    it (a chat template, options of the module, a tokenizer written in Python), the model's own ``preprocess`` is
    called, one thread at a time.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        self.model, self.lock = model, threading.RLock()
        self._copies: dict[tuple[int, int, str, int | None], Any] = {}

    def tokenize(
        self, texts: Sequence[str], prompt: str = "", max_length: int | None = None
    ) -> tuple[list[list[int]], int]:
        """Return the token ids of each text, with the prompt before it and special tokens, and how many were cut.

        ``max_length`` is in tokens, special ones included; None: uncut.
        """
        if not texts:
            return [], 0
        if not only_fast(self.model[0]):
            with self.lock:
                return _preprocessed(self.model, list(texts), prompt, max_length)
        copy = self._copy(self.model.tokenizer, max_length)
        encodings = copy.encode_batch_fast([prompt + text for text in texts] if prompt else list(texts))
        return [encoding.ids for encoding in encodings], sum(bool(encoding.overflowing) for encoding in encodings)

    def tokenize_rows(
        self, texts: Sequence[str], prompts: Sequence[str], limits: Sequence[int | None]
    ) -> tuple[list[list[int]], list[int]]:
        """Return the token ids of each row, and how many of them are its prompt's where the pooling leaves that out.

        Texts, prompts and limits (in tokens) are those of each row.
        """
        ids: list[list[int]] = [[]] * len(texts)
        lengths = [0] * len(texts)
        left_out = any(not getattr(module, "include_prompt", True) for module in self.model)
        for (prompt, limit), rows in rows_by_key(zip(prompts, limits, strict=True)).items():
            ids_of_rows, _ = self.tokenize([texts[i] for i in rows], prompt, limit)
            size = self._prompt_length(prompt) if prompt and left_out else 0
            for i, row_ids in zip(rows, ids_of_rows, strict=True):
                ids[i], lengths[i] = row_ids, size
        return ids, lengths

    def limit(self, task: str | None = None) -> int | None:
        """Return `limit_of` the base, never the length that another thread has set while it tokenizes."""
        with nullcontext() if only_fast(self.model[0]) else self.lock:
            return limit_of(self.model, task)

    def _prompt_length(self, prompt: str) -> int:
        """Return the tokens of the prompt, without a special one behind it."""
        (ids,), _ = self.tokenize([prompt])
        return len(ids) - (ids[-1] in self.model.tokenizer.all_special_ids)

    def _copy(self, tokenizer: Any, max_length: int | None) -> Any:
        key = (id(tokenizer), len(tokenizer), tokenizer.truncation_side, max_length)
        copy = self._copies.get(key)
        if copy is None:
            with self.lock:
                copy = type(tokenizer.backend_tokenizer).from_str(tokenizer.backend_tokenizer.to_str())
                copy.no_padding()
                if max_length is None:
                    copy.no_truncation()
                else:
                    copy.enable_truncation(max_length, direction=tokenizer.truncation_side)
                copy.encode_special_tokens = tokenizer.split_special_tokens
                recent = list(self._copies.items())[1 - _MAX_COPIES :]
                self._copies = dict([*recent, (key, copy)])
        return copy


def prompts_of_rows(
    model: SentenceTransformer, adapters: Sequence[AdapterWeights | None], prompt: str | None, prompt_name: str | None
) -> list[str]:
    """Return the prompt of each row: ``prompt``; else `scions.encoder.base_info.row_prompts` of that name.

    Raises:
        ValueError: the base, and an adapter, have none of that name (as sentence-transformers has it).
    """
    name = (prompt_name or model.default_prompt_name) if prompt is None else None
    prompts = row_prompts(adapters, name, model.prompts or {})
    if name is not None and prompts and None not in prompts:
        return [text or "" for text in prompts]
    base = model._resolve_prompt(prompt, prompt_name) or ""
    return [base if name is None or text is None else text for text in prompts]


def only_fast(module: Any) -> bool:
    """Return whether the module's text input is what its fast tokenizer gives and nothing else."""
    tokenizer = getattr(module, "tokenizer", None)
    return (
        bool(getattr(tokenizer, "is_fast", False))
        and not getattr(module, "processing_kwargs", None)
        and list(getattr(module, "modality_config", ["text"])) == ["text"]
    )


def _preprocessed(
    model: SentenceTransformer, texts: list[str], prompt: str, max_length: int | None
) -> tuple[list[list[int]], int]:
    before = model[0].max_seq_length
    if max_length is not None:
        model[0].max_seq_length = max_length
    try:
        features = model.preprocess(texts, prompt=prompt or None)
    finally:
        model[0].max_seq_length = before
    pairs = zip(features["input_ids"], features["attention_mask"], strict=True)
    rows = [ids[mask.bool()].tolist() for ids, mask in pairs]
    full = [i for i, row in enumerate(rows) if max_length is not None and len(row) >= max_length]
    if not full:
        return rows, 0
    whole = model.tokenizer([prompt + texts[i] for i in full], truncation=False, padding=False, verbose=False)
    return rows, sum(len(ids) > len(rows[i]) for i, ids in zip(full, whole["input_ids"], strict=True))
