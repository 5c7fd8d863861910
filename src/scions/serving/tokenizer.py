"""Texts to token ids in a thread of their own, a slice at a time, so that one client's heap holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from scions.serving.protocols import RowBatchEncoder

_SLICE_ROWS, _SLICE_CHARACTERS = 128, 100_000
# Read first of a text, for each token that the encoder takes: nearly every text is cut long before.
_CHARACTERS_A_TOKEN = 32


class RequestTokenizer:
    """Tokenises for all requests in one thread: slices of different requests take turns."""

    def __init__(self, encoder: RowBatchEncoder) -> None:
        self._encoder = encoder
        # A tokeniser that cuts at the start of a text needs all of it.
        self._by_head = getattr(encoder.tokenizer, "truncation_side", "right") == "right"
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scions-tokenise")

    async def rows(
        self, texts: Sequence[str], prompts: Sequence[str], limits: Sequence[int]
    ) -> tuple[list[list[int]], int]:
        """Token ids of every text, special tokens included, and how many texts were cut.

        Args:
            texts: of each row.
            prompts: what is put before each text.
            limits: tokens that are read of each.
        """
        loop = asyncio.get_running_loop()
        groups: dict[tuple[str, int], list[int]] = {}
        for row, key in enumerate(zip(prompts, limits, strict=True)):
            groups.setdefault(key, []).append(row)
        ids: list[list[int]] = [[]] * len(texts)
        cut = 0
        for (prompt, limit), rows in groups.items():
            for part in _slices(texts, rows):
                some = [texts[row] for row in part]
                found, shortened = await loop.run_in_executor(self._thread, self._some, some, prompt, limit)
                cut += shortened
                for row, tokens in zip(part, found, strict=True):
                    ids[row] = tokens
        return ids, cut

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _some(self, texts: list[str], prompt: str, limit: int) -> tuple[list[list[int]], int]:
        head = _CHARACTERS_A_TOKEN * limit
        long = [at for at, text in enumerate(texts) if len(text) > head] if self._by_head else []
        if not long:
            return self._encoder.tokenize_rows(texts, prompt, limit)
        # A book would keep everybody waiting for tokens of which only the first few hundred are used.
        short = [text[:head] for text in texts]
        ids, cut = self._encoder.tokenize_rows(short, prompt, limit)
        for at in long:
            was_cut = self._encoder.tokenize_rows([short[at]], prompt, limit)[1]
            if not was_cut:  # its head was not enough: spaces, say
                ids[at : at + 1], was_cut = self._encoder.tokenize_rows([texts[at]], prompt, limit)
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
