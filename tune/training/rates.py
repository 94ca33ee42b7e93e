"""The learning rate of each weight: of the head, of the layers by their height, and of adapters' second factors."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from edgetune.tune.methods.freeze import after_layers, layer_list

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model


@dataclass(frozen=True)
class Rates:
    """Peak learning rates.

    Attributes:
        trunk: of what is trained below the head.
        head: of the head; None trains it at the trunk's.
        head_names: the top-level modules that are the head.
        ratio: how many times its rate the second factor of an adapter gets (LoRA+, arXiv 2402.12354).
        layer_decay: each layer's rate is that of the layer above it times this (arXiv 1801.06146, arXiv 2006.05987).
    """

    trunk: float
    head: float | None = None
    head_names: tuple[str, ...] = ()
    ratio: float = 1.0
    layer_decay: float = 1.0

    def in_head(self, name: str) -> bool:
        """Whether a weight is of the head, by its full name."""
        return any(part in self.head_names for part in name.split("."))

    def of_weights(self, model: Model) -> dict[str, float]:
        """The rate of each trained weight, by its full name."""
        below_top = _layers_below_top(model) if self.layer_decay != 1 else {}
        rates = {}
        for name, weight in model.named_parameters():
            if not weight.requires_grad:
                continue
            if self.head is not None and self.in_head(name):
                rates[name] = self.head
                continue
            factor = self.ratio if "lora_B" in name or "lora_embedding_B" in name else 1.0
            rates[name] = self.trunk * factor * self.layer_decay ** below_top.get(id(weight), 0)
        return rates

    def optimizer(
        self, model: Model, *, weight_decay: float, decayed: Collection[str], anchored: Collection[str] = ()
    ) -> torch.optim.AdamW:
        """AdamW over the trained weights, one group for each rate and decay.

        Args:
            decayed: names of the weights that decay, if they have no anchor to which they are drawn instead.
        """
        groups: dict[tuple[float, float], list[Any]] = {}
        weights = dict(model.named_parameters())
        for name, rate in self.of_weights(model).items():
            decay = weight_decay if name in decayed and name not in anchored else 0.0
            groups.setdefault((rate, decay), []).append(weights[name])
        listed = [
            {"params": members, "lr": rate, "weight_decay": decay}
            for (rate, decay), members in sorted(groups.items(), key=lambda group: group[0], reverse=True)
        ]
        return torch.optim.AdamW(listed, lr=self.trunk, fused=True)


def _layers_below_top(model: Model) -> dict[int, int]:
    """How many layers stand above each weight's, by the weight's id; of embeddings all do, of what follows none."""
    inside = model.get_base_model() if hasattr(model, "get_base_model") else model
    layers = layer_list(inside)
    if layers is None:
        return {}
    above = {id(weight): len(layers) for weight in inside.parameters()}
    for place, layer in enumerate(layers):
        above |= {id(weight): len(layers) - 1 - place for weight in layer.parameters()}
    behind = [*after_layers(inside, layers[-1]), *_outside_trunk(inside)]
    return above | {id(weight): 0 for module in behind for weight in module.parameters()}


def _outside_trunk(model: Model) -> list[Any]:
    return [module for name, module in model.named_children() if name != model.base_model_prefix]
