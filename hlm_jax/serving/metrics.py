"""Counts and times in the text format of Prometheus; every app has a registry of its own."""

import functools
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from jax import monitoring
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
COMPILED = "/jax/core/compile/backend_compile_duration"  # told of every program once


class Reading(NamedTuple):
    """A value that something else keeps.

    Attributes:
      values: by the model's name; "" for the whole server.
      total: whether it only grows.
    """

    name: str
    what: str
    values: Mapping[str, float]
    total: bool = False


class Compilations:
    """How many programs this process made ready, compiled or read from JAX's cache on disk."""

    def __init__(self) -> None:
        self.total = 0
        self._lock = threading.Lock()
        monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **_: str | int) -> None:
        if event == COMPILED:
            with self._lock:
                self.total += 1


@functools.cache
def compilations() -> Compilations:
    """The one count of this process, from the first call on."""
    return Compilations()


class Metrics:
    """What GET /metrics shows.

    Args:
      readings: gives the values of this moment; called for every answer.
    """

    def __init__(self, readings: Callable[[], list[Reading]]):
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "hlm_requests",
            "Requests answered, by route and status; 499: the client left",
            ["route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "hlm_request_seconds",
            "From a request to the end of its answer",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "hlm_first_token_seconds",
            "From a request for completions to its first token",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.prompt_tokens = Counter(
            "hlm_prompt_tokens", "Tokens of the prompts that were read", registry=self.registry
        )
        self.generated_tokens = Counter(
            "hlm_generated_tokens", "Tokens that were answered", registry=self.registry
        )
        self.registry.register(_Readings(readings))

    def text(self) -> bytes:
        """The text format, version 0.0.4."""
        return generate_latest(self.registry)


class _Readings(Collector):
    def __init__(self, readings: Callable[[], list[Reading]]):
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        for name, what, values, total in self._readings():
            labels = [] if list(values) == [""] else ["model"]
            family = (CounterMetricFamily if total else GaugeMetricFamily)(name, what, None, labels)
            for model, value in values.items():
                family.add_metric([model] if labels else [], value)
            yield family
