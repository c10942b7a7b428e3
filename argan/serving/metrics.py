"""Prometheus metrics of `argan serve`: requests by domain, job and status, their time, and how many wait or run."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from argan.serving.workers import Pool

LATENCY_BUCKETS = (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)  # seconds
CLIENT_LEFT = 499  # the status counted where the client left before there was an answer


class Metrics:
    """The numbers of one server."""

    def __init__(self, pool: Pool) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("argan_requests", "Requests", ["what", "domain", "status"], registry=self.registry)
        self.seconds = Histogram(
            "argan_request_seconds", "Time of requests", ["what"], buckets=LATENCY_BUCKETS, registry=self.registry
        )
        waiting = Gauge("argan_waiting", "Requests that wait for a worker", registry=self.registry)
        running = Gauge("argan_running", "Requests that are worked on", registry=self.registry)
        waiting.set_function(lambda: pool.waiting)
        running.set_function(lambda: pool.running)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class RequestMetrics:
    """Counts every answer, and how long the good ones took.

    route: domain and job of a request, by its scope, or two empty texts. Both become labels, of which each value is kept for as
    long as the server runs: they must come from a short list, never from the path as it was sent.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, route: Callable[[Scope], tuple[str, str]]) -> None:
        self.app, self.metrics, self.route = app, metrics, route

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, counted = time.perf_counter(), CLIENT_LEFT, False
        domain, job = self.route(scope)

        def count() -> None:
            nonlocal counted
            if not counted:
                counted = True
                self.metrics.requests.labels(job, domain, status).inc()
                if job and status == 200:
                    self.metrics.seconds.labels(job).observe(time.perf_counter() - start)

        async def counting_send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                count()  # before the client knows that it is answered, and may ask for the numbers
            await send(message)

        try:
            await self.app(scope, receive, counting_send)
        finally:
            count()
