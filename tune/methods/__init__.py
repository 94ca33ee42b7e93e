"""The tuning methods: one file a method, one row in `METHODS`. Must not import torch: the recipe reads it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from edgetune.tune.methods.adapters import ADAPTERS

if TYPE_CHECKING:
    from edgetune.tune.models.encoder import Encoder
    from edgetune.tune.models.types import Model
    from edgetune.tune.recipe import TuneRecipe

Prepare = Callable[[Any, "TuneRecipe"], Any]


@dataclass(frozen=True)
class Method:
    """A way to tune.

    Attributes:
        name: as recipes name it, and the module in this folder that holds its `prepare(model, recipe)`,
            which marks what is trained and returns the model to train; `auto` has `settle` instead. Those in
            `ADAPTERS` have no module of their own.
        summary: one sentence for `--help`.
        trunk_rate: default peak learning rate of what is trained below the head.
        head_rate: default peak learning rate of the head.
        trains: False for the probe, which is solved and not trained.
        patience: default evaluations without gain after which training stops.
        by_gain: whether training goes on, and its model is handed on, only where the gain on the validation part
            exceeds its standard error (training/gain.py); in short rounds, without the base's dropout.
        has_prompt: whether it puts virtual tokens before each text.
    """

    name: str
    summary: str
    trunk_rate: float
    head_rate: float
    trains: bool = True
    patience: int = 2
    by_gain: bool = False
    has_prompt: bool = False

    def settled(self, model: Model, device: str) -> Method:
        """The method that trains `model`, whose name what is trained goes by; `auto` chooses one of the others."""
        if self.name != "auto":
            return self
        from edgetune.tune.methods.auto import settle

        return METHODS[settle(model, device)]

    def drops_out(self, *, per_token: bool) -> bool:
        """Whether the base's dropout stays. Tags of tokens are learnt in many passes, and by heart without it: 4 points
        of F1 on wnut17 (docs/log.md); a label that is learnt in one or two gains more without."""
        return per_token or not self.by_gain

    def rate_ratio(self, recipe: TuneRecipe) -> float:
        """How many times the rate the second factor of adapters learns at."""
        return ADAPTERS[self.name].ratio(recipe.lora) if self.name in ADAPTERS else 1.0

    def encoder(self, model: Model, encoder: Encoder, recipe: TuneRecipe) -> Encoder:
        """What encodes texts for this method; where it has a prompt, `model` gets rows for its tokens."""
        if not self.has_prompt:
            return encoder
        from edgetune.tune.methods.virtual_tokens import extended

        return extended(model, encoder, recipe)

    def prepare(self, model: Model, recipe: TuneRecipe) -> Model:
        """Mark what is trained in `model`; returns the model to train, wrapped where the method wraps. Of a settled
        method alone."""
        if self.name in ADAPTERS:
            from edgetune.tune.models.classifier import head_names

            return ADAPTERS[self.name].put_on(model, recipe.lora, section="tune.lora", saved=head_names(model))
        module = importlib.import_module(f"edgetune.tune.methods.{self.name.replace('-', '_')}")
        return cast(Prepare, module.prepare)(model, recipe)


# Rates: docs/log.md has what was tried. What `auto` chooses is trained at the rates of the method that it settles on.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "auto",
            "The probe, then all layers in short rounds (LoRA where memory is short); kept where it gains by more than "
            "chance on the validation part.",
            0.0,
            0.0,
            patience=1,
            by_gain=True,
        ),
        Method("probe", "Only the head, by logistic regression: seconds.", 0.0, 0.0, trains=False),
        *(Method(adapter.name, adapter.summary, adapter.rate, 3e-4) for adapter in ADAPTERS.values()),
        Method(
            "prompt", "Virtual tokens before each text (arXiv 2104.08691), and the head.", 1e-2, 1e-3, has_prompt=True
        ),
        Method(
            "p-tuning",
            "Virtual tokens that a small network gives (arXiv 2103.10385), and the head.",
            1e-3,
            1e-3,
            has_prompt=True,
        ),
        Method("layers", "All layers and the head; the token embeddings stay.", 1e-4, 1e-3),
        Method("freeze", "The top layers and the head; the lower layers stay.", 1e-4, 1e-3),
        Method("full", "Every weight.", 5e-5, 1e-3),
    )
}
