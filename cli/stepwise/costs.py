"""What the build of a language model will roughly cost: bytes of memory and disk, seconds of each stage.

Apart from the plan, which looks and counts: here are the formulas and the runs that their constants come from. Must not
import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgetune.compress.gptq.schemes import LADDER, SCHEMES
from edgetune.stepwise.recipe import StepwiseRecipe
from edgetune.tune.stepwise.methods import METHODS
from edgetune.tune.stepwise.traces import EncodedRow, learnt_tokens, longest_side

# Epochs that gain on the validation part before one does not, where the number of epochs is left to the tool.
GAINING_EPOCHS = 2
# By the processor time of two builds on a CPU. Of stories260K (0.001 GB), on one thread: 16 s for the graph, 6 for five
# schemes and 19 for the benchmark. Of a llama of 51 million parameters (0.2 GB): about 40, 65 for one scheme, and 90.
EXPORT_SECONDS, COMPRESS_SECONDS, BENCH_SECONDS, DECODE_SECONDS = 16.0, 5.0, 16.0, 0.002
EXPORT_SECONDS_A_GIGABYTE, COMPRESS_SECONDS_A_GIGABYTE, DECODE_SECONDS_A_GIGABYTE = 120.0, 300.0, 0.35
STATE_BYTES = 12  # of a trained weight beside itself: its gradient and AdamW's two moments, float32
# Peaks of builds on a CPU: of stories260K (1 MB of weights) 1.05 GB, that llama 2.96 GB while it was tuned on rows of
# 384 tokens and 3.22 GB while it was measured, eleven times its weights more.
PROCESS_BYTES, WEIGHT_COPIES = 950_000_000, 11


@dataclass(frozen=True)
class PartTokens:
    """One part as the model would see it; of pairs the tokens are those of both answers."""

    rows: int
    tokens: int
    learnt_tokens: int
    longest_tokens: int

    @classmethod
    def of(cls, rows: tuple[EncodedRow, ...]) -> PartTokens:
        """Counted from encoded rows."""
        lengths = [len(row["input_ids"]) + len(row.get("rejected_ids", ())) for row in rows]
        return cls(len(rows), sum(lengths), sum(map(learnt_tokens, rows)), max(map(longest_side, rows), default=0))


@dataclass(frozen=True)
class StepwiseCosts:
    """What the estimates rest on.

    Args:
        config: the model's, of its text part.
        epochs: at most.
        forward_seconds: a token, of a forward pass in the precision of training.
        step_seconds: a token, of a step of training.
        bf16: whether that is bfloat16; a pass in float32 is taken to last twice as long.
    """

    recipe: StepwiseRecipe
    config: Any
    parts: Mapping[str, PartTokens]
    parameters: int
    trained_parameters: int
    epochs: float
    forward_seconds: float
    step_seconds: float
    device: str
    bf16: bool

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes that may be tried, in their order."""
        named = self.recipe.compress.schemes
        return tuple(scheme.name for scheme in LADDER) if isinstance(named, str) else tuple(named)

    @property
    def scheme_bytes(self) -> dict[str, int]:
        """All weights in each scheme's bits, of a mixture in 6, and two bytes of scale a block.

        Zero points and better-kept heads are left out.
        """
        whole, block = self.parameters, self.recipe.compress.block
        sizes = {}
        for scheme in map(SCHEMES.__getitem__, self.schemes):
            few = scheme.bits is not None
            bits = 6 if scheme.is_mixed else scheme.bits or 32
            sizes[scheme.name] = whole * bits // 8 + few * 2 * whole // (scheme.block or block)
        return sizes

    @property
    def memory_bytes(self) -> int:
        """The peak of the build's process: while training, or while models are merged and exported."""
        return PROCESS_BYTES + max(self._training_bytes(), WEIGHT_COPIES * 4 * self.parameters)

    def _training_bytes(self) -> int:
        """Weights, what each trained weight has beside it, and the activations of a batch of the longest rows.

        Activations by Korthikanti et al. 2022 (arXiv 2205.05198): 34 values of two bytes a token, layer and unit, here
        in float32, without the attention matrix, which is never stored; with checkpointing the layers' inputs alone.
        """
        tune = self.recipe.tune
        held = 4.0
        if METHODS[tune.method].quantized:  # the scales in it; embeddings and head stay whole, and come on top
            held = 0.6 if tune.qlora.weights == "nf4" else 1.1
        layers, width = int(self.config.num_hidden_layers), int(self.config.hidden_size)
        kept = 4 * layers + 68 if tune.gradient_checkpointing else 68 * layers
        logits = 3 * 4 * int(self.config.vocab_size)  # themselves, their softmax and their gradient
        sides = 2 if tune.objective in ("dpo", "orpo") else 1  # both answers of a pair go through at once
        tokens = sides * tune.batch_size * self.parts["train"].longest_tokens
        return int(held * self.parameters) + STATE_BYTES * self.trained_parameters + tokens * (kept * width + logits)

    @property
    def work_bytes(self) -> int:
        """Merged model, fp32 graph, every candidate, the bundle's draft, and two checkpoints while training lasts."""
        candidates = list(self.scheme_bytes.values())
        return 8 * self.parameters + sum(candidates) + max(candidates) + 2 * STATE_BYTES * self.trained_parameters

    @property
    def seconds(self) -> dict[str, float]:
        """Of each stage, on a machine with nothing else to do, if the first scheme passes the gate."""
        benchmark = self.recipe.benchmark
        fp32 = self.forward_seconds * (2 if self.bf16 else 1)
        train, validation = self.parts["train"].tokens, self.parts["validation"].tokens
        calls = benchmark.rounds * benchmark.new_tokens * len(benchmark.batches)
        gigabytes = 4 * self.parameters / 1e9
        call = DECODE_SECONDS + DECODE_SECONDS_A_GIGABYTE * gigabytes  # of both sides
        stages = {
            # Base and tuned model are measured, and the merge is proven by both.
            "tune": self._expected_epochs * (self.step_seconds * train + fp32 * validation) + 4 * fp32 * self._judged,
            "export": EXPORT_SECONDS + EXPORT_SECONDS_A_GIGABYTE * gigabytes,
            "compress": COMPRESS_SECONDS + COMPRESS_SECONDS_A_GIGABYTE * gigabytes + fp32 * validation,
            "bench": BENCH_SECONDS + 2 * fp32 * self._judged + calls * call,
        }
        return {stage: round(seconds, 1) for stage, seconds in stages.items()}

    @property
    def _expected_epochs(self) -> float:
        """Training stops early once the validation part gains nothing; a step with checkpoints is timed without."""
        return min(self.epochs, GAINING_EPOCHS + self.recipe.tune.patience)

    @property
    def _judged(self) -> float:
        judged = self.parts["test"] if self.parts["test"].rows else self.parts["validation"]
        return judged.tokens * min(1.0, self.recipe.gate.rows / max(judged.rows, 1))
