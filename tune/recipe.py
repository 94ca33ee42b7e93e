"""What a user can say about tuning: the `tune:` section of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edgetune.tune.data.augmentation import AugmentRecipe
from edgetune.tune.methods import METHODS
from edgetune.tune.training.reporters import Reporter

Auto = Literal["auto"]
ANCHORED = ("full", "layers", "freeze")  # the methods whose weights have a pretrained value to stay near

STEP_ROWS, TOKEN_STEP_ROWS = 32, 16


class AdapterRecipe(BaseModel):
    """Settings of LoRA and its kin."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rank: int = Field(
        16, ge=1, description="Rank of the adapters' products; of vera 16 times as much, of adalora the mean."
    )
    alpha: int = Field(32, ge=1, description="The adapters' output is scaled by alpha / rank; rslora: by its root.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before each adapter.")
    targets: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] | Literal["all"] = Field(
        "all", description="Linear layers with adapters, by the ends of their names, such as query and value."
    )
    top_layers: Annotated[int, Field(ge=1)] | Literal["all"] = Field(
        "all", description="Layers with adapters, from the top; those below are computed once, which is faster."
    )
    rate_ratio: Annotated[float, Field(ge=1)] | Auto = Field(
        "auto",
        description="The second factor's learning rate is this many times the first's; auto is 1, of loraplus 16.",
    )


class PromptRecipe(BaseModel):
    """Settings of `method: prompt`, `method: p-tuning` and, of language models, `method: prefix`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tokens: int = Field(8, ge=1, description="Virtual tokens before each text, which count as tokens of it.")
    network: Literal["mlp", "lstm"] = Field("mlp", description="p-tuning: the kind of network that gives the tokens.")


class FreezeRecipe(BaseModel):
    """Settings of `method: freeze`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    top_layers: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto", description="Layers trained, from the top; auto is a third of them."
    )
    gradual: bool = Field(False, description="Train the topmost layer first, and one more below it each epoch.")


def check_anchor(method: str, l2_sp: float) -> None:
    """Look whether what L2-SP draws to the pretrained weights are weights that the method trains.

    Raises:
        ValueError: it trains adapters or a head beside them, or is not known yet.
    """
    if l2_sp and method not in ANCHORED:
        raise ValueError(
            f"l2_sp is {l2_sp:g}, and method {method} does not train the pretrained weights by name; "
            f"expected l2_sp 0, or method {', '.join(ANCHORED)}"
        )


class TuneRecipe(BaseModel):
    """How the base model learns the labels."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    method: str = Field("auto", description="How to tune: " + ", ".join(METHODS) + ".")
    pooling: Literal["auto", "head", "cls", "max", "mean", "mean_sqrt_len", "weightedmean", "last"] = Field(
        "auto", description="How token states become one vector: as the checkpoint was trained, or by word."
    )
    epochs: Annotated[float, Field(gt=0)] | Auto = Field(
        "auto", description="Passes over the training part; auto is 3 to 10 by its size."
    )
    batch_size: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto", description="Rows a step on each device; auto is 32, of entities 16, whose rows have many tags each."
    )
    gradient_accumulation: int = Field(1, ge=1, description="Steps whose gradients are added before an update.")
    learning_rate: Annotated[float, Field(gt=0)] | Auto = Field(
        "auto", description="Peak rate of the trunk; auto is the method's own."
    )
    head_learning_rate: Annotated[float, Field(gt=0)] | Auto = Field(
        "auto", description="Peak rate of the head; auto is the method's own."
    )
    schedule: Literal["linear", "cosine"] = Field("linear", description="How the rate falls after the warm-up.")
    warmup: float = Field(0.1, ge=0, lt=1, description="Share of the steps over which the rate rises.")
    weight_decay: float = Field(0.01, ge=0, description="AdamW's weight decay; none on biases and norms.")
    layer_decay: float = Field(
        1.0, gt=0, le=1, description="Each layer's learning rate is that of the layer above it times this."
    )
    l2_sp: float = Field(
        0.0,
        ge=0,
        description="L2-SP: strength by which weights are drawn to the pretrained ones; of full, layers and freeze.",
    )
    patience: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto", description="Evaluations without gain after which training stops; auto is the method's own."
    )
    pass_tokens: Annotated[int, Field(ge=1)] | Auto = Field(
        "auto", description="Most tokens through the model at once, which bounds memory; auto is by the device."
    )
    max_tokens: Annotated[int, Field(ge=8)] | Auto = Field(
        "auto", description="Longest text in tokens; auto is the model's limit, at most 512."
    )
    dimensions: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (), description="Of embeddings, shorter lengths at which a vector's beginning is trained to stand for it."
    )
    tag_unit: Literal["auto", "word", "token"] = Field(
        "auto", description="Of entities, what bears a tag: auto is a word wherever the data's spans are made of words."
    )
    ewc: Annotated[float, Field(ge=0)] | Auto = Field(
        "auto",
        description="With data.remember, strength by which weights stay that the earlier task rests on (EWC); auto is "
        "1000 where the method trains the base's own weights, and else 0.",
    )
    class_weights: Literal["none", "balanced"] = Field("none", description="Weigh rare classes more in the loss.")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="bf16 where the processor has it.")
    lora: AdapterRecipe = AdapterRecipe()
    prompt: PromptRecipe = PromptRecipe()
    freeze: FreezeRecipe = FreezeRecipe()
    picture_size: Annotated[int, Field(ge=32, le=4096)] | Auto = Field(
        "auto", description="Side of pictures in pixels; auto is the base's own, or less where the data's are smaller."
    )
    augment: AugmentRecipe = Field(AugmentRecipe(), description="Of pictures alone.")
    report_to: tuple[Reporter, ...] = Field(
        (), description="Trackers that the training's curves are sent to beside the report: tensorboard, mlflow, wandb."
    )
    allow_pickle: bool = Field(False, description="Open .bin checkpoints, which can run code when opened.")
    trust_remote_code: bool = Field(
        False, description="Run model code that a hub repository brings; of language models alone."
    )

    def step_rows(self, *, per_token: bool) -> int:
        """Rows a step on each device; `per_token` where each row has many tags."""
        if self.batch_size != "auto":
            return self.batch_size
        return TOKEN_STEP_ROWS if per_token else STEP_ROWS

    @field_validator("trust_remote_code")
    @classmethod
    def _no_foreign_code(cls, trust: bool) -> bool:
        """Heads, merging, graph and proofs are made for the architectures that transformers has."""
        if trust:
            raise ValueError("a model with code of its own cannot be tuned to give labels or numbers; expected false")
        return trust

    @field_validator("method")
    @classmethod
    def _known_method(cls, method: str) -> str:
        if method not in METHODS:
            raise ValueError(f"there is no method {method!r}; expected one of {', '.join(METHODS)}")
        return method

    @model_validator(mode="after")
    def _anchored_weights(self) -> TuneRecipe:
        check_anchor(self.method, self.l2_sp)
        if self.ewc not in ("auto", 0) and self.method not in (*ANCHORED, "auto"):
            raise ValueError(
                f"ewc is {self.ewc:g}, and method {self.method} does not train the base's own weights; "
                f"expected ewc 0, or method {', '.join(ANCHORED)}"
            )
        return self
