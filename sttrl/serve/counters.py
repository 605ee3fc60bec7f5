"""The numbers of ``/metrics``, in Prometheus' format."""

from __future__ import annotations

import time
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from sttrl.serve.desk import Desk, Result
from sttrl.serve.jobs import Job

BUCKETS = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)


class Counters:
    """Counts requests, tokens and seconds since the endpoint started."""

    def __init__(self, desk: Desk) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("sttrl_requests_total", "Requests that ended", ["model", "status"], registry=self.registry)
        self.tokens = Counter("sttrl_tokens_total", "Response tokens", ["use"], registry=self.registry)
        self.steps = Counter("sttrl_steps_total", "Steps of adapting", registry=self.registry)
        self.seconds = Histogram("sttrl_request_seconds", "Seconds of a request", ["policy"], buckets=BUCKETS, registry=self.registry)
        shown: dict[str, tuple[str, Callable[[], float]]] = {
            "sttrl_adapting": ("Requests that adapt", lambda: desk.adapting),
            "sttrl_waiting": ("Requests that wait for a seat", lambda: desk.waiting),
            "sttrl_sampling": ("Requests that only sample", lambda: desk.sampling),
            "sttrl_seats": ("Seats for requests that adapt", lambda: desk.seats),
            "sttrl_forks": ("Forks that the learners hold", lambda: desk.session.lanes.forks),
            "sttrl_engine_starts": ("How often the engine was started", lambda: desk.session.lanes.starts),
        }
        for name, (help_text, value) in shown.items():
            Gauge(name, help_text, registry=self.registry).set_function(value)

    def count(self, job: Job, status: int, result: Result | None) -> None:
        """A job has ended. Its model is named only if it is no kept adapter."""
        model = job.order.model if job.order.kept is None else "sttrl/*"
        self.requests.labels(model, str(status)).inc()
        self.seconds.labels(job.order.policy).observe(time.time() - job.created)
        if result is not None:
            for use, tokens in {**result.spent, "answer": sum(len(r.token_T) for r in result.rollouts)}.items():
                self.tokens.labels(use).inc(tokens)
            self.steps.inc(result.about.get("steps", 0))

    def text(self) -> bytes:
        """All numbers as text."""
        return generate_latest(self.registry)
