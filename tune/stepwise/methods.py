"""The ways to fine-tune a language model: one row each in `METHODS`, and what each does to the model.

LoRA and its kin are those of encoders (`edgetune.tune.methods.adapters`). Must not import torch or peft when it is
imported: the recipe reads the table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.tune.methods.adapters import ADAPTERS, Adapter

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
        adapter: beside frozen weights, or None where weights themselves are trained.
        trains_all: of a method without adapters, whether every weight is trained, or the top layers alone.
        quantized: whether the frozen weights are held in 4 or 8 bits while training.
        has_prompt: whether virtual tokens before each sequence are trained, and no weight.
    """

    name: str
    summary: str
    rate: float
    adapter: Adapter | None = None
    trains_all: bool = False
    quantized: bool = False
    has_prompt: bool = False

    @property
    def has_adapters(self) -> bool:
        """Whether there is something to merge."""
        return self.adapter is not None

    def rate_ratio(self, recipe: GenerationTuneRecipe) -> float:
        """How many times the rate the adapters' second factor learns at (LoRA+)."""
        return 1.0 if self.adapter is None else self.adapter.ratio(recipe.adapter)

    def prepare(self, model: Model, recipe: GenerationTuneRecipe) -> Model:
        """Mark what is trained in `model`; returns the model to train, wrapped where the method has adapters.

        Raises:
            RecipeError: layers were asked for that the model does not have, or more virtual tokens than it keeps.
            ModelError: the model has no layers to train.
        """
        if self.adapter is not None:
            # All but the head: TRL multiplies by the head's weight directly and would leave an adapter there untrained.
            return self.adapter.put_on(model, recipe.adapter, section="tune.adapter", task="CAUSAL_LM")
        if self.has_prompt:
            from edgetune.tune.stepwise.first_cache import train_first_cache

            return train_first_cache(model, recipe)
        model.requires_grad_(self.trains_all)
        if not self.trains_all:
            _thaw_top(model, recipe)
        return model


METHODS: dict[str, LanguageMethod] = {
    method.name: method
    for method in (
        *(
            LanguageMethod(adapter.name, adapter.summary, adapter.language_rate, adapter)
            for adapter in ADAPTERS.values()
        ),
        LanguageMethod(
            "qlora",
            "LoRA over weights held in 4 or 8 bits: less memory (arXiv 2305.14314).",
            2e-4,
            ADAPTERS["lora"],
            quantized=True,
        ),
        LanguageMethod("prompt", "Virtual tokens before each sequence (arXiv 2104.08691).", 1e-2, has_prompt=True),
        LanguageMethod(
            "p-tuning",
            "Virtual tokens that a small network gives (arXiv 2103.10385).",
            1e-3,
            has_prompt=True,
        ),
        LanguageMethod(
            "prefix",
            "Keys and values in each layer before each sequence (arXiv 2101.00190).",
            1e-2,
            has_prompt=True,
        ),
        LanguageMethod("freeze", "The top layers; the lower ones and the head stay.", 5e-5),
        LanguageMethod("full", "Every weight.", 2e-5, trains_all=True),
    )
}


def _thaw_top(model: Model, recipe: GenerationTuneRecipe) -> None:
    from edgetune.tune.methods.freeze import encoder_layers, top_of_trunk

    top_layers = recipe.freeze.top_layers
    top = max(1, len(encoder_layers(model)) // 3) if top_layers == "auto" else top_layers
    for module in top_of_trunk(model, top, "tune.freeze.top_layers"):
        module.requires_grad_(True)
