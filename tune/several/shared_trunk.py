"""Models of several tasks that share one trunk: each is a whole model of its task, whose trunk is the same module."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from edgetune.serve.errors import ModelError
from edgetune.tune.models.classifier import head_names

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model

TASK = "task"  # of a batch: the number of its task, once a row


def trunk_of(model: Model) -> Any:
    """The module that gives the token states."""
    return getattr(model, model.base_model_prefix)


def share_trunk(models: Mapping[str, Model]) -> None:
    """Give all models the trunk of one of them, in place: of one whose head reads the trunk's own pooler, if any does.

    Raises:
        ModelError: the trunks are of unlike classes.
    """
    trunks = {task: trunk_of(model) for task, model in models.items()}
    kinds = {type(trunk).__name__ for trunk in trunks.values()}
    if len(kinds) > 1:
        raise ModelError(
            f"The tasks would read trunks of {len(kinds)} classes: {', '.join(sorted(kinds))}.",
            expected="one encoder for all tasks",
            action="choose another --base, or build each task alone",
        )
    shared = max(trunks.values(), key=lambda trunk: sum(weight.numel() for weight in trunk.parameters()))
    for model in models.values():
        setattr(model, model.base_model_prefix, shared)


class SharedTrunk(nn.Module):
    """The models of all tasks as one module, for training: the trunk's weights are there once.

    A batch is of one task, whose number is in its `task`. The first model is registered whole, of the others the heads.
    """

    _keys_to_ignore_on_save = (
        None  # what the Trainer asks for where a checkpoint lacks the second name of a tied weight
    )

    def __init__(self, models: Mapping[str, Model], prepared: Model) -> None:
        """Of models that share a trunk; `prepared` is the first of them as a method has prepared it for training."""
        super().__init__()
        others = list(models)[1:]
        self.first = prepared
        self.heads = nn.ModuleDict()
        for number, task in enumerate(others):  # a task's name may be none that a module can have
            model = models[task]
            self.heads[f"head_{number}"] = nn.ModuleDict(
                {name: model.get_submodule(name) for name in head_names(model)}
            )
            for weight in self.heads[f"head_{number}"].parameters():
                weight.requires_grad_(True)
        self._models = (prepared, *(models[task] for task in others))  # a tuple, so that nothing is registered twice

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> SharedTrunk:
        """As of any module, also of the parts of models that have no weights, such as dropout."""
        for model in self._models:
            model.train(mode)
        return super().train(mode)

    def forward(
        self,
        task: torch.Tensor,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> Any:
        """The outputs of the task that a batch is of: `task` (rows,) int64, all the same, others (rows, tokens) int64.

        Named one by one: the Trainer gives a forward with free keywords one that models do not take.
        """
        batch = {"input_ids": input_ids, "attention_mask": attention_mask}
        if token_type_ids is not None:
            batch["token_type_ids"] = token_type_ids
        return self._models[int(task[0])](**batch)
