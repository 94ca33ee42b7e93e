"""What was measured: base, stages, candidates, machine, gates, and the choice with its reason.

The reader owns the format, so these frozen values live on the floor. Field names are the contract that
scripts rely on (docs/report-format.md); a value that could not be measured is None, never 0. What the reports of all
tasks have stands first; `Report` is that of the family `once`, stepwise/report.py has that of language models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import msgspec

from edgetune.serve.bundle import MOST_JSON_BYTES, NOT_JSON
from edgetune.serve.errors import BundleError
from edgetune.serve.files import read_regular
from edgetune.serve.report_confidence import Abstention, Calibration
from edgetune.serve.report_targets import TargetReport
from edgetune.serve.task_memory import TaskMemory
from edgetune.serve.verdict import Comparison, Decision, FloorQuality

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


class Stage(_Value, frozen=True, kw_only=True):
    """A row of the ledger of any task; `metrics` are further figures by name, such as macro F1 or BLEU."""

    stage: str
    value: float
    agreement: float | None = None
    metrics: dict[str, float] = msgspec.field(default_factory=dict)


class Ledger(_Value, frozen=True, kw_only=True):
    """The stages of any task, judged by one metric on the same `n` rows."""

    metric: str
    n: int
    stages: Sequence[Stage]


class Judged(_Value, frozen=True, kw_only=True):
    """A verdict of the gate: pass, fail or inconclusive, on a candidate of this `value`, and why."""

    gate: str
    value: float
    reason: str


class JudgedCandidate(Judged, frozen=True, kw_only=True):
    """A candidate of any task; `accepted` says whether the recipe's policy lets it be packed."""

    scheme: str
    size_bytes: int
    dtypes: dict[str, float]
    accepted: bool
    chosen: bool = False
    made_by: str = ""


class JudgedChoice(Judged, frozen=True, kw_only=True):
    """The verdict on the packed candidate, on the test part, which was opened for it alone.

    `looks` counts the candidates that were judged on the test part, this one included: above 1 an earlier choice
    failed there, and the interval is widened for each look (Bonferroni).
    """

    rows: int
    looks: int = 1


class StageQuality(Stage, frozen=True, kw_only=True):
    """Quality of one stage on the frozen test slice.

    `value` is the metric with its 95% interval `ci95`; `agreement` the share of rows answered as the tuned
    model answers; `max_abs_diff` and `mean_abs_diff` compare logits with the tuned model's; `drop` is the
    tuned model's value minus this one's. The comparisons are None for the base, which answers differently
    by design.
    """

    ci95: list[float]
    max_abs_diff: float | None = None
    mean_abs_diff: float | None = None
    drop: float | None = None


class Baseline(_Value, frozen=True, kw_only=True):
    """What one constant answer reaches on the rows of the ledger: what any model has to beat.

    `answer` is the one that does best on the training part by the metric that judges; `metrics` has the value of each
    metric by name, each of the constant that is best by it there.
    """

    answer: str
    metrics: dict[str, float]


class SecondGate(_Value, frozen=True, kw_only=True):
    """The verdict by a second metric, which has to hold too: of uneven classes accuracy hides what rare ones lose."""

    metric: str
    value: float
    drop: float
    drop_interval: list[float]
    gate: str


class Confusion(_Value, frozen=True, kw_only=True):
    """Rows of class `expected` that the packed candidate answered as `predicted`.

    `thumbnail` is the example as a data URL where it is a picture, "" of texts.
    """

    expected: str
    predicted: str
    rows: int
    example: str
    thumbnail: str = ""


class ClassQuality(_Value, frozen=True, kw_only=True):
    """Precision, recall and F1 of one class on the test slice, for the packed candidate."""

    label: str
    precision: float
    recall: float
    f1: float
    rows: int


class BatchedAnswers(_Value, frozen=True, kw_only=True):
    """How answers in runs of `batch_size` rows differ from those of one row a run, on `n` rows.

    `changed` is the share of rows that are answered otherwise, `max_abs_diff` the largest difference of an output.
    """

    batch_size: int
    n: int
    changed: float
    max_abs_diff: float


class Quality(Ledger, frozen=True, kw_only=True):
    """The ledger: what is answered one row a run, and in `batched` how answers change in batches.

    `first_loss` names the first stage after tuning whose answers changed for the worse. `warning` says of the packed
    candidate that it answers nearly always the same, or no better than `baseline`. `batched` is None where nothing was
    packed, and in reports of earlier releases. `floor` has what needs no pretrained model, `floor_remark` why some of
    it could not be measured, and `comparisons` its paired intervals and the base's against what was built.
    """

    stages: list[StageQuality]
    baseline: Baseline | None = None
    warning: str = ""
    first_loss: str | None = None
    classes: list[ClassQuality] = msgspec.field(default_factory=list)
    confusions: list[Confusion] = msgspec.field(default_factory=list)
    batched: BatchedAnswers | None = None
    floor: list[FloorQuality] = msgspec.field(default_factory=list)
    floor_remark: str = ""
    comparisons: list[Comparison] = msgspec.field(default_factory=list)


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


class Proof(JudgedChoice, frozen=True, kw_only=True):
    """The gate's verdict on the packed candidate."""

    drop: float
    drop_interval: list[float]
    p_value: float | None
    rows_needed: int | None = None
    second: SecondGate | None = None


class Gain(_Value, frozen=True, kw_only=True):
    """What one part of the packed candidate's route gave: the candidate with it, as it was measured in the search."""

    part: str
    scheme: str
    value: float
    size_bytes: int
    p50_ms: float | None


class CandidateReport(JudgedCandidate, frozen=True, kw_only=True):
    """One candidate and its verdict on the validation part, where the choice is made.

    `scheme` is its route: weight-level steps, then the graph's scheme; `size_bytes` is the graph, `bundle_bytes` all
    files; `latency_ms`, `rss_peak_bytes` and `cold_start_ms` were taken in the search, the candidates in turn, in
    processes of their own. `front` marks the candidates that no other one beats in quality and latency at once;
    `stopped_at` is the first gate that it failed: quality, budget or dominated; `timing_valid` is False where the
    machine was too busy for the candidates' times to be compared. `batch_dependent` says that an answer may depend on
    what else is answered in the same batch. `rows_needed` is the rows that would settle an inconclusive verdict.
    Of a cascade, `small` is the candidate that answers first, from a margin of `threshold` on, which `small_share` of
    the rows reach.

    `drop_interval` is the paired interval of the drop at the gate's confidence; `p_value` McNemar's exact
    test for a difference in either direction (None for metrics other than accuracy).
    """

    drop: float
    drop_interval: list[float]
    p_value: float | None
    rows_needed: int | None = None
    second: SecondGate | None = None
    latency_ms: LatencySummary | None = None
    steps: list[str] = msgspec.field(default_factory=list)
    structural: bool = False
    bundle_bytes: int | None = None
    rss_peak_bytes: int | None = None
    cold_start_ms: float | None = None
    front: bool = False
    stopped_at: str = ""
    timing_valid: bool = True
    batch_dependent: bool = False
    small: str = ""
    threshold: float | None = None
    small_share: float | None = None


class CascadePoint(_Value, frozen=True, kw_only=True):
    """What a cascade gives where its small model answers a `share` of the rows, those with a margin of `threshold`.

    Times are made of both models' own times in the search: the small one's on every row, the strong one's on the rest;
    None where these mean nothing.
    """

    share: float
    threshold: float
    value: float
    p50_ms: float | None
    mean_ms: float | None


class CascadeReport(_Value, frozen=True, kw_only=True):
    """The packed cascade: `small` answers where its margin reaches `threshold`, `strong` the rest.

    The threshold was chosen on the validation part, where `validation_share` of the rows reach it; `share`, `value` and
    the `curve` are of the test rows, `small_value` and `strong_value` of either model alone.
    """

    small: str
    strong: str
    threshold: float
    validation_share: float
    share: float
    value: float
    small_value: float
    strong_value: float
    curve: list[CascadePoint] = msgspec.field(default_factory=list)


class CurvePoint(_Value, frozen=True, kw_only=True):
    """One evaluation during training; losses are mean cross-entropy in nats."""

    epoch: float
    train_loss: float | None
    validation_loss: float
    validation_value: float


class Tuning(_Value, frozen=True, kw_only=True):
    """How the model of any task was tuned."""

    method: str
    best_epoch: float | None
    epochs: float
    remark: str
    curve: list[CurvePoint] = msgspec.field(default_factory=list)
    settings: dict[str, str | int | float | bool | None] = msgspec.field(default_factory=dict)


class Training(Tuning, frozen=True, kw_only=True):
    """How the model was tuned. `probe_value` is what the head alone reached on the validation part."""

    handed_on: str
    pooling: str
    probe_value: float
    best_value: float
    memory: list[TaskMemory] = msgspec.field(default_factory=list)


class RowsSummary(_Value, frozen=True, kw_only=True):
    """The data of any task as it was used. `findings` are sentences, each with its count."""

    source: str
    digest: str
    rows: dict[str, int]
    tokens_mean: float
    tokens_max: int
    findings: list[str] = msgspec.field(default_factory=list)


class DataSummary(RowsSummary, frozen=True, kw_only=True):
    """The data as it was used."""

    labels: list[str]
    truncated: int
    unknown_share: float


class BuildReport(_Value, frozen=True, kw_only=True):
    """One build of any task, whole. Sizes are bytes, times ms unless the name says otherwise.

    `decision` says whether to ship it; None of language models, and in reports of earlier releases.

    `proof` is None where nothing was packed, and in reports of releases before 0.2; `why` says why the chosen candidate
    won; `skipped` which schemes were not tried or made no candidate, and why. Where the machine was too busy to judge
    speed, `timing_valid` is False, `timing_remark` says why, and there are no ratios of times.
    """

    format: int = REPORT_FORMAT
    decision: Decision | None = None
    name: str
    task: str
    created: str
    edgetune: str
    verdict: str
    base: str
    chosen: str
    command: str
    machine: Machine
    data: RowsSummary
    training: Tuning
    quality: Ledger
    candidates: Sequence[JudgedCandidate]
    proof: JudgedChoice | None = None
    why: str = ""
    skipped: dict[str, str] = msgspec.field(default_factory=dict)
    memory: MemoryComparison | None = None
    cold_start_ms: Pair | None = None
    size_bytes: Pair
    timing_valid: bool = True
    timing_remark: str = ""
    build_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    planned_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    build_peak_bytes: dict[str, int] = msgspec.field(default_factory=dict)
    gate: dict[str, str | float] = msgspec.field(default_factory=dict)
    notes: list[str] = msgspec.field(default_factory=list)

    @property
    def peak_memory(self) -> Pair:
        """Peak resident memory of base and bundle in bytes."""
        if self.memory is None:
            return Pair(base=None, bundle=None)
        return Pair(base=self.memory.base.rss_peak_bytes, bundle=self.memory.bundle.rss_peak_bytes)

    @property
    def further_metrics(self) -> list[str]:
        """The names of the figures that the stages have beside the metric that judged them, in their order."""
        return list(dict.fromkeys(name for stage in self.quality.stages for name in stage.metrics))

    def to_json(self) -> bytes:
        """The report as indented UTF-8 JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a report.json.

        Raises:
            BundleError: the file is missing, or is no report of a format that this release reads.
        """
        try:
            report = msgspec.json.decode(read_regular(path, MOST_JSON_BYTES), type=cls)
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


class Report(BuildReport, frozen=True, kw_only=True):
    """One build of a model that answers by one run of its graph; `runtime` are the settings stored with the bundle.

    `calibration` and `abstention` are None where answers have no probabilities or are never unsure, where nothing was
    packed, and in reports of earlier releases.
    """

    data: DataSummary
    training: Training
    quality: Quality
    candidates: list[CandidateReport]
    proof: Proof | None = None
    gains: list[Gain] = msgspec.field(default_factory=list)
    runtime: dict[str, str | int | bool | float] = msgspec.field(default_factory=dict)
    latency_ms: LatencyComparison | None = None
    grid_ms: list[GridCell] = msgspec.field(default_factory=list)
    throughput_per_second: Pair | None = None
    placement: dict[str, int] = msgspec.field(default_factory=dict)
    cascade: CascadeReport | None = None
    calibration: Calibration | None = None
    abstention: Abstention | None = None
    targets: list[TargetReport] = msgspec.field(default_factory=list)

    @property
    def packed(self) -> Proof | CandidateReport | None:
        """The verdict on what was packed: its proof on the test part, in older reports its row among the candidates."""
        return self.proof or next((candidate for candidate in self.candidates if candidate.chosen), None)

    def constant(self, metric: str) -> float | None:
        """What one constant answer reaches by a metric, None where that was not measured."""
        return self.quality.baseline.metrics.get(metric) if self.quality.baseline else None

    def comparison(self, reference: str, candidate: str) -> Comparison | None:
        """The paired comparison of two models by name, None where it was not made."""
        pairs = self.quality.comparisons
        return next((pair for pair in pairs if (pair.reference, pair.candidate) == (reference, candidate)), None)

    def floor(self, name: str) -> FloorQuality | None:
        """What needs no pretrained model, by name; None where it was not measured."""
        return next((entry for entry in self.quality.floor if entry.stage == name), None)

    def stage(self, name: str | None) -> StageQuality | None:
        """The ledger's row of a stage, None where it was not measured."""
        return next((stage for stage in self.quality.stages if stage.stage == name), None)
