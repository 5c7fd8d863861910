"""Choose adapters by the texts: encode some of them with the bare base, and decide by the training domains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from scions.encoder.adapter_choice import adapter_rows, is_auto
from scions.encoder.bank import AdapterBank, find
from scions.encoder.base_info import document_adapter
from scions.encoder.row_engine import RowEngine
from scions.encoder.tokenization import RowTokenizer
from scions.engine.adapter_weights import AdapterWeights
from scions.errors import AdapterError, UsageError
from scions.routing.decision import AUTO, RoutingDecision, calibration_for, decide, decide_rows
from scions.routing.domains import Domains, unusable
from scions.routing.sample import RoutingSample, sample_rows


class AutoChoice:
    """The routing of one encoder: ``adapter="auto"``, ``adapter="auto-rows"`` and `DomainEncoder.route`."""

    def __init__(self, engine: RowEngine, tokenizer: RowTokenizer, bank: AdapterBank) -> None:
        self.engine, self.tokenizer, self.bank = engine, tokenizer, bank

    def route(self, texts: str | Sequence[str], names: Sequence[str] | None = None) -> RoutingDecision:
        """See `DomainEncoder.route`."""
        rows = [texts] if isinstance(texts, str) else list(texts)
        if not rows:
            raise UsageError("no texts to decide by; give at least one")
        for row, text in enumerate(rows, 1):
            if not isinstance(text, str):
                raise UsageError(f"row {row} is a {type(text).__name__}; expected a text")
        adapters, domains = self.bank.domains(self.engine.dimensions)
        if names is not None:
            domains = _domains_of(names, adapters, self.engine.dimensions)
        return RoutingDecision(None, 1.0) if domains is None else self._decide(rows, domains)[0]

    def adapter_rows(
        self, choice: object, texts: Sequence[str], task: str | None
    ) -> tuple[list[AdapterWeights | None], RoutingSample[Tensor] | None]:
        """Return the adapter of each row, and where the texts decided, the sample that decided.

        The weights are of one moment: whatever is deleted afterwards, they can be computed with.

        Args:
            choice: as `scions.encoder.adapter_choice.adapter_rows` takes it, or ``"auto"`` or ``"auto-rows"``.
            texts: of the rows.
            task: ``"document"``: query-side adapters leave the texts to the base.

        Raises:
            AdapterError: a name that is not loaded.
            UsageError: as `adapter_rows`.
        """
        sample = None
        if is_auto(choice):
            adapters, domains = self.bank.domains(self.engine.dimensions)
            if domains is None or not texts:
                return [None] * len(texts), None
            if choice == AUTO:
                decision, sample = self._decide(texts, domains)
                decisions = [decision] * len(texts)
            else:
                sample = self._sample(texts, range(len(texts)))
                decisions = decide_rows(sample.unit(), domains)
            weights = [None if decision.adapter is None else adapters[decision.adapter] for decision in decisions]
        else:
            weights = adapter_rows(choice, len(texts), self.bank.snapshot())
        return ([document_adapter(w) for w in weights] if task == "document" else weights), sample

    def _decide(self, texts: Sequence[str], domains: Domains) -> tuple[RoutingDecision, RoutingSample[Tensor]]:
        sample = self._sample(texts, sample_rows(len(texts)))
        return decide(sample.unit(), domains, calibration_for(len(sample.rows))), sample

    def _sample(self, texts: Sequence[str], rows: Sequence[int]) -> RoutingSample[Tensor]:
        ids, _ = self.tokenizer.tokenize([texts[row] for row in rows], "", self.tokenizer.limit())
        empty = next((row for row, row_ids in zip(rows, ids, strict=True) if not row_ids), None)
        if empty is not None:
            raise UsageError(f"row {empty + 1} has no tokens")
        return RoutingSample(rows, ids, self.engine.encode(ids, [None] * len(ids), [1.0] * len(ids)))


def _domains_of(names: Sequence[str], adapters: Mapping[str, AdapterWeights], dimensions: int) -> Domains | None:
    if isinstance(names, str):
        raise UsageError(f"adapters is the string {names!r}; expected a list of names")
    domains = {name: find(adapters, name).domain for name in names}
    for name, domain in domains.items():
        if unusable(domain, dimensions):
            raise AdapterError(
                f"adapter {name!r} cannot be chosen by its domain: its scions.json holds no domain statistics of "
                f"{dimensions} dimensions; train it anew to have them"
            )
    return Domains.of_routable(domains, dimensions)
