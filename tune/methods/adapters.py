"""LoRA and its kin through peft, for both families of graphs: one row each in `ADAPTERS`, and how they are put on.

They differ by peft's configuration alone, so a row is all that a new one needs; all are merged into the weights after
training. Must not import torch or peft when it is imported: the recipe reads the table.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgetune.serve.errors import ModelError, RecipeError
from edgetune.tune.models.adapted import keep_readable

if TYPE_CHECKING:
    from torch import nn

    from edgetune.tune.models.types import Model
    from edgetune.tune.recipe import AdapterRecipe


@dataclass(frozen=True)
class Adapter:
    """A kind of adapter.

    Attributes:
        name: of the method that trains it.
        summary: one sentence for `--help`, with the paper it comes from.
        rate: default peak learning rate in an encoder.
        language_rate: the same in a language model.
        config: the class of its configuration in peft.
        options: fields of that configuration which make this kind.
        rank_factor: how many times the recipe's rank it has.
        linear_only: whether it adapts linear layers and no convolutions.
        rate_ratio: how many times the rate the second factor of its products learns at; 0 where it has none.
    """

    name: str
    summary: str
    rate: float
    language_rate: float
    config: str = "LoraConfig"
    options: dict[str, Any] = field(default_factory=dict)
    rank_factor: int = 1
    linear_only: bool = False
    rate_ratio: float = 1.0

    def ratio(self, settings: AdapterRecipe) -> float:
        """How many times the rate the second factor learns at.

        Raises:
            RecipeError: the recipe sets one, and there is no second factor.
        """
        if settings.rate_ratio == "auto":
            return self.rate_ratio or 1.0
        if not self.rate_ratio:
            raise RecipeError(
                f"rate_ratio is {settings.rate_ratio:g}, and {self.name} has no second factor that could learn faster.",
                expected="auto, or a method whose adapters are products: lora, rslora, dora, pissa, loraplus, adalora",
            )
        return settings.rate_ratio

    def put_on(
        self, model: Model, settings: AdapterRecipe, *, section: str, task: str | None = None, saved: Sequence[str] = ()
    ) -> Model:
        """Wrap the model in adapters, with nothing else trained but the modules in `saved`.

        Args:
            section: of the recipe that the settings are from, for errors: `tune.lora`.
            task: peft's type of task, where it has a wrapper for it.
            saved: names of modules that are trained whole and saved with the adapters.

        Raises:
            RecipeError: targets or top layers that the model does not have.
            ModelError: the model has no layers that can be adapted.
        """
        import peft
        from peft.tuners.lora import LoraLayer
        from transformers.pytorch_utils import Conv1D

        self.ratio(settings)  # refused before training, and in a plan
        names = target_names(model, settings, section=section, linear_only=self.linear_only)
        values = {
            **self._sizes(settings),
            "target_modules": names,
            "modules_to_save": list(saved) or None,
            "task_type": task,
            # GPT-2's Conv1D holds its weights as (in, out).
            "fan_in_fan_out": any(isinstance(model.get_submodule(name), Conv1D) for name in names),
        }
        adapted = peft.get_peft_model(model, getattr(peft, self.config)(**values, **self.options))
        for layer in adapted.modules():
            if isinstance(layer, LoraLayer):
                # Under autocast peft would cast each input to fp32, for autocast to cast it back.
                layer.cast_input_dtype_enabled = False
        return keep_readable(adapted)

    def _sizes(self, settings: AdapterRecipe) -> dict[str, Any]:
        """Rank, scale and dropout by the names that the configuration has for them."""
        rank = self.rank_factor * settings.rank
        if self.config == "IA3Config":
            return {"feedforward_modules": []}
        if self.config == "VeraConfig":
            return {"r": rank, "vera_dropout": settings.dropout}
        sizes: dict[str, Any] = {"lora_alpha": settings.alpha, "lora_dropout": settings.dropout}
        if self.config == "AdaLoraConfig":
            # Begins half as large again, as the paper does; the steps are known where training begins (ranks.py).
            return {**sizes, "init_r": math.ceil(1.5 * rank), "target_r": rank, "total_step": 1}
        return {**sizes, "r": rank}


# Rates of encoders: docs/log.md has what was tried. LoRA from a probed head at 3e-4 is steady, at 3e-3 it forgets the
# probe in one epoch. Those of language models: adapters take about ten times the rate of full fine-tuning (Schulman et
# al. 2025, "LoRA Without Regret"). rsLoRA scales its adapters by alpha / sqrt(rank), four times LoRA's at rank 16;
# PiSSA starts from the largest singular vectors, and LoRA+ multiplies the second factor's rate: all three want less.
# VeRA and IA3 train vectors alone, which take ten times as much; so does AdaLoRA, which divides by its rank.
ADAPTERS: dict[str, Adapter] = {
    adapter.name: adapter
    for adapter in (
        Adapter("lora", "Low-rank adapters on all linear layers but the head (arXiv 2106.09685).", 3e-4, 2e-4),
        Adapter(
            "rslora",
            "LoRA scaled by the root of its rank (arXiv 2312.03732).",
            1.5e-4,
            1e-4,
            options={"use_rslora": True},
        ),
        Adapter(
            "dora",
            "LoRA with the weights' lengths apart (arXiv 2402.09353).",
            3e-4,
            2e-4,
            options={"use_dora": True},
        ),
        Adapter(
            "pissa",
            "LoRA started from the largest singular vectors (arXiv 2404.02948).",
            1.5e-4,
            1e-4,
            options={"init_lora_weights": "pissa"},
            linear_only=True,
        ),
        Adapter(
            "loraplus",
            "LoRA with a larger rate for the second factor (arXiv 2402.12354).",
            1e-4,
            1e-4,
            rate_ratio=16.0,
        ),
        Adapter(
            "adalora",
            "LoRA whose ranks move to the layers that need them (arXiv 2303.10512).",
            2e-3,
            2e-3,
            config="AdaLoraConfig",
            linear_only=True,
        ),
        Adapter(
            "vera",
            "Trained vectors around random products that all layers share (arXiv 2310.11454).",
            3e-3,
            3e-3,
            config="VeraConfig",
            rank_factor=16,
            linear_only=True,
            rate_ratio=0.0,
        ),
        Adapter(
            "ia3",
            "A trained factor for each output of the linear layers (arXiv 2205.05638).",
            3e-3,
            3e-3,
            config="IA3Config",
            rate_ratio=0.0,
        ),
    )
}


def target_names(
    model: nn.Module, settings: AdapterRecipe, *, section: str = "tune.lora", linear_only: bool = False
) -> list[str]:
    """Full names of the layers that get adapters: linear ones outside the head, by the recipe's ends and top layers.

    Raises:
        RecipeError: a name that no such layer ends with, or more layers than there are.
        ModelError: the model has none.
    """
    from edgetune.tune.methods.freeze import top_of_trunk

    names = linear_names(model, linear_only=linear_only)
    if settings.targets != "all":
        unknown = [end for end in settings.targets if not any(_ends(name, end) for name in names)]
        if unknown:
            endings = sorted({name.rpartition(".")[2] for name in names})
            raise RecipeError(
                f"{section}.targets names {', '.join(map(repr, unknown))}, and no linear layer of the model ends so.",
                expected=f"all, or some of {', '.join(endings)}",
            )
        names = [name for name in names if any(_ends(name, end) for end in settings.targets)]
    if settings.top_layers != "all":
        adapted_parts = top_of_trunk(model, settings.top_layers, f"{section}.top_layers")
        inside = {id(module) for part in adapted_parts for module in part.modules()}
        names = [name for name in names if id(model.get_submodule(name)) in inside]
        if not names:
            raise RecipeError(
                f"{section}.targets and {section}.top_layers leave no layer to adapt.", expected="at least one layer"
            )
    return names


def linear_names(model: nn.Module, *, linear_only: bool = False) -> list[str]:
    """Full names of the linear layers that are not part of the head; of a model without, its convolutions of one pixel.

    Raises:
        ModelError: there is none that can be adapted.
    """
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    from edgetune.tune.models.classifier import head_names

    head = head_names(model)
    modules = [(name, module) for name, module in model.named_modules() if name.split(".")[0] not in head]
    names = [name for name, module in modules if isinstance(module, nn.Linear | Conv1D)]
    if names:
        return names
    # Of convolutions those of one pixel are products of a matrix; depthwise ones are not.
    names = [name for name, module in modules if isinstance(module, nn.Conv2d) and module.groups == 1]
    if names and not linear_only:
        return names
    raise ModelError(
        f"The model has no linear layers to adapt{', only convolutions' if names else ''}.",
        action=f"use {'method lora or full' if names else '--method full'}",
    )


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")
