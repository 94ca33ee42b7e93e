"""A measurement, or a build's report, as the figures that a table, a page and a budget name alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from edgetune.benchmarks.measure.measurement import Measurement
from edgetune.benchmarks.report import charts
from edgetune.serve.report import BuildReport, Machine, Report
from edgetune.serve.stepwise.report import LanguageReport


@dataclass(frozen=True)
class MachineFigures:
    """What one machine showed; None where it was not measured.

    `p50_ms` and `p90_ms` are of single calls, of a language model of its first tokens after the shortest prompt there
    is no p90. `per_second` are inputs, of a language model tokens, by the size of the batch. `timing_remark` says why
    times mean nothing, and is empty where they do.
    """

    title: str
    machine: Machine
    size_bytes: int | None
    p50_ms: float | None = None
    p90_ms: float | None = None
    first_token_ms: float | None = None
    tokens_per_second: float | None = None
    per_second: dict[int, float] | None = None
    rss_peak_bytes: float | None = None
    cold_start_ms: float | None = None
    slower: float | None = None
    timing_remark: str = ""


def of_measurement(measurement: Measurement) -> MachineFigures:
    """The figures of a machine that a bundle was measured on."""
    latency, first = measurement.latency_ms, measurement.first_token_ms
    return MachineFigures(
        title=measurement.machine.cpu,
        machine=measurement.machine,
        size_bytes=measurement.bundle.size_bytes,
        p50_ms=latency.p50 if latency else None,
        p90_ms=latency.p90 if latency else None,
        first_token_ms=first[0].ms if first else None,
        tokens_per_second=measurement.tokens_per_second,
        per_second={entry.batch: entry.per_second for entry in measurement.throughput},
        rss_peak_bytes=measurement.rss_peak_bytes,
        cold_start_ms=measurement.cold_start_ms,
        slower=measurement.drift.slower if measurement.drift else None,
        timing_remark="" if measurement.timing_valid else measurement.timing_remark,
    )


def of_report(report: BuildReport) -> MachineFigures:
    """The figures of the machine that built the bundle, by its report."""
    size, cold = report.size_bytes.bundle, report.cold_start_ms
    common = MachineFigures(
        title=f"{report.machine.cpu}, which built it",
        machine=report.machine,
        size_bytes=None if size is None else int(size),
        rss_peak_bytes=report.peak_memory.bundle,
        cold_start_ms=cold.bundle if cold else None,
        timing_remark="" if report.timing_valid else report.timing_remark,
    )
    values = dict(vars(common))
    if isinstance(report, Report):
        latency, throughput = report.latency_ms, report.throughput_per_second
        values |= {
            "p50_ms": latency.bundle.p50 if latency else None,
            "p90_ms": latency.bundle.p90 if latency else None,
            "per_second": {32: throughput.bundle} if throughput and throughput.bundle else None,
        }
    elif isinstance(report, LanguageReport):
        rates = {entry.batch: entry.bundle_per_second for entry in report.decoding}
        first = [entry for entry in report.first_token_ms if entry.bundle_ms is not None]
        values |= {
            "first_token_ms": first[0].bundle_ms if first else None,
            "tokens_per_second": rates.get(1),
            "per_second": {batch: rate for batch, rate in rates.items() if rate is not None},
        }
    return MachineFigures(**values)


def rows(figures: MachineFigures) -> list[tuple[str, str]]:
    """Name and shown value of each figure; those that the kind of bundle does not have are left out."""
    machine, unit = figures.machine, "tokens" if figures.tokens_per_second is not None else "inputs"
    shown: list[tuple[str, str]] = [
        ("cores, threads", f"{machine.cores}, {machine.threads}"),
        ("size", charts.size(figures.size_bytes)),
    ]
    times: list[tuple[str, float | None, Callable[[float | None], str]]] = [
        ("p50", figures.p50_ms, charts.milliseconds),
        ("p90", figures.p90_ms, charts.milliseconds),
        ("first token", figures.first_token_ms, charts.milliseconds),
    ]
    shown += [(name, form(value)) for name, value, form in times if value is not None]
    for batch, rate in (figures.per_second or {}).items():
        shown.append((f"{unit} a second, batch {batch}", f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"))
    shown += [
        ("peak memory", charts.size(figures.rss_peak_bytes)),
        ("cold start", charts.milliseconds(figures.cold_start_ms)),
    ]
    if figures.slower is not None:
        shown.append(("slower when warm", charts.ratio(figures.slower)))
    return shown
