"""The steps and evaluations of a training as lines of progress.

Apart from progress.py, which stages without a Trainer import too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from transformers import TrainerCallback

from edgetune.tune.training.progress import EvaluationWatcher, Progress

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


class StepReporter(TrainerCallback):
    """Tells the progress line each step, and each evaluation in a task's own words."""

    def __init__(self, progress: Progress, describe: Callable[[Mapping[str, float]], str]) -> None:
        """Report to `progress`; `describe` says what an evaluation found, of its metrics by name."""
        self._progress = progress
        self._told = describe

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Advance the line."""
        self._progress.advance(
            state.global_step, state.max_steps, f"epoch {state.epoch:.1f} of {state.num_train_epochs}"
        )

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Say what was found, and tell a watcher."""
        if metrics:
            self._progress.say(f"epoch {state.epoch:.0f}: {self._told(metrics)}")
        if metrics and "eval_value" in metrics and isinstance(self._progress, EvaluationWatcher):
            self._progress.evaluated(float(state.epoch or 0), metrics["eval_value"])
