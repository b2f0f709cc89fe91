"""Prometheus metrics of one server."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters of this server alone, whatever else runs in the process.

    Args:
        documents: Says how many documents and chunks there are.
    """

    def __init__(self, documents: Callable[[], tuple[int, int]]) -> None:
        self.registry = CollectorRegistry()
        labels = ("method", "route", "status")
        self.requests = Counter("m3rag_requests", "Requests answered", labels, registry=self.registry)
        self.seconds = Histogram(
            "m3rag_request_seconds", "Seconds to the first byte of the answer", ("route",), registry=self.registry
        )
        self.passes = Counter("m3rag_forward_passes", "Calls of the encoder", registry=self.registry)
        self.texts = Counter("m3rag_encoded_texts", "Texts that were encoded", registry=self.registry)
        self.registry.register(_Sizes(documents))

    def encoded(self, texts: int) -> None:
        """Count a call of the encoder."""
        self.passes.inc()
        self.texts.inc(texts)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self.registry)


class _Sizes(Collector):
    """Looked at only when asked for."""

    def __init__(self, documents: Callable[[], tuple[int, int]]) -> None:
        self._documents = documents

    def describe(self) -> Iterator[GaugeMetricFamily]:
        return iter(())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        documents, chunks = self._documents()
        yield GaugeMetricFamily("m3rag_documents", "Documents in the index", value=documents)
        yield GaugeMetricFamily("m3rag_chunks", "Chunks in the index", value=chunks)


class Measured:
    """ASGI middleware that counts requests by route, so that no client can make new labels."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and count it when its answer begins."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", None) or "other"
                method = scope["method"] if scope["method"] in METHODS else "other"
                self.metrics.requests.labels(method, route, str(message["status"])).inc()
                self.metrics.seconds.labels(route).observe(time.perf_counter() - began)
            await send(message)

        await self.app(scope, receive, sent)


METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS", "PUT", "PATCH"})
