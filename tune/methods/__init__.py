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
            which marks what is trained and returns the model to train.
        summary: one sentence for `--help`.
        trunk_rate: default peak learning rate of what is trained below the head.
        head_rate: default peak learning rate of the head.
        trains: False for the probe, which is solved and not trained.
        patience: default evaluations without gain after which training stops.
        learns: what the trained model is called where it is handed on; the method's own name unless said.
    """

    name: str
    summary: str
    trunk_rate: float
    head_rate: float
    trains: bool = True
    patience: int = 2
    learns: str = ""

    @property
    def trained_name(self) -> str:
        """What a model that this method has trained is called."""
        return self.learns or self.name

    def prepare(self, model: Model, recipe: TuneRecipe) -> Model:
        """Mark what is trained in `model`; returns the model to train, wrapped where the method wraps."""
        module = importlib.import_module(f"edgetune.tune.methods.{self.name}")
        return cast(Prepare, module.prepare)(model, recipe)


# Rates: docs/log.md has what was tried. LoRA from a probed head at 3e-3 forgets the probe in one epoch.
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "auto",
            "The probe, then LoRA from there, stopped early; the better on the validation part is kept.",
            3e-4,
            3e-4,
            patience=1,
            learns="lora",
        ),
        Method("probe", "Only the head, by logistic regression: seconds.", 0.0, 0.0, trains=False),
        Method("lora", "Low-rank adapters on all linear layers, merged afterwards.", 3e-4, 3e-4),
        Method("freeze", "The top layers and the head; the lower layers stay.", 1e-4, 1e-3),
        Method("full", "Every weight.", 5e-5, 1e-3),
    )
}
