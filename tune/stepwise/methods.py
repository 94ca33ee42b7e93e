"""The ways to fine-tune a language model: one row each in `METHODS`, and what each does to the model.

The kin of LoRA differ by fields of peft's configuration alone, so a row is all that a new one needs. Must not import
torch or peft when it is imported: the recipe reads the table.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model
    from edgetune.tune.stepwise.recipe import GenerationTuneRecipe


@dataclass(frozen=True)
class LanguageMethod:
    """A way to fine-tune a language model.

    Attributes:
        name: as recipes name it.
        summary: one sentence for `--help`, with the paper it comes from.
        rate: default peak learning rate.
        kind: `adapters` beside frozen weights, the `top` layers, or `all` weights.
        options: fields of peft's LoraConfig that make this kin of LoRA.
        quantized: whether the frozen weights are held in 4 or 8 bits while training.
        two_rates: whether the adapters' second factor has a learning rate of its own.
    """

    name: str
    summary: str
    rate: float
    kind: str = "adapters"
    options: dict[str, Any] = field(default_factory=dict)
    quantized: bool = False
    two_rates: bool = False

    @property
    def has_adapters(self) -> bool:
        """Whether there is something to merge."""
        return self.kind == "adapters"

    def prepare(self, model: Model, recipe: GenerationTuneRecipe) -> Model:
        """Mark what is trained in `model`; returns the model to train, wrapped where the method has adapters.

        Raises:
            RecipeError: more top layers were asked for than there are.
            ModelError: the model has no layers to train.
        """
        if self.kind == "adapters":
            return _adapted(model, recipe, self.options)
        model.requires_grad_(self.kind == "all")
        if self.kind == "top":
            _thaw_top(model, recipe)
        return model


# Rates: adapters take about ten times the rate of full fine-tuning (Schulman et al. 2025, "LoRA Without Regret").
# rsLoRA scales its adapters by alpha / sqrt(rank), four times LoRA's at rank 16; PiSSA starts from the largest singular
# vectors, and LoRA+ multiplies the second factor's rate: all three want less.
METHODS: dict[str, LanguageMethod] = {
    method.name: method
    for method in (
        LanguageMethod("lora", "Low-rank adapters on all linear layers but the head (arXiv 2106.09685).", 2e-4),
        LanguageMethod(
            "rslora", "LoRA scaled by the root of its rank (arXiv 2312.03732).", 1e-4, options={"use_rslora": True}
        ),
        LanguageMethod(
            "dora", "LoRA with the weights' lengths apart (arXiv 2402.09353).", 2e-4, options={"use_dora": True}
        ),
        LanguageMethod(
            "pissa",
            "LoRA started from the largest singular vectors (arXiv 2404.02948).",
            1e-4,
            options={"init_lora_weights": "pissa"},
        ),
        LanguageMethod(
            "loraplus", "LoRA with a larger rate for the second factor (arXiv 2402.12354).", 1e-4, two_rates=True
        ),
        LanguageMethod(
            "qlora", "LoRA over weights held in 4 or 8 bits: less memory (arXiv 2305.14314).", 2e-4, quantized=True
        ),
        LanguageMethod("freeze", "The top layers; the lower ones and the head stay.", 5e-5, kind="top"),
        LanguageMethod("full", "Every weight.", 2e-5, kind="all"),
    )
}


def _adapted(model: Model, recipe: GenerationTuneRecipe, options: dict[str, object]) -> Model:
    from peft import LoraConfig, get_peft_model
    from transformers.pytorch_utils import Conv1D

    settings = {
        "r": recipe.adapter.rank,
        "lora_alpha": recipe.adapter.alpha,
        "lora_dropout": recipe.adapter.dropout,
        # All but the head: TRL multiplies by the head's weight directly and would leave an adapter there untrained.
        "target_modules": "all-linear",
        "task_type": "CAUSAL_LM",
        # GPT-2's Conv1D holds its weights as (in, out).
        "fan_in_fan_out": any(isinstance(module, Conv1D) for module in model.modules()),
    }
    return get_peft_model(model, LoraConfig(**{**settings, **options}))


def _thaw_top(model: Model, recipe: GenerationTuneRecipe) -> None:
    from edgetune.tune.methods.freeze import encoder_layers, top_of_trunk

    top_layers = recipe.freeze.top_layers
    top = max(1, len(encoder_layers(model)) // 3) if top_layers == "auto" else top_layers
    for module in top_of_trunk(model, top, "tune.freeze.top_layers"):
        module.requires_grad_(True)
