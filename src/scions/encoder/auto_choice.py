"""An adapter chosen by the texts: the bare base's vectors of some of them, and what they decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scions.encoder.adapter_choice import adapter_rows, is_auto
from scions.encoder.base_info import document_adapter
from scions.errors import AdapterError, UsageError
from scions.routing.decision import AUTO, RoutingDecision, calibration_for, decide, decide_rows
from scions.routing.domains import Domains, unusable
from scions.routing.sample import RoutingSample, sample_rows

if TYPE_CHECKING:
    from scions.encoder.row_encoder import RowEncoder
    from scions.engine.adapter_weights import AdapterWeights


def route(encoder: RowEncoder, texts: str | Sequence[str], names: Sequence[str] | None = None) -> RoutingDecision:
    """See `DomainEncoder.route`."""
    rows = [texts] if isinstance(texts, str) else list(texts)
    if not rows:
        raise UsageError("no texts to decide by; give at least one")
    for row, text in enumerate(rows, 1):
        if not isinstance(text, str):
            raise UsageError(f"row {row} is a {type(text).__name__}; expected a text")
    adapters, domains = encoder.bank.domains(encoder.dimensions)
    if names is not None:
        domains = _among(names, adapters, encoder.dimensions)
    return RoutingDecision(None, 1.0) if domains is None else _decided(encoder, rows, domains)[0]


def chosen(
    encoder: RowEncoder, choice: Any, texts: Sequence[str], task: str | None, special: str
) -> tuple[list[AdapterWeights | None], RoutingSample | None]:
    """The adapter of each row, and where it was decided by the texts, what the decision looked at.

    The weights are of one moment: whatever is deleted afterwards, they can be computed with.

    Args:
        encoder: of the base.
        choice: as `scions.encoder.adapter_choice.adapter_rows` takes it, or ``"auto"`` or ``"auto-rows"``.
        texts: of the rows.
        task: ``"document"``: a query-side adapter that is decided on leaves these to the base.
        special: what only SentenceTransformer itself can do with them, which it does for the bare base.

    Raises:
        AdapterError: a name that is not loaded.
        UsageError: as `adapter_rows`, or something special with an adapter that is still to be decided.
    """
    if not is_auto(choice):
        return adapter_rows(choice, len(texts), encoder.bank.snapshot()), None
    if special:
        raise UsageError(f"{special}: only for the bare base; pass adapter=None")
    adapters, domains = encoder.bank.domains(encoder.dimensions)
    if domains is None or not texts:
        return [None] * len(texts), None
    if choice == AUTO:
        decision, looked = _decided(encoder, texts, domains)
        decisions = [decision] * len(texts)
    else:
        looked = _look(encoder, texts, range(len(texts)))
        decisions = decide_rows(looked.unit(), domains)
    found = [None if one.adapter is None else adapters[one.adapter] for one in decisions]
    if task == "document":
        found = [document_adapter(weights) for weights in found]
    return found, looked


def _decided(encoder: RowEncoder, texts: Sequence[str], domains: Domains) -> tuple[RoutingDecision, RoutingSample]:
    looked = _look(encoder, texts, sample_rows(len(texts)))
    return decide(looked.unit(), domains, calibration_for(len(looked.rows))), looked


def _look(encoder: RowEncoder, texts: Sequence[str], rows: Sequence[int]) -> RoutingSample:
    # As training makes a domain's statistics: no prompt, and the base's own length.
    ids, _ = encoder.tokens.tokenize(encoder.model, [texts[row] for row in rows], "", encoder.limit())
    empty = next((row for row, own in zip(rows, ids, strict=True) if not own), None)
    if empty is not None:
        raise UsageError(f"row {empty + 1} has no tokens")
    return RoutingSample(rows, ids, encoder.vectors(ids, [None] * len(ids), [1.0] * len(ids)))


def _among(names: Sequence[str], adapters: Mapping[str, AdapterWeights], dimensions: int) -> Domains | None:
    from scions.encoder.bank import find

    if isinstance(names, str):
        raise UsageError(f"adapters is the string {names!r}; expected a list of names")
    chosen = {name: find(adapters, name).domain for name in names}
    for name, domain in chosen.items():
        if unusable(domain, dimensions):
            raise AdapterError(
                f"adapter {name!r} cannot be chosen by its domain: its scions.json holds no domain statistics of "
                f"{dimensions} dimensions; train it anew to have them"
            )
    return Domains.of_routable(chosen, dimensions)
