"""AdaLoRA's ranks while it trains: the least important products are set to nothing, until the budget is met.

The allocation is peft's. Unlike peft's own, adapters keep their shapes, so that each checkpoint opens in a fresh model,
and what is known of their importance is saved with it: a continued training ends as one that was not stopped.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from edgetune.tune.training.gradients import OrthogonalAdapters

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from edgetune.tune.models.types import Model

_FILE = "ranks.safetensors"
_KINDS = ("ipt", "exp_avg_ipt", "exp_avg_unc")
# Shares of the steps: before the first cut, and after the last.
_BEFORE, _AFTER, _CUTS = 0.1, 0.5, 50


class RankAllocation(TrainerCallback):
    """Cuts ranks after each optimizer step, by importance, on a schedule over all steps of the training."""

    def __init__(self, model: Model, folder: Path) -> None:
        """Of a model with AdaLoRA's adapters; `folder` has the checkpoints."""
        self._model, self._folder = model, folder
        self._allocator = model.base_model.rankallocator
        self._config = self._allocator.peft_config
        self.rule = OrthogonalAdapters(self._config.orth_reg_weight)
        self._left: dict[str, list[bool]] | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Spread the schedule over the steps, and take up what a checkpoint holds."""
        total = state.max_steps
        self._config.total_step = total
        self._config.tinit, self._config.tfinal = int(_BEFORE * total), int(_AFTER * total)
        self._config.deltaT = max(1, total // _CUTS)
        saved = self._folder / f"checkpoint-{state.global_step}" / _FILE
        if state.global_step and saved.is_file():
            for name, values in load_file(saved).items():
                kind, _, weight = name.partition("/")
                getattr(self._allocator, kind)[weight] = values
        if state.global_step > self._last_cut:
            self._left = self._masks()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Weigh what this step's gradients say, and cut."""
        inside = self._model.base_model.model
        if state.global_step < self._last_cut:
            self._allocator.update_and_allocate(inside, state.global_step)
        elif state.global_step == self._last_cut and self._allocator.ipt:
            _, self._left = self._allocator.update_and_allocate(inside, state.global_step, force_mask=True)
        elif self._left is not None:
            self._allocator.mask_using_rank_pattern(inside, self._left)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Keep the importances beside the checkpoint."""
        held = {f"{kind}/{name}": values for kind in _KINDS for name, values in getattr(self._allocator, kind).items()}
        folder = self._folder / f"checkpoint-{state.global_step}"
        if held and folder.is_dir():
            save_file({name: values.contiguous() for name, values in held.items()}, folder / _FILE)

    @property
    def _last_cut(self) -> int:
        return int(self._config.total_step - self._config.tfinal)

    def _masks(self) -> dict[str, list[bool]]:
        """Which products are left, by what was set to nothing."""
        return {
            name: (weight != 0).view(-1).tolist()
            for name, weight in self._model.base_model.model.named_parameters()
            if "lora_E" in name
        }
