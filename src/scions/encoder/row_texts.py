"""Texts of rows to tokens of rows: each row with its adapter's prompt and length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scions.encoder.adapter_weights import AdapterWeights
from scions.encoder.row_tokens import RowTokenizer
from scions.encoder.stack import capacity

# Beyond this a tokeniser's longest input only says that it knows none.
_NO_LIMIT = 10**9


def limit_of(model: Any, task: str | None = None) -> int | None:
    """Tokens of a text that the base reads, for a ``task`` (``query``, ``document``) where it has one for that."""
    limit = getattr(model[0], f"{task}_length", None) or model.max_seq_length
    stated = int(limit) if limit and limit < _NO_LIMIT else None
    # Of RoBERTa's kind, config and tokeniser count two more than there are positions for tokens.
    positions = capacity(getattr(model[0], "auto_model", None))
    return min((one for one in (stated, positions) if one is not None), default=None)


def row_prompts(
    model: Any, adapters: Sequence[AdapterWeights | None], prompt: str | None, prompt_name: str | None
) -> list[str]:
    """The prompt of each row: ``prompt``; else the adapter's own of that name; else the base's.

    Raises:
        ValueError: the base, and an adapter, have none of that name (as sentence-transformers has it).
    """
    name = (prompt_name or model.default_prompt_name) if prompt is None else None
    own = [None if name is None or adapter is None else adapter.prompts.get(name) for adapter in adapters]
    if own and None not in own:
        return [str(text) for text in own]
    base = model._resolve_prompt(prompt, prompt_name) or ""
    return [base if text is None else text for text in own]


def row_limits(
    adapters: Sequence[AdapterWeights | None], limit: int | None, most: int | None, own: bool
) -> list[int | None]:
    """Tokens read of each row: where ``own``, what its adapter was trained with; else, or unknown, ``limit``.

    ``most``: what the base has positions for.
    """
    wanted = [adapter.max_length if own and adapter is not None else None for adapter in adapters]
    return [min(one, most) if one and most else one or limit for one in wanted]


def row_tokens(
    model: Any, tokenizer: RowTokenizer, texts: Sequence[str], prompts: Sequence[str], limits: Sequence[int | None]
) -> tuple[list[list[int]], list[int]]:
    """Token ids of each row, and how many of them are its prompt's where the model's pooling leaves that out.

    Args:
        model: a SentenceTransformer.
        tokenizer: does the work.
        texts: of each row.
        prompts: of each row.
        limits: of each row, in tokens.
    """
    groups: dict[tuple[str, int | None], list[int]] = {}
    for i, key in enumerate(zip(prompts, limits, strict=True)):
        groups.setdefault(key, []).append(i)
    ids: list[list[int]] = [[]] * len(texts)
    lengths = [0] * len(texts)
    left_out = any(not getattr(module, "include_prompt", True) for module in model)
    for (prompt, limit), rows in groups.items():
        found, _ = tokenizer.tokenize(model, [texts[i] for i in rows], prompt, limit)
        size = _prompt_length(model, tokenizer, prompt) if prompt and left_out else 0
        for i, one in zip(rows, found, strict=True):
            ids[i], lengths[i] = one, size
    return ids, lengths


def _prompt_length(model: Any, tokenizer: RowTokenizer, prompt: str) -> int:
    """Tokens of the prompt, without a special one behind it."""
    (ids,), _ = tokenizer.tokenize(model, [prompt])
    return len(ids) - (ids[-1] in model.tokenizer.all_special_ids)
