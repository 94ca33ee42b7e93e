"""What `edgetune measure` found on one machine: the format of measure.json.

Times are ms, sizes bytes unless the name says otherwise; what could not be measured is None, never 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import msgspec

from edgetune.serve.bundle import MOST_JSON_BYTES, NOT_JSON, Bundle
from edgetune.serve.errors import BundleError
from edgetune.serve.files import read_regular
from edgetune.serve.identity import bundle_digest
from edgetune.serve.replay import Replay
from edgetune.serve.report import LatencySummary, Machine

MEASUREMENT_FORMAT = 1


class MeasuredBundle(msgspec.Struct, frozen=True, kw_only=True):
    """Which bundle was measured, and what of it answered.

    `digest` is that of its manifest, by which a measurement and a bundle belong together. `variant` is the scheme of
    the graph that answers here, `reason` why.
    """

    name: str
    task: str
    digest: str
    size_bytes: int
    variant: str
    reason: str = ""


class InputsUsed(msgspec.Struct, frozen=True, kw_only=True):
    """What was answered while times were taken: `source` is bundle, file or golden, `remark` says it in a sentence."""

    source: str
    n: int
    remark: str


class SettingTime(msgspec.Struct, frozen=True, kw_only=True):
    """Median of single calls by one setting; None where the machine was too busy to compare."""

    threads: int
    spinning: bool
    p50_ms: float | None


class Throughput(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs a second in runs of `batch`; of a language model tokens a second of all prompts together."""

    batch: int
    per_second: float


class FirstTokenTime(msgspec.Struct, frozen=True, kw_only=True):
    """Median from a prompt of so many tokens to the first token of its answer."""

    prompt_tokens: int
    ms: float


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """Single calls without a pause: how the same inputs slow down while the processor warms up.

    `first_ms` and `last_ms` are medians of the first and the last fifth of `rounds` rounds; `slower` is their ratio.
    Temperatures are of the hottest sensor, clocks of the fastest core; None where the system does not say.
    """

    seconds: float
    rounds: int
    first_ms: float
    last_ms: float
    slower: float
    celsius_before: float | None = None
    celsius_after: float | None = None
    mhz_before: float | None = None
    mhz_after: float | None = None


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle on one machine.

    `settings` are the threads and spinning that were tried, `best` the fastest; times are of the settings that the
    bundle opens with here, which `machine.threads` has. `others_cores` are cores that other programs took meanwhile.
    Of a language model `latency_ms` is None, and `first_token_ms` and tokens a second stand in its place.
    """

    format: int = MEASUREMENT_FORMAT
    created: str
    edgetune: str
    seconds: float
    bundle: MeasuredBundle
    machine: Machine
    providers: list[str]
    placement: dict[str, int] = msgspec.field(default_factory=dict)
    golden: dict[str, Replay] = msgspec.field(default_factory=dict)
    inputs: InputsUsed
    latency_ms: LatencySummary | None = None
    first_token_ms: list[FirstTokenTime] = msgspec.field(default_factory=list)
    throughput: list[Throughput] = msgspec.field(default_factory=list)
    settings: list[SettingTime] = msgspec.field(default_factory=list)
    best: SettingTime | None = None
    rss_peak_bytes: int | None = None
    cold_start_ms: float | None = None
    drift: Drift | None = None
    others_cores: float | None = None
    timing_valid: bool = True
    timing_remark: str = ""

    @property
    def tokens_per_second(self) -> float | None:
        """Of a language model with a single prompt; None of others."""
        if not self.first_token_ms:
            return None
        return next((entry.per_second for entry in self.throughput if entry.batch == 1), None)

    def require(self, bundle: Bundle, path: Path) -> None:
        """Refuse a measurement of another bundle; `path` is the file that it was read from.

        Raises:
            BundleError: it is one.
        """
        mine, measured = bundle_digest(bundle), self.bundle.digest
        if measured != mine:
            raise BundleError(
                f"{path} measured another bundle than {bundle.folder}: {self.bundle.name!r}, {measured[:19]}.",
                expected=f"a measurement of {mine[:19]}",
                action=f"measure this one: edgetune measure {bundle.folder} --output {path}",
            )

    def to_json(self) -> bytes:
        """Indented UTF-8 JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a measure.json.

        Raises:
            BundleError: it is missing, or none of a format that this release reads.
        """
        again = "measure again: edgetune measure BUNDLE --output FILE"
        try:
            content = read_regular(path, MOST_JSON_BYTES)
        except OSError as error:
            raise BundleError(
                f"The measurement {path} cannot be read: {error.strerror or error}.",
                expected="a file that `edgetune measure --output` wrote",
                action=again,
            ) from error
        try:
            measurement = msgspec.json.decode(content, type=cls)
        except NOT_JSON as error:
            raise BundleError(
                f"{path} is no measurement: {error}",
                expected="a file that `edgetune measure --output` wrote",
                action=again,
            ) from error
        if measurement.format > MEASUREMENT_FORMAT:
            raise BundleError(
                f"{path} has measurement format {measurement.format}.",
                expected=f"format {MEASUREMENT_FORMAT}, the newest that this edgetune reads",
                action="install a newer edgetune",
            )
        return measurement
