"""Split texts in two near the middle, to score tables without labels."""

from __future__ import annotations

import re
from collections.abc import Iterable

from scions.errors import DataError

FEWEST_WORDS = 8
FEWEST_TEXTS = 20
_FEWEST_IN_HALF = 3
_SENTENCE_END = re.compile(r"[.!?…][\"')\]]*$")


def halves(texts: Iterable[str], source: str) -> tuple[list[str], list[str]]:
    """Return first and second halves of the distinct texts of at least 8 words.

    Raises DataError where fewer than 20 such texts remain.
    """
    long = [words for text in dict.fromkeys(texts) if len(words := text.split()) >= FEWEST_WORDS]
    if len(long) < FEWEST_TEXTS:
        raise DataError(
            f"{source}: {len(long)} distinct texts have {FEWEST_WORDS} words or more, and scoring plain texts by their "
            f"halves needs {FEWEST_TEXTS}. Give more texts, or labelled files as `dev=...` and `test=...`"
        )
    cuts = [cut_place(words) for words in long]
    return (
        [" ".join(words[:cut]) for words, cut in zip(long, cuts, strict=True)],
        [" ".join(words[cut:]) for words, cut in zip(long, cuts, strict=True)],
    )


def cut_place(words: list[str]) -> int:
    """Return the number of words before the cut: at the sentence end nearest the middle, else in the middle.

    A sentence end that would leave fewer than three words on a side does not count.

    >>> cut_place("One two three. Four five six seven eight nine ten".split())
    3
    >>> cut_place("One two three four five six seven eight".split())
    4
    """
    middle = len(words) // 2
    ends = [
        place
        for place in range(_FEWEST_IN_HALF, len(words) - _FEWEST_IN_HALF + 1)
        if _SENTENCE_END.search(words[place - 1])
    ]
    return min(ends, key=lambda place: (abs(place - middle), place), default=middle)
