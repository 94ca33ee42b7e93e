"""What the server counts, for Prometheus: requests, errors, queue, batches, padding and time by stage.

A registry of its own, so that an embedding program's metrics stay apart. Labels take their values from what is served
and from the routes, never from what a client sends: a stranger cannot make the page grow.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from edgetune.serve.batcher import BatchRun
from edgetune.serve.http.errors import kind_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

# Gauges are read when somebody asks: (name, help, {model: value}).
Gauge = tuple[str, str, dict[str, float]]


@dataclass(frozen=True)
class Counts:
    """What was counted of one model: requests answered and refused, texts, runs, and (count, seconds) by stage."""

    answered: float
    refused: float
    texts: float
    runs: float
    stages: dict[str, tuple[float, float]]


class Metrics:
    """The metrics of one server process.

    Args:
        multiprocess_folder: where several workers of one server keep their values (the environment variable
            PROMETHEUS_MULTIPROC_DIR must name it before this module is imported); the page then adds all workers'
            counts, while gauges are those of the worker that answers.
    """

    def __init__(self, *, multiprocess_folder: str | None = None) -> None:
        self._folder = multiprocess_folder
        registry = CollectorRegistry()
        self._registry = registry
        self._gauges = _Gauges()
        self._requests = Counter(
            "edgetune_requests", "Requests answered.", ("model", "route", "status"), registry=registry
        )
        self._errors = Counter(
            "edgetune_errors", "Requests refused or failed, by kind.", ("model", "route", "kind"), registry=registry
        )
        self._stages = Histogram(
            "edgetune_stage_seconds",
            "Time of a request by stage: parse, tokenize, queue, run, first_token, total (first byte to last).",
            ("model", "stage"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._batches = Histogram(
            "edgetune_batch_texts", "Texts in one run of the graph.", ("model",), buckets=_TEXTS, registry=registry
        )
        self._tokens = Counter(
            "edgetune_tokens",
            "Tokens run: real ones, and padding, which is waste.",
            ("model", "kind"),
            registry=registry,
        )
        self._answer_tokens = Counter(
            "edgetune_generation_tokens",
            "Tokens of prompts that were answered, of the answers that were generated, and of these those that were "
            "guessed ahead and accepted.",
            ("model", "kind"),
            registry=registry,
        )
        self._texts = Counter("edgetune_texts", "Texts run.", ("model",), registry=registry)
        self._arms = Histogram(
            "edgetune_arm_seconds",
            "Whole time of requests to a split, by the arm that answered; its count is the arm's requests.",
            ("arm", "status"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._shadows = Counter(
            "edgetune_shadow_answers",
            "Requests that a shadow was to answer too: agreed, differed, not_compared, failed or dropped.",
            ("model", "outcome"),
            registry=registry,
        )
        self._request_counts: dict[tuple[str, str, int], tuple[Counter, Counter | None, Histogram]] = {}
        self._stage_times: dict[tuple[str, str], Histogram] = {}
        self._runs: dict[str, tuple[Histogram, Counter, Counter, Counter, Histogram, Histogram]] = {}

    def observe_request(self, model: str, route: str, status: int, seconds: float) -> None:
        """Count one request with its status and its whole time."""
        key = (model, route, status)
        counts = self._request_counts.get(key)
        if counts is None:
            errors = self._errors.labels(model, route, kind_of(status)) if status >= 400 else None
            counts = (self._requests.labels(model, route, str(status)), errors, self._stages.labels(model, "total"))
            self._request_counts[key] = counts
        requests, errors, total = counts
        requests.inc()
        if errors is not None:
            errors.inc()
        if model:
            total.observe(seconds)

    def observe_arm(self, arm: str, status: int, seconds: float) -> None:
        """Count one request to a split, and its whole time, by the arm that answered."""
        self._arms.labels(arm, str(status)).observe(seconds)

    def observe_shadow(self, model: str, outcome: str) -> None:
        """Count what became of one request that a shadow was to answer too."""
        self._shadows.labels(model, outcome).inc()

    def observe_stage(self, model: str, stage: str, seconds: float) -> None:
        """Count the time of one stage of a request."""
        key = (model, stage)
        times = self._stage_times.get(key)
        if times is None:
            times = self._stage_times[key] = self._stages.labels(model, stage)
        times.observe(seconds)

    def observe_run(self, model: str, run: BatchRun) -> None:
        """Count one run of the graph; called in the thread that ran it."""
        counts = self._runs.get(model)
        if counts is None:
            counts = self._runs[model] = (
                self._batches.labels(model),
                self._texts.labels(model),
                self._tokens.labels(model, "real"),
                self._tokens.labels(model, "padding"),
                self._stages.labels(model, "queue"),
                self._stages.labels(model, "run"),
            )
        batches, texts, real, padding, queue, seconds = counts
        batches.observe(run.texts)
        texts.inc(run.texts)
        real.inc(run.tokens)
        padding.inc(run.padded_tokens - run.tokens)
        for waited in run.waited_seconds:
            queue.observe(waited)
        seconds.observe(run.seconds)

    def observe_answer(
        self, model: str, *, prompt_tokens: int, answer_tokens: int, guessed_tokens: int = 0, accepted_tokens: int = 0
    ) -> None:
        """Count the tokens of one generated answer, whole or broken off; guesses only where there were any."""
        self._answer_tokens.labels(model, "prompt").inc(prompt_tokens)
        self._answer_tokens.labels(model, "answer").inc(answer_tokens)
        if guessed_tokens:
            self._answer_tokens.labels(model, "guessed").inc(guessed_tokens)
            self._answer_tokens.labels(model, "accepted").inc(accepted_tokens)

    def watch(self, read: Callable[[], Iterable[Gauge]]) -> None:
        """Let `read` tell the gauges of every page from now on."""
        self._gauges.read = read

    def counts(self, model: str) -> Counts:
        """What all workers together have counted of a model; its samples are looked up, which takes milliseconds."""
        totals: dict[tuple[str, ...], float] = defaultdict(float)
        for family in self._counted().collect():
            for sample in family.samples:
                if sample.labels.get("model") == model:
                    named = sample.labels
                    kind = named.get("stage", "refused" if named.get("status", "") >= "400" else "answered")
                    totals[(sample.name, kind if "stage" in named or "status" in named else "")] += sample.value
        stages = {stage for name, stage in totals if name == "edgetune_stage_seconds_count"}
        return Counts(
            answered=totals["edgetune_requests_total", "answered"],
            refused=totals["edgetune_requests_total", "refused"],
            texts=totals["edgetune_texts_total", ""],
            runs=totals["edgetune_batch_texts_count", ""],
            stages={
                stage: (
                    totals["edgetune_stage_seconds_count", stage],
                    totals["edgetune_stage_seconds_sum", stage],
                )
                for stage in stages
            },
        )

    def _counted(self) -> CollectorRegistry:
        """What this process counted, or all workers together."""
        if self._folder is None:
            return self._registry
        counted = CollectorRegistry()
        MultiProcessCollector(counted, path=self._folder)
        return counted

    def page(self) -> bytes:
        """All metrics in Prometheus' text format."""
        counted = self._counted()
        gauges = CollectorRegistry()
        gauges.register(self._gauges)
        body: bytes = generate_latest(counted) + generate_latest(gauges)
        return body


class _Gauges(Collector):  # type: ignore[misc]
    """Values that are looked up, not kept."""

    def __init__(self) -> None:
        self.read: Callable[[], Iterable[Gauge]] = tuple

    def collect(self) -> Iterable[Metric]:
        for name, words, values in self.read():
            family = GaugeMetricFamily(name, words, labels=("model",) if any(values) else ())
            for model, value in values.items():
                family.add_metric((model,) if model else (), value)
            yield family
