"""What was measured: base, stages, candidates, machine, gates, and the choice with its reason.

The reader owns the format, so these frozen values live on the floor. Field names are the contract that
scripts rely on (docs/report-format.md); a value that could not be measured is None, never 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, TypeVar

import msgspec

from edgetune.serve.bundle import MOST_JSON_BYTES, NOT_JSON
from edgetune.serve.errors import BundleError
from edgetune.serve.files import read_regular

REPORT_FORMAT = 1


class _Value(msgspec.Struct, frozen=True):
    """Base of all report values: frozen. (`kw_only` does not pass to subclasses, so each says it.)"""


class Machine(_Value, frozen=True, kw_only=True):
    """Where the figures were taken. `memory_bytes` is what this process may use; `threads` what it was given."""

    cpu: str
    cores: int
    threads: int
    isa: list[str]
    gpu: str | None
    os: str
    memory_bytes: int | None
    versions: dict[str, str]


class StageQuality(_Value, frozen=True, kw_only=True):
    """Quality of one stage on the frozen test slice.

    `value` is the metric with its 95% interval `ci95`; `agreement` the share of rows answered as the tuned
    model answers; `max_abs_diff` and `mean_abs_diff` compare logits with the tuned model's; `drop` is the
    tuned model's value minus this one's. The comparisons are None for the base, which answers differently
    by design. `metrics` are further figures of the task by name, such as macro F1 or Spearman's correlation.
    """

    stage: str
    value: float
    ci95: list[float]
    agreement: float | None = None
    max_abs_diff: float | None = None
    mean_abs_diff: float | None = None
    drop: float | None = None
    metrics: dict[str, float] = msgspec.field(default_factory=dict)


class Confusion(_Value, frozen=True, kw_only=True):
    """Rows of class `expected` that the packed candidate answered as `predicted`."""

    expected: str
    predicted: str
    rows: int
    example: str


class ClassQuality(_Value, frozen=True, kw_only=True):
    """Precision, recall and F1 of one class on the test slice, for the packed candidate."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


class Quality(_Value, frozen=True, kw_only=True):
    """The ledger. `first_loss` names the first stage after tuning whose answers changed for the worse."""

    metric: str
    n: int
    stages: list[StageQuality]
    first_loss: str | None = None
    classes: list[ClassQuality] = msgspec.field(default_factory=list)
    confusions: list[Confusion] = msgspec.field(default_factory=list)


class LatencySummary(_Value, frozen=True, kw_only=True):
    """Latency in ms of `n` single calls, text in to label out. A percentile that n cannot bound is None."""

    n: int
    mean: float
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    samples: list[float] = msgspec.field(default_factory=list)


class Speedup(_Value, frozen=True, kw_only=True):
    """How many times faster the bundle answered than the base; `ci95` bounds the p50 ratio."""

    p50: float | None
    p90: float | None
    ci95: list[float] | None


class LatencyComparison(_Value, frozen=True, kw_only=True):
    base: LatencySummary
    bundle: LatencySummary
    speedup: Speedup


class GridCell(_Value, frozen=True, kw_only=True):
    """Median time in ms of one forward pass, ids in to logits out, at a fixed batch and length."""

    batch: int
    tokens: int
    base_ms: float | None
    bundle_ms: float | None


class Pair(_Value, frozen=True, kw_only=True):
    """One figure for the base and one for the bundle."""

    base: float | None
    bundle: float | None


class Memory(_Value, frozen=True, kw_only=True):
    """Peak memory of one process in bytes; None where the machine has no such device or counter.

    `rss_peak_bytes` is VmHWM, `rss_file_bytes` the file-backed share of what was resident at the end,
    `gpu_peak_bytes` torch's own counter, `gpu_device_bytes` the rise of the whole device's use (NVML).
    """

    rss_peak_bytes: int | None
    rss_file_bytes: int | None = None
    gpu_peak_bytes: int | None = None
    gpu_device_bytes: int | None = None


class MemoryComparison(_Value, frozen=True, kw_only=True):
    base: Memory
    bundle: Memory


class Proof(_Value, frozen=True, kw_only=True):
    """The gate's verdict on the packed candidate, on the test part, which was opened for it alone.

    `looks` counts the candidates that were judged on the test part, this one included: above 1 an earlier choice
    failed there, and the interval is widened for each look (Bonferroni).
    """

    gate: str
    value: float
    drop: float
    drop_interval: list[float]
    p_value: float | None
    reason: str
    rows: int
    rows_needed: int | None = None
    looks: int = 1


class Gain(_Value, frozen=True, kw_only=True):
    """What one part of the packed candidate's route gave: the candidate with it, as it was measured in the search."""

    part: str
    scheme: str
    value: float
    size_bytes: int
    p50_ms: float | None


class CandidateReport(_Value, frozen=True, kw_only=True):
    """One candidate and its verdict on the validation part, where the choice is made.

    `scheme` is its route: weight-level steps, then the graph's scheme; `size_bytes` is the graph, `bundle_bytes` all
    files; `latency_ms`, `rss_peak_bytes` and `cold_start_ms` were taken in the search, the candidates in turn, in
    processes of their own. `front` marks the candidates that no other one beats in quality and latency at once;
    `stopped_at` is the first gate that it failed: quality, budget or dominated; `timing_valid` is False where the
    machine was too busy for the candidates' times to be compared. `rows_needed` is the rows that would settle an
    inconclusive verdict.

    `gate` is pass, fail or inconclusive; `accepted` says whether the recipe's policy lets it be packed.
    `drop_interval` is the paired interval of the drop at the gate's confidence; `p_value` McNemar's exact
    test for a difference in either direction (None for metrics other than accuracy).
    """

    scheme: str
    size_bytes: int
    dtypes: dict[str, float]
    value: float
    drop: float
    drop_interval: list[float]
    p_value: float | None
    gate: str
    accepted: bool
    reason: str
    rows_needed: int | None = None
    latency_ms: LatencySummary | None = None
    chosen: bool = False
    steps: list[str] = msgspec.field(default_factory=list)
    structural: bool = False
    made_by: str = ""
    bundle_bytes: int | None = None
    rss_peak_bytes: int | None = None
    cold_start_ms: float | None = None
    front: bool = False
    stopped_at: str = ""
    timing_valid: bool = True


class CurvePoint(_Value, frozen=True, kw_only=True):
    """One evaluation during training; losses are mean cross-entropy in nats."""

    epoch: float
    train_loss: float | None
    validation_loss: float
    validation_value: float


class Training(_Value, frozen=True, kw_only=True):
    """How the model was tuned. `probe_value` is what the head alone reached on the validation part."""

    method: str
    handed_on: str
    pooling: str
    probe_value: float
    best_value: float
    best_epoch: float | None
    epochs: float
    remark: str
    curve: list[CurvePoint] = msgspec.field(default_factory=list)
    settings: dict[str, str | int | float | bool | None] = msgspec.field(default_factory=dict)


class DataSummary(_Value, frozen=True, kw_only=True):
    """The data as it was used. `findings` are sentences, each with its count."""

    source: str
    digest: str
    rows: dict[str, int]
    labels: list[str]
    tokens_mean: float
    tokens_max: int
    truncated: int
    unknown_share: float
    findings: list[str] = msgspec.field(default_factory=list)


class Report(_Value, frozen=True, kw_only=True):
    """One build, whole. Sizes are bytes, times ms unless the name says otherwise.

    `proof` is None where nothing was packed, and in reports of releases before 0.2; `why` says why the chosen candidate
    won; `skipped` which schemes were not tried, and why; `runtime` the settings stored with the bundle. Where the
    machine was too busy to judge speed, `timing_valid` is False, `timing_remark` says why, and there are no ratios of
    times.
    """

    format: int = REPORT_FORMAT
    name: str
    task: str
    created: str
    edgetune: str
    verdict: str
    base: str
    chosen: str
    command: str
    machine: Machine
    data: DataSummary
    training: Training
    quality: Quality
    candidates: list[CandidateReport]
    proof: Proof | None = None
    why: str = ""
    gains: list[Gain] = msgspec.field(default_factory=list)
    skipped: dict[str, str] = msgspec.field(default_factory=dict)
    runtime: dict[str, str | int | bool | float] = msgspec.field(default_factory=dict)
    latency_ms: LatencyComparison | None = None
    grid_ms: list[GridCell] = msgspec.field(default_factory=list)
    throughput_per_second: Pair | None = None
    memory: MemoryComparison | None = None
    cold_start_ms: Pair | None = None
    size_bytes: Pair
    timing_valid: bool = True
    timing_remark: str = ""
    placement: dict[str, int] = msgspec.field(default_factory=dict)
    build_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    planned_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    build_peak_bytes: dict[str, int] = msgspec.field(default_factory=dict)
    gate: dict[str, str | float] = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)

    @property
    def packed(self) -> Proof | CandidateReport | None:
        """The verdict on what was packed: its proof on the test part, in older reports its row among the candidates."""
        return self.proof or next((one for one in self.candidates if one.chosen), None)

    def to_json(self) -> bytes:
        """The report as indented UTF-8 JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def load(cls, path: Path) -> Report:
        """Read a report.json.

        Raises:
            BundleError: the file is missing, or is no report of a format that this release reads.
        """
        return read_report(path, cls)


class AnyReport(Protocol):
    """What the report of every task has."""

    @property
    def format(self) -> int:
        """Of the file."""


R = TypeVar("R", bound=AnyReport)


def read_report(path: Path, kind: type[R]) -> R:
    """Read a report.json of any task.

    Raises:
        BundleError: the file is missing, or is no report of a format that this release reads.
    """
    try:
        report = msgspec.json.decode(read_regular(path, MOST_JSON_BYTES), type=kind)
    except FileNotFoundError as error:
        raise BundleError(f"There is no report at {path}.") from error
    except (OSError, *NOT_JSON) as error:
        raise BundleError(f"{path} is no report: {error}") from error
    if report.format > REPORT_FORMAT:
        raise BundleError(
            f"{path} has report format {report.format}.",
            expected=f"format {REPORT_FORMAT} or older",
            action="install a newer edgetune",
        )
    return report
