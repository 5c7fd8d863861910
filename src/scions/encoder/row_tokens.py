"""Texts to token ids, from many threads at once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

_KEPT = 8


class RowTokenizer:
    """Tokenises for a SentenceTransformer, cut at a length of one's choice.

    A tokeniser of transformers keeps padding and truncation as its state, so two threads must not use one together.
    Where the fast one does all the work, each length gets a copy of it that is never changed; where there is more to
    it (a chat template, options of the module, one written in Python), the model's own ``preprocess`` is called,
    one thread at a time.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._copies: dict[tuple[int, int, str, int | None], Any] = {}

    def tokenize(
        self, model: Any, texts: Sequence[str], prompt: str = "", max_length: int | None = None
    ) -> tuple[list[list[int]], int]:
        """Token ids of each text with its special tokens, and how many texts were cut.

        Args:
            model: a SentenceTransformer.
            texts: any strings.
            prompt: stands before each text.
            max_length: in tokens, special ones included; None: uncut.
        """
        if not texts:
            return [], 0
        if not only_fast(model[0]):
            with self.lock:
                return _preprocessed(model, list(texts), prompt, max_length)
        copy = self._copy(model.tokenizer, max_length)
        encodings = copy.encode_batch_fast([prompt + text for text in texts] if prompt else list(texts))
        return [encoding.ids for encoding in encodings], sum(bool(encoding.overflowing) for encoding in encodings)

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
                kept = list(self._copies.items())[1 - _KEPT :]
                self._copies = dict([*kept, (key, copy)])
        return copy


def only_fast(module: Any) -> bool:
    """Whether the module's text input is what its fast tokeniser gives and nothing else."""
    tokenizer = getattr(module, "tokenizer", None)
    return (
        bool(getattr(tokenizer, "is_fast", False))
        and not getattr(module, "processing_kwargs", None)
        and list(getattr(module, "modality_config", ["text"])) == ["text"]
    )


def _preprocessed(model: Any, texts: list[str], prompt: str, max_length: int | None) -> tuple[list[list[int]], int]:
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
