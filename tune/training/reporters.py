"""Where the Trainer sends the curves of a training beside our own report: other people's trackers, none by default.

Stands apart from the trainers, so that a missing package stops a build before it begins. Must not import transformers
on import.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from edgetune.serve.errors import MissingDependency

Reporter = Literal["tensorboard", "mlflow", "wandb"]

# Reporter: packages of which the Trainer needs one, the first of them the usual one.
_PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "mlflow": ("mlflow",), "wandb": ("wandb",)}


def require_reporters(names: Iterable[Reporter]) -> None:
    """Check that the packages of all reporters can be imported, without importing them.

    Raises:
        MissingDependency: naming all that are missing and the pip command.
    """
    missing = [name for name in names if all(importlib.util.find_spec(package) is None for package in _PACKAGES[name])]
    if missing:
        raise MissingDependency(
            f"tune.report_to names what is not installed: {', '.join(missing)}.",
            action=f"pip install {' '.join(missing)}, or take {'it' if len(missing) == 1 else 'them'} off the list",
        )


def keep_event_files(trainer: Any, folder: Path) -> None:
    """Let TensorBoard's files lie in `folder`, unless TENSORBOARD_LOGGING_DIR names another.

    The Trainer would put them beside its checkpoints, which are removed after the training.

    Args:
        trainer: a Trainer that was made and has not begun.
        folder: is made if there is anything to write.
    """
    from transformers.integrations import TensorBoardCallback

    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(folder)
