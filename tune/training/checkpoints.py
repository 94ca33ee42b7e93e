"""The checkpoints of a training: which one is whole, and a run that goes on from it to the end or to Ctrl-C.

Apart from the trainings of the tasks, which all continue this way.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from transformers import EarlyStoppingCallback, Trainer
from transformers.trainer import TRAINER_STATE_NAME

from edgetune.serve.errors import Interrupted
from edgetune.tune.training.interruption import StopOnInterrupt
from edgetune.tune.training.progress import Progress


def train_from_checkpoint(
    trainer: Trainer, stopper: StopOnInterrupt, patience: EarlyStoppingCallback, folder: Path, progress: Progress
) -> None:
    """Train from the last whole checkpoint in `folder`, if there is one, to the end or to Ctrl-C.

    Args:
        trainer: has `stopper` and `patience` among its callbacks.

    Raises:
        Interrupted: Ctrl-C; a checkpoint of the very step was saved.
    """
    checkpoint = last_whole_checkpoint(folder)
    if checkpoint:
        progress.say(f"training continues from {checkpoint.name}")
        patience.early_stopping_patience_counter = _epochs_without_gain(checkpoint)
    with stopper.listening():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if stopper.stopped:
        raise Interrupted(f"Training was stopped at step {trainer.state.global_step}; its checkpoint is kept.")


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was saved to its end; those that a kill or a full disk cut short are removed."""
    for path in sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        try:
            json.loads((path / TRAINER_STATE_NAME).read_text(encoding="utf-8"))  # what the Trainer writes last
        except (OSError, ValueError):
            shutil.rmtree(path)
        else:
            return path
    return None


def _epochs_without_gain(checkpoint: Path) -> int:
    """How far the patience had run down; by itself the Trainer would grant it anew with every continuation."""
    state = json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    saved = state["stateful_callbacks"][EarlyStoppingCallback.__name__]
    return int(saved["attributes"]["early_stopping_patience_counter"])
