"""What a user can say about tuning a language model: the `tune:` section of its recipe."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgetune.tune.recipe import AdapterRecipe, Auto, FreezeRecipe, PromptRecipe, check_anchor
from edgetune.tune.stepwise.methods import METHODS
from edgetune.tune.stepwise.metrics import METRICS
from edgetune.tune.stepwise.objectives import OBJECTIVES, objective_fault
from edgetune.tune.stepwise.objectives.recipe import OnlineRecipe, PreferenceRecipe, Weight
from edgetune.tune.training.length import automatic_epochs
from edgetune.tune.training.reporters import Reporter


class QloraRecipe(BaseModel):
    """Settings of `method: qlora`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    weights: Literal["nf4", "int8"] = Field("nf4", description="How the frozen weights are held: 4 or 8 bits.")
    double_quantization: bool = Field(True, description="nf4: hold the scales of its blocks in 8 bits too.")


class GenerationTuneRecipe(BaseModel):
    """How the base model learns to answer."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field("lora", description="How to tune: " + ", ".join(METHODS) + ".")
    objective: str = Field("sft", description="What is learnt of the rows: " + ", ".join(OBJECTIVES) + ".")
    epochs: Annotated[float, Field(gt=0)] | Auto = Field(
        "auto", description="Most passes over the training part; auto is 3 to 10 by its size."
    )
    batch_size: int = Field(8, ge=1, description="Rows a step on each device.")
    gradient_accumulation: int = Field(1, ge=1, description="Steps whose gradients are added before an update.")
    gradient_checkpointing: bool = Field(
        False, description="Keep only each layer's input and compute the rest again: less memory, slower."
    )
    learning_rate: Annotated[float, Field(gt=0)] | Auto = Field(
        "auto", description="Peak rate; auto is the method's own."
    )
    schedule: Literal["linear", "cosine"] = Field("cosine", description="How the rate falls after the warm-up.")
    warmup: float = Field(0.05, ge=0, lt=1, description="Share of the steps over which the rate rises.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's weight decay; none on biases and norms.")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Each layer's learning rate is that of the layer above it times this."
    )
    l2_sp: float = Field(
        0.0, ge=0, description="L2-SP: strength by which weights are drawn to the pretrained ones; of full and freeze."
    )
    patience: int = Field(2, ge=1, description="Evaluations without gain after which training stops.")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="bf16 where the processor has it.")
    metrics: tuple[str, ...] = Field(
        (),
        description="Scores of generated answers beside the perplexity, for base, tuned model and bundle: "
        + ", ".join(METRICS)
        + ", or a function of yours as module:function or file.py:function.",
    )
    metric_rows: int = Field(100, ge=1, description="Most rows that are answered for the metrics.")
    reward: dict[str, Weight] = Field(
        {},
        description="grpo and rloo: what scores the drawn answers, with its weight: folders of reward bundles, and "
        "functions as module:function or file.py:function; one alone may stand here as it is.",
    )
    preference: PreferenceRecipe = PreferenceRecipe()
    online: OnlineRecipe = OnlineRecipe()
    adapter: AdapterRecipe = AdapterRecipe()
    qlora: QloraRecipe = QloraRecipe()
    prompt: PromptRecipe = PromptRecipe()
    freeze: FreezeRecipe = FreezeRecipe()
    report_to: tuple[Reporter, ...] = Field(
        (), description="Trackers that the training's curves are sent to beside the report: tensorboard, mlflow, wandb."
    )
    allow_pickle: bool = Field(False, description="Open .bin checkpoints, which can run code when opened.")
    trust_remote_code: bool = Field(False, description="Run model code that a hub repository brings.")

    @field_validator("method")
    @classmethod
    def _known_method(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"there is no method {method!r}; expected one of {', '.join(METHODS)}")
        return method

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, objective: str) -> str:
        if fault := objective_fault(objective):
            raise ValueError(fault)
        if not OBJECTIVES[objective].of_decoders:
            raise ValueError(
                f"{objective} is learnt by a task of encoders; expected such a base, as all-MiniLM-L6-v2, and no "
                "other task"
            )
        return objective

    @field_validator("reward", mode="before")
    @classmethod
    def _with_weights(cls, reward: object) -> object:
        """One alone, and a list of several, weigh 1 each."""
        named = [reward] if isinstance(reward, str) else reward
        return {str(one): 1.0 for one in named} if isinstance(named, list | tuple) else named

    @model_validator(mode="after")
    def _rewarded(self) -> GenerationTuneRecipe:
        online = OBJECTIVES[self.objective].is_online
        if online and not self.reward:
            raise ValueError(
                f"objective is {self.objective}, which needs a reward; expected tune.reward: a reward bundle, or a "
                "function as module:function or file.py:function"
            )
        if self.reward and not online:
            raise ValueError(f"reward is given, which {self.objective} does not use; expected objective grpo or rloo")
        if online and self.batch_size % self.online.generations:
            raise ValueError(
                f"batch_size is {self.batch_size}, and each prompt is answered online.generations = "
                f"{self.online.generations} times; expected a multiple of that"
            )
        if self.objective == "kto" and self.batch_size < 2:
            raise ValueError("batch_size is 1, and kto compares the answers of a batch; expected 2 or more")
        return self

    def passes(self, rows: int) -> float:
        """Epochs over so many training rows: the recipe's, else by their number.

        Online, where each step draws answers, so that about 100 steps are taken, in 1 to 3 passes.
        """
        if self.epochs != "auto":
            return self.epochs
        if OBJECTIVES[self.objective].is_online:
            steps = math.ceil(rows * self.online.generations / self.batch_size)
            return float(max(1, min(3, math.ceil(100 / max(1, steps)))))
        return float(automatic_epochs(rows, self.batch_size))

    @property
    def rate(self) -> float:
        """The peak learning rate: the recipe's, else the method's times the objective's share."""
        if self.learning_rate != "auto":
            return self.learning_rate
        return METHODS[self.method].rate * OBJECTIVES[self.objective].rate_share

    @model_validator(mode="after")
    def _anchored_weights(self) -> GenerationTuneRecipe:
        check_anchor(self.method, self.l2_sp)
        return self

    @model_validator(mode="after")
    def _cache_without_checkpointing(self) -> GenerationTuneRecipe:
        """A layer that is computed again would write its keys and values behind the virtual tokens' a second time."""
        if self.gradient_checkpointing and METHODS[self.method].has_prompt:
            raise ValueError(
                f"gradient_checkpointing is set, and method {self.method} trains keys and values of a cache, which a "
                "layer cannot write twice; expected gradient_checkpointing false"
            )
        return self

    @field_validator("metrics")
    @classmethod
    def _known_metrics(cls, metrics: tuple[str, ...]) -> tuple[str, ...]:
        for metric in metrics:
            if metric not in METRICS and ":" not in metric:
                raise ValueError(
                    f"there is no metric {metric!r}; expected one of {', '.join(METRICS)}, or module:function"
                )
        return metrics
