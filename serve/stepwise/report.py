"""What was measured of a language model: base, tuned, graph and candidates, how fast they decode, and the choice.

The reader owns the format, as for classifiers (`edgetune.serve.report`); names that both have mean the same in both. A
value that could not be measured is None, never 0.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edgetune.serve.report import REPORT_FORMAT, CurvePoint, Machine, Memory, Pair, read_report


class AnswerQuality(msgspec.Struct, frozen=True, kw_only=True):
    """One stage on held-out rows.

    `value` is the perplexity of the answers' tokens with its interval `ci95`; `kl` the mean Kullback-Leibler divergence
    from the tuned model in nats a token; `agreement` the share of tokens whose likeliest successor is the tuned
    model's; `rise` the relative rise of perplexity over the tuned model; `token_accuracy` the share of tokens that were
    the likeliest. `metrics` are of generated answers, by name. The comparisons are None for the base.
    """

    stage: str
    value: float
    ci95: list[float] | None = None
    token_accuracy: float | None = None
    kl: float | None = None
    agreement: float | None = None
    rise: float | None = None
    metrics: dict[str, float] = msgspec.field(default_factory=dict)


class AnswersQuality(msgspec.Struct, frozen=True, kw_only=True):
    """The ledger: `n` rows and `tokens` of answers in the test part.

    `answers` is how many of its prompts were answered for the stages' `metrics`, greedily with at most `answer_tokens`
    tokens each; 0 where no metric was asked for.
    """

    metric: str
    n: int
    tokens: int
    stages: list[AnswerQuality]
    answers: int = 0
    answer_tokens: int = 0


class LanguageCandidate(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate and its verdict on the validation part.

    `size_bytes` is the graph with its external data; `quantized` the share of all stored bytes that quantized matrices
    take, scales included, read from the file; `rise_interval` the paired interval of `rise` at the gate's confidence;
    `left` the matrices that stayed, with the reason. `own_kl` and `own_rise` are as `kl` and `rise`, on texts that the
    tuned model drew itself, outside of what it was tuned on; None where none were drawn. `remarks` tell what the
    scheme's name does not: narrower blocks, or most of the bytes left in floats.
    """

    scheme: str
    size_bytes: int
    dtypes: dict[str, float]
    quantized: float
    value: float
    rise: float
    rise_interval: list[float]
    kl: float
    agreement: float
    gate: str
    accepted: bool
    reason: str
    chosen: bool = False
    made_by: str = ""
    left: list[str] = msgspec.field(default_factory=list)
    own_kl: float | None = None
    own_rise: float | None = None
    remarks: list[str] = msgspec.field(default_factory=list)


class LanguageProof(msgspec.Struct, frozen=True, kw_only=True):
    """The gate's verdict on the packed candidate, on the test part; `looks` as for classifiers."""

    gate: str
    value: float
    rise: float
    rise_interval: list[float]
    kl: float
    agreement: float
    reason: str
    rows: int
    looks: int = 1


class FirstToken(msgspec.Struct, frozen=True, kw_only=True):
    """Median ms from a prompt of `prompt_tokens` tokens to the first token of its answer."""

    prompt_tokens: int
    base_ms: float | None
    bundle_ms: float | None


class Decoding(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens a second of all prompts together while `batch` prompts are decoded; `speedup` with its interval."""

    batch: int
    base_per_second: float | None
    bundle_per_second: float | None
    speedup: float | None = None
    ci95: list[float] | None = None


class LanguageMemory(msgspec.Struct, frozen=True, kw_only=True):
    base: Memory
    bundle: Memory


class ConversationSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The data as it was used. `findings` are sentences, each with its count."""

    source: str
    digest: str
    rows: dict[str, int]
    kind: str
    tokens_mean: float
    tokens_max: int
    findings: list[str] = msgspec.field(default_factory=list)


class LanguageTraining(msgspec.Struct, frozen=True, kw_only=True):
    """How the model was tuned; losses of the curve in nats a token, its `validation_value` is the token accuracy."""

    method: str
    best_epoch: float
    epochs: float
    remark: str
    curve: list[CurvePoint]
    settings: dict[str, str | int | float | bool | None]


class SampleAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt of a held-out row, what the data answers, and what was generated; None where nobody was asked.

    Answers are greedy. A text that ends or, a prompt, begins with an ellipsis was cut.
    """

    prompt: str
    reference: str | None = None
    base: str | None = None
    tuned: str | None = None
    bundle: str | None = None


class LanguageReport(msgspec.Struct, frozen=True, kw_only=True):
    """One build of a language model, whole. Sizes are bytes, times ms unless the name says otherwise.

    `why` says why the chosen candidate won; `skipped` which schemes were not tried or made no
    candidate, and why. Where the machine was too busy to judge speed, `timing_valid` is False, `timing_remark` says
    why, and there are no ratios of times.
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
    data: ConversationSummary
    training: LanguageTraining
    quality: AnswersQuality
    candidates: list[LanguageCandidate]
    proof: LanguageProof | None = None
    why: str = ""
    skipped: dict[str, str] = msgspec.field(default_factory=dict)
    first_token_ms: list[FirstToken] = msgspec.field(default_factory=list)
    decoding: list[Decoding] = msgspec.field(default_factory=list)
    memory: LanguageMemory | None = None
    cold_start_ms: Pair | None = None
    timing_valid: bool = True
    timing_remark: str = ""
    size_bytes: Pair
    build_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    planned_seconds: dict[str, float] = msgspec.field(default_factory=dict)
    build_peak_bytes: dict[str, int] = msgspec.field(default_factory=dict)
    gate: dict[str, str | float] = msgspec.field(default_factory=dict)
    samples: list[SampleAnswers] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)

    @property
    def packed(self) -> LanguageProof | LanguageCandidate | None:
        """The verdict on what was packed: its proof on the test part, else its row among the candidates."""
        return self.proof or next((one for one in self.candidates if one.chosen), None)

    def to_json(self) -> bytes:
        """The report as indented UTF-8 JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    @classmethod
    def load(cls, path: Path) -> LanguageReport:
        """Read a report.json.

        Raises:
            BundleError: the file is missing, or is no report of a format that this release reads.
        """
        return read_report(path, cls)
