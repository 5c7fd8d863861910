"""A text cut in two near its middle: what stands in for labels where a table has none."""

from __future__ import annotations

import re
from collections.abc import Iterable

from scions.errors import DataError

FEWEST_WORDS = 8
FEWEST_TEXTS = 20
_FEWEST_IN_HALF = 3
_SENTENCE_END = re.compile(r"[.!?…][\"')\]]*$")


def halves(texts: Iterable[str], source: str) -> tuple[list[str], list[str]]:
    """First and second halves of the distinct texts of at least 8 words.

    Raises DataError where fewer than 20 such texts remain.
    """
    kept = [words for text in dict.fromkeys(texts) if len(words := text.split()) >= FEWEST_WORDS]
    if len(kept) < FEWEST_TEXTS:
        raise DataError(
            f"{source}: {len(kept)} distinct texts have {FEWEST_WORDS} words or more, and scoring plain texts by their "
            f"halves needs {FEWEST_TEXTS}. Give more texts, or labelled files with --dev and --test."
        )
    cuts = [cut_place(words) for words in kept]
    return (
        [" ".join(words[:cut]) for words, cut in zip(kept, cuts, strict=True)],
        [" ".join(words[cut:]) for words, cut in zip(kept, cuts, strict=True)],
    )


def cut_place(words: list[str]) -> int:
    """Number of words before the cut: at the sentence end nearest the middle, else the middle itself.

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
