"""Prometheus metrics of one server, in their own registry."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from scions.serving.adapter_cache import AdapterCache
from scions.serving.batcher import BatchReport

OTHER = "(other)"
# Prometheus stores one series for each label value and never drops it: the first adapters in use get one each, the
# rest share OTHER. Counters must not fall, so a label never passes to another adapter.
MAX_ADAPTER_LABELS = 100
_METHODS = ("GET", "POST", "DELETE", "HEAD", "OPTIONS", "PUT", "PATCH")
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counters and histograms of one server."""

    def __init__(self, adapter_cache: AdapterCache) -> None:
        self.registry = CollectorRegistry()
        self.registry.register(_CacheCollector(adapter_cache))
        counter, gauge = partial(Counter, registry=self.registry), partial(Gauge, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)
        self._requests = counter("scions_requests", "Requests answered.", ("route", "method", "status"))
        self._seconds = histogram("scions_request_seconds", "Time to answer.", ("route",), buckets=_SECONDS)
        self._rows = counter("scions_rows", "Rows encoded.", ("adapter",))
        self._tokens = counter("scions_tokens", "Tokens encoded.", ("adapter",))
        self._decisions = counter("scions_auto_decisions", "Decisions for auto and auto-rows.", ("outcome",))
        self._cut = counter("scions_truncated_rows", "Texts cut to the base's length.")
        self._waited = histogram("scions_queue_seconds", "Time from queueing to the first batch.", buckets=_SECONDS)
        tenths, powers = [n / 10 for n in range(1, 11)], [2**n for n in range(11)]
        self._fill = histogram("scions_batch_fill", "Tokens of a batch over its limit.", buckets=tenths)
        self._batch_rows = histogram("scions_batch_rows", "Rows of a batch.", buckets=powers)
        self.queued = gauge("scions_queue_rows", "Rows waiting or being encoded.")
        self.connections = gauge("scions_connections", "Open connections.")
        self._labels: set[str] = set()

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request; ``route`` is the pattern of its path."""
        self._requests.labels(route, method if method in _METHODS else OTHER, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def encoded(self, adapter: str | None, rows: int, tokens: int) -> None:
        """Count rows encoded with an adapter, None for the base."""
        label = self._label(adapter)
        self._rows.labels(label).inc(rows)
        self._tokens.labels(label).inc(tokens)

    def decided(self, adapters: int, base: int) -> None:
        """Count decisions for an adapter and for the base."""
        self._decisions.labels("adapter").inc(adapters)
        self._decisions.labels("base").inc(base)

    def truncated(self, rows: int) -> None:
        """Count texts that were cut."""
        self._cut.inc(rows)

    def batch(self, report: BatchReport) -> None:
        """Count a batch."""
        self._fill.observe(report.fill)
        self._batch_rows.observe(report.rows)
        for seconds in report.waited:
            self._waited.observe(seconds)

    def text(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self.registry)

    def _label(self, adapter: str | None) -> str:
        if adapter is None:
            return "base"
        if adapter not in self._labels:
            if len(self._labels) >= MAX_ADAPTER_LABELS:
                return OTHER
            self._labels.add(adapter)
        return adapter


class _CacheCollector(Collector):
    """Read the counts of an `AdapterCache` when Prometheus asks."""

    def __init__(self, adapter_cache: AdapterCache) -> None:
        self._cache = adapter_cache

    def collect(self) -> Iterator[Metric]:
        cache = self._cache
        yield CounterMetricFamily("scions_adapter_hits", "Adapters found in memory.", value=cache.hits)
        yield CounterMetricFamily("scions_adapter_misses", "Adapters read from disk.", value=cache.misses)
        yield CounterMetricFamily("scions_adapter_evictions", "Adapters evicted for others.", value=cache.evictions)
        yield GaugeMetricFamily("scions_adapters_registered", "Adapters that can be used.", value=cache.registered)
        yield GaugeMetricFamily("scions_adapters_bytes", "Memory of loaded adapters.", value=cache.loaded_bytes)
