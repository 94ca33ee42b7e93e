"""The tuning methods: one file a method, one row in `METHODS`. Must not import torch: the recipe reads it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model
    from edgetune.tune.recipe import TuneRecipe

Prepare = Callable[[Any, "TuneRecipe"], Any]


@dataclass(frozen=True)
class Method:
    """A way to tune.

    Attributes:
        name: as recipes name it, and the module in this folder that holds its `prepare(model, recipe)`,
            which marks what is trained and returns the model to train; `auto` has `settle` instead.
        summary: one sentence for `--help`.
        trunk_rate: default peak learning rate of what is trained below the head.
        head_rate: default peak learning rate of the head.
        trains: False for the probe, which is solved and not trained.
        patience: default evaluations without gain after which training stops.
        by_gain: whether training goes on, and its model is handed on, only where the gain on the validation part
            exceeds its standard error (training/gain.py); trained without the base's dropout, in short rounds.
    """

    name: str
    summary: str
    trunk_rate: float
    head_rate: float
    trains: bool = True
    patience: int = 2
    by_gain: bool = False

    def settled(self, model: Model, device: str) -> Method:
        """The method that trains `model`, whose name what is trained goes by; `auto` chooses one of the others."""
        if self.name != "auto":
            return self
        from edgetune.tune.methods.auto import settle

        return METHODS[settle(model, device)]

    def prepare(self, model: Model, recipe: TuneRecipe) -> Model:
        """Mark what is trained in `model`; returns the model to train, wrapped where the method wraps. Of a settled
        method alone."""
        module = importlib.import_module(f"edgetune.tune.methods.{self.name}")
        return cast(Prepare, module.prepare)(model, recipe)


# Rates: docs/log.md has what was tried. LoRA from a probed head at 3e-4 is steady, at 3e-3 it forgets the probe in one
# epoch. What `auto` chooses is trained at the rates of the method that it settles on.
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
        Method("lora", "Low-rank adapters on all linear layers, merged afterwards.", 3e-4, 3e-4),
        Method("layers", "All layers and the head; the token embeddings stay.", 1e-4, 1e-3),
        Method("freeze", "The top layers and the head; the lower layers stay.", 1e-4, 1e-3),
        Method("full", "Every weight.", 5e-5, 1e-3),
    )
}
