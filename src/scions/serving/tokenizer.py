"""Tokenize requests in one thread, a slice at a time, so that a large request delays nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from scions.encoder.base_info import BaseInfo, Weights, row_prompts, rows_by_key
from scions.serving.errors import invalid, too_large
from scions.serving.http.requests import EmbeddingsRequest
from scions.serving.workers import RowBatchEncoder

_SLICE_ROWS, _SLICE_CHARACTERS = 128, 100_000
# A long text is first cut to so many characters for each token that is read, which is enough for nearly every text.
_CHARACTERS_PER_TOKEN = 32


class RequestTokenizer:
    """Token ids of requests, at most ``max_tokens`` each, all rows together.

    Slices of different requests alternate in one thread.
    """

    def __init__(self, encoder: RowBatchEncoder, base_info: BaseInfo, max_tokens: int) -> None:
        self._encoder, self._base, self._max_tokens = encoder, base_info, max_tokens
        # A tokenizer that cuts at the start of a text needs all of it.
        self._cuts_the_end = getattr(encoder.tokenizer, "truncation_side", "right") == "right"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scions-tokenize")

    async def rows(self, request: EmbeddingsRequest, adapters: Sequence[Weights | None]) -> tuple[list[list[int]], int]:
        """Return the token ids of every row, special tokens included, and how many texts were cut.

        Raises:
            ApiError: 400, a row has no tokens or wrong ones, or there is no such prompt.
        """
        texts = request.texts
        if texts is None:
            return self._checked_ids(request), 0
        limits = [self._base.limit(adapter) for adapter in adapters]
        ids, cut = await self.tokenize(texts, self._prompts(request.prompt, adapters), limits)
        return _not_empty(ids, range(len(texts))), cut

    async def base_rows(self, request: EmbeddingsRequest, rows: Sequence[int]) -> list[list[int]]:
        """Return the token ids of some rows as domain statistics are made of: no prompt, and the base's own length.

        Raises:
            ApiError: 400, a row has no tokens or wrong ones; 413, they have too many.
        """
        texts = request.texts
        if texts is None:
            checked = self._checked_ids(request)
            ids = [checked[row] for row in rows]
        else:
            limits = [self._base.max_length] * len(rows)
            ids, _ = await self.tokenize([texts[row] for row in rows], [""] * len(rows), limits)
            ids = _not_empty(ids, rows)
        self.check_total(sum(map(len, ids)))
        return ids

    async def tokenize(
        self, texts: Sequence[str], prompts: Sequence[str], limits: Sequence[int]
    ) -> tuple[list[list[int]], int]:
        """Return the token ids of texts with their prompts, and how many were cut to their limit of tokens."""
        loop = asyncio.get_running_loop()
        ids: list[list[int]] = [[]] * len(texts)
        cut = 0
        for (prompt, limit), rows in rows_by_key(zip(prompts, limits, strict=True)).items():
            for part in _slices(texts, rows):
                part_texts = [texts[row] for row in part]
                part_ids, part_cut = await loop.run_in_executor(self._thread, self._slice, part_texts, prompt, limit)
                cut += part_cut
                for row, tokens in zip(part, part_ids, strict=True):
                    ids[row] = tokens
        return ids, cut

    def check_total(self, tokens: int) -> None:
        """Raise ApiError, 413, where a request has too many tokens."""
        if tokens > self._max_tokens:
            raise too_large(f"input has {tokens} tokens, at most {self._max_tokens} are allowed")

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _prompts(self, name: str | None, adapters: Sequence[Weights | None]) -> list[str]:
        prompts = row_prompts(adapters, name or self._base.default_prompt, self._base.prompts)
        if name is not None and None in prompts:
            known = ", ".join(map(repr, self._base.prompts)) or "none"
            raise invalid("prompt", f"there is none of that name for row {prompts.index(None)}; the base has {known}")
        return [prompt or "" for prompt in prompts]

    def _checked_ids(self, request: EmbeddingsRequest) -> list[list[int]]:
        base, ids = self._base, request.token_ids
        if request.prompt is not None:
            raise invalid("prompt", "input is token ids already")
        for row, tokens in enumerate(ids):
            if len(tokens) > base.max_length:
                raise invalid("input", f"{len(tokens)} token ids, the base reads at most {base.max_length}", row)
            if max(tokens) >= base.vocabulary:
                problem = f"token id {max(tokens)}, the base's tokenizer has ids below {base.vocabulary}"
                raise invalid("input", f"{problem}; send texts, or ids of that tokenizer", row)
        return ids

    def _slice(self, texts: list[str], prompt: str, limit: int) -> tuple[list[list[int]], int]:
        length = _CHARACTERS_PER_TOKEN * limit
        long = [index for index, text in enumerate(texts) if len(text) > length] if self._cuts_the_end else []
        if not long:
            return self._encoder.tokenize_rows(texts, prompt, limit)
        # A book would delay everybody for tokens of which only the first few hundred are used.
        short = [text[:length] for text in texts]
        ids, cut = self._encoder.tokenize_rows(short, prompt, limit)
        for index in long:
            was_cut = self._encoder.tokenize_rows([short[index]], prompt, limit)[1]
            if not was_cut:  # its first characters were too few tokens, being spaces, for example
                ids[index : index + 1], was_cut = self._encoder.tokenize_rows([texts[index]], prompt, limit)
                cut += was_cut
        return ids, cut


def _slices(texts: Sequence[str], rows: Sequence[int]) -> Iterator[list[int]]:
    part: list[int] = []
    characters = 0
    for row in rows:
        if part and (len(part) == _SLICE_ROWS or characters + len(texts[row]) > _SLICE_CHARACTERS):
            yield part
            part, characters = [], 0
        part.append(row)
        characters += len(texts[row])
    yield part


def _not_empty(ids: list[list[int]], rows: Sequence[int]) -> list[list[int]]:
    if not all(ids):
        raise invalid("input", "has no tokens", rows[ids.index([])])
    return ids
