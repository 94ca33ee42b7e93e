"""What was measured of a language model: base, tuned, graph and candidates, how fast they decode, and the choice.

What the reports of all tasks have is in `edgetune.serve.report`. A value that could not be measured is None, never 0.
"""

from __future__ import annotations

import msgspec

from edgetune.serve.bundle import REPORT_NAME, Bundle
from edgetune.serve.report import (
    BuildReport,
    JudgedCandidate,
    JudgedChoice,
    Ledger,
    Report,
    RowsSummary,
    SecondGate,
    Stage,
    Tuning,
)
from edgetune.serve.tasks_report import TasksReport


class AnswerQuality(Stage, frozen=True, kw_only=True):
    """One stage on held-out rows.

    `value` is the perplexity of the answers' tokens with its interval `ci95`; `kl` the mean Kullback-Leibler divergence
    from the tuned model in nats a token; `agreement` the share of tokens whose likeliest successor is the tuned
    model's; `rise` the relative rise of perplexity over the tuned model; `token_accuracy` the share of tokens that were
    the likeliest. `metrics` are of generated answers, by name. The comparisons are None for the base.
    """

    ci95: list[float] | None = None
    token_accuracy: float | None = None
    kl: float | None = None
    rise: float | None = None


class AnswersQuality(Ledger, frozen=True, kw_only=True):
    """The ledger: `n` rows and `tokens` of answers in the test part.

    `answers` is how many of its prompts were answered for the stages' `metrics`, greedily with at most `answer_tokens`
    tokens each; 0 where no metric was asked for.
    """

    tokens: int
    stages: list[AnswerQuality]
    answers: int = 0
    answer_tokens: int = 0


class LanguageCandidate(JudgedCandidate, frozen=True, kw_only=True):
    """One candidate and its verdict on the validation part.

    `size_bytes` is the graph with its external data; `quantized` the share of all stored bytes that quantized matrices
    take, scales included, read from the file; `rise_interval` the paired interval of `rise` at the gate's confidence;
    `left` the matrices that stayed, with the reason. `own_kl` and `own_rise` are as `kl` and `rise`, on texts that the
    tuned model drew itself, outside of what it was tuned on; None where none were drawn. `remarks` tell what the
    scheme's name does not: narrower blocks, or most of the bytes left in floats. `second` is the verdict by preference
    accuracy, which an objective of preferences is judged by beside the perplexity.
    """

    quantized: float
    rise: float
    rise_interval: list[float]
    kl: float
    agreement: float
    left: list[str] = msgspec.field(default_factory=list)
    own_kl: float | None = None
    own_rise: float | None = None
    remarks: list[str] = msgspec.field(default_factory=list)
    second: SecondGate | None = None


class LanguageProof(JudgedChoice, frozen=True, kw_only=True):
    """The gate's verdict on the packed candidate."""

    rise: float
    rise_interval: list[float]
    kl: float
    agreement: float
    second: SecondGate | None = None


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


class OtherEngine(msgspec.Struct, frozen=True, kw_only=True):
    """Another engine on the bundle's own levels, one prompt at a time, raced beside it with the same threads.

    `tokens_per_second` and `first_token_ms` (of the longest prompt) are the engine's; `bundle_speedup` is how many
    times faster the bundle decodes, with its interval `ci95`; `equal_tokens` how many of the first `tokens` of a greedy
    answer are the bundle's. `reason` says why it could not be timed.
    """

    name: str
    tokens_per_second: float | None = None
    first_token_ms: float | None = None
    bundle_speedup: float | None = None
    ci95: list[float] | None = None
    equal_tokens: int = 0
    tokens: int = 0
    reason: str = ""


class ConversationSummary(RowsSummary, frozen=True, kw_only=True):
    """The data as it was used; `kind` is that of its rows."""

    kind: str


class ObjectiveStage(msgspec.Struct, frozen=True, kw_only=True):
    """One stage by what an objective of preferences or rewards is for, on held-out rows.

    `preference_accuracy` is the share of pairs whose chosen answer it prefers more than the base does, `ci95` its
    interval; `margin` the mean of how much more, in nats: log p(chosen) - log p(rejected), less the same of the base.
    `reward` is the mean over greedy answers with its interval, `answer_tokens` their mean length, `kl` the divergence
    from the base over them in nats a token. None where a stage was not measured by it.
    """

    stage: str
    preference_accuracy: float | None = None
    ci95: list[float] | None = None
    margin: float | None = None
    reward: float | None = None
    reward_ci95: list[float] | None = None
    answer_tokens: float | None = None
    kl: float | None = None


class ObjectiveQuality(msgspec.Struct, frozen=True, kw_only=True):
    """What an objective came to: `pairs` held-out pairs, `answers` prompts answered with at most `answer_tokens`
    tokens each."""

    objective: str
    pairs: int
    answers: int
    answer_tokens: int
    stages: list[ObjectiveStage]

    def stage(self, name: str | None) -> ObjectiveStage | None:
        """The row of a stage, None where it was not measured."""
        return next((stage for stage in self.stages if stage.stage == name), None)


class LanguageTraining(Tuning, frozen=True, kw_only=True):
    """How the model was tuned; losses of the curve in nats a token, its `validation_value` is the token accuracy."""

    best_epoch: float


class SampleAnswers(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt of a held-out row, what the data answers, and what was generated; None where nobody was asked.

    Answers are greedy. A text that ends or, a prompt, begins with an ellipsis was cut.
    """

    prompt: str
    reference: str | None = None
    base: str | None = None
    tuned: str | None = None
    bundle: str | None = None


class LanguageReport(BuildReport, frozen=True, kw_only=True):
    """One build of a language model, whole."""

    data: ConversationSummary
    training: LanguageTraining
    quality: AnswersQuality
    candidates: list[LanguageCandidate]
    proof: LanguageProof | None = None
    first_token_ms: list[FirstToken] = msgspec.field(default_factory=list)
    decoding: list[Decoding] = msgspec.field(default_factory=list)
    samples: list[SampleAnswers] = msgspec.field(default_factory=list)
    engines: list[OtherEngine] = msgspec.field(default_factory=list)
    objective: ObjectiveQuality | None = None

    @property
    def packed(self) -> LanguageProof | LanguageCandidate | None:
        """The verdict on what was packed: its proof on the test part, else its row among the candidates."""
        return self.proof or next((candidate for candidate in self.candidates if candidate.chosen), None)

    def stage(self, name: str | None) -> AnswerQuality | None:
        """The ledger's row of a stage, None where it was not measured."""
        return next((stage for stage in self.quality.stages if stage.stage == name), None)


def report_of(bundle: Bundle) -> Report | LanguageReport | None:
    """The report that a bundle carries, None where it lists none.

    Raises:
        BundleError: it is one that this release does not read.
    """
    path = bundle.path(REPORT_NAME)
    if path is None:
        return None
    if bundle.manifest.generation is not None:
        return LanguageReport.load(path)
    return (TasksReport if len(bundle.manifest.answer_heads) > 1 else Report).load(path)
