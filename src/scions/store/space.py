"""Fingerprint vector spaces: only vectors of one space may be compared."""

from __future__ import annotations

import hashlib
import json
import math

from scions.errors import ScionsError, UsageError


def space_fingerprint(
    base_sha: str,
    adapter_sha: str | None,
    strength: float = 1.0,
    *,
    pooling: str,
    dimensions: int,
) -> str:
    """Return sixteen hex digits that name the space of an encoder's vectors.

    Args:
        base_sha: `base_fingerprint` of the base's weights.
        adapter_sha: `adapter_fingerprint` of the adapter's weights; None for the bare base, whose space does not
            depend on `strength`.
        strength: factor on the adapter's contribution; 1.0 is the adapter as trained.
        pooling: how token vectors become one (`mean`, `cls`, `lasttoken`, ...).
        dimensions: length of the vectors, after any truncation.

    Raises:
        UsageError: `strength` is not finite or `dimensions` not positive.
    """
    if not math.isfinite(strength):
        raise UsageError(f"strength is {strength}; a finite number is needed")
    if isinstance(dimensions, bool) or not isinstance(dimensions, int) or dimensions < 1:
        raise UsageError(f"dimensions is {dimensions!r}; a whole number from 1 up is needed")
    factor = None if adapter_sha is None else float(strength) + 0.0  # + 0.0 makes -0.0 the same as 0.0
    parts = [base_sha, adapter_sha, factor, pooling, dimensions]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def check_same_space(a: str, b: str, *, a_name: str = "the first", b_name: str = "the second") -> None:
    """Raise ScionsError where two fingerprints differ; the names are for the message."""
    if a != b:
        raise ScionsError(
            f"{a_name} and {b_name} are vectors of different spaces ({a} and {b}): their similarities mean "
            "nothing. Encode both with the same base, adapter, strength, pooling and number of dimensions."
        )
