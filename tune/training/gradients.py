"""What changes the gradients of a step before they are clipped: staying near the start, orthogonal adapters, thawing.

Gradients and not losses, so that it acts once a step whatever passes, accumulations and processes the step is made of,
and evaluations show the task's own loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from transformers import Trainer

from edgetune.tune.methods.freeze import encoder_layers

if TYPE_CHECKING:
    from torch import nn

    from edgetune.tune.models.types import Model


class GradientRule(Protocol):
    """A change of the gradients that a step ends with."""

    def apply(self, model: Model, epoch: float) -> None:
        """Change `weight.grad` of the model's weights in place, `epoch` passes after the start."""


class RuledTrainer(Trainer):
    """A Trainer that applies rules to the gradients of each step, before they are clipped."""

    rules: Sequence[GradientRule] = ()

    def _clip_grad_norm(self, model: Any) -> Any:
        for rule in self.rules:
            rule.apply(self.accelerator.unwrap_model(model), float(self.state.epoch or 0))
        return super()._clip_grad_norm(model)


class StartAnchor:
    """Draws trained weights back to where they started: the gradient of strength x sum of importance x (w - start)^2.

    With an importance of one for each weight that is L2-SP (Li et al. 2018, arXiv 1802.01483); with the diagonal of the
    Fisher information on an earlier task it is EWC (Kirkpatrick et al. 2017, arXiv 1612.00796), whose lambda is twice
    the strength.
    """

    def __init__(
        self,
        model: Model,
        strength: float,
        *,
        outside: Sequence[str],
        importance: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        """Remember the weights as they are now.

        Args:
            outside: names of modules without an anchor, such as a new head.
            importance: by name, of the shape of each weight; weights without one have no anchor.
        """
        self._strength, self._importance = strength, importance
        self.anchors = {
            name: weight.detach().clone()
            for name, weight in model.named_parameters()
            if weight.requires_grad
            and not any(part in outside for part in name.split("."))
            and (importance is None or name in importance)
        }

    def apply(self, model: Model, epoch: float) -> None:
        """Add the gradient of the penalty."""
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name not in self.anchors or weight.grad is None:
                    continue
                moved = weight - self.anchors[name].to(weight.device)
                if self._importance is not None:
                    moved *= self._importance[name].to(weight.device)
                weight.grad.add_(moved, alpha=2 * self._strength)


class OrthogonalAdapters:
    """Keeps the factors of AdaLoRA's products orthogonal, without which its singular values would say nothing."""

    def __init__(self, weight: float) -> None:
        self._weight = weight

    def apply(self, model: Model, epoch: float) -> None:
        """Add the gradient of weight x mean ||A A' - 1||, as peft adds the loss to a model that gives losses."""
        factors = [
            (name, factor)
            for name, factor in model.named_parameters()
            if ("lora_A" in name or "lora_B" in name) and factor.grad is not None
        ]
        with torch.no_grad():
            for name, factor in factors:
                rows = factor if "lora_A" in name else factor.T
                excess = rows @ rows.T - torch.eye(len(rows), device=rows.device)
                gradient = 2 * excess @ rows / excess.norm().clamp(min=1e-12)
                assert factor.grad is not None
                factor.grad.add_(
                    gradient if "lora_A" in name else gradient.T, alpha=self._weight / max(1, len(factors))
                )


class GradualThawing:
    """Trains one more layer each epoch, from the top (Howard and Ruder 2018, arXiv 1801.06146); the topmost at once."""

    def __init__(self, model: nn.Module) -> None:
        """Of the layers in which anything is trained now."""
        layers = [layer for layer in encoder_layers(model) if any(w.requires_grad for w in layer.parameters())]
        self._from_top = layers[::-1]

    def apply(self, model: Model, epoch: float) -> None:
        """Drop the gradients of layers whose turn has not come."""
        for layer in self._from_top[1 + int(epoch) :]:
            for weight in layer.parameters():
                weight.grad = None


def anchored_names(rules: Sequence[GradientRule]) -> set[str]:
    """Names of the weights that are drawn to their start, and need no decay."""
    return {name for rule in rules if isinstance(rule, StartAnchor) for name in rule.anchors}
