"""How long a training lasts: passes over the rows, in rounds where further ones hang on the gain of those before.

Apart from the training, since a plan asks before anything is trained.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.tune.methods import METHODS
from edgetune.tune.recipe import TuneRecipe

if TYPE_CHECKING:
    from edgetune.tune.tasks.task import Task

MOST_ROUNDS = 3
TOKEN_PATIENCE = 3  # F1 of exact spans stands still, or falls, for an epoch or two while borders are learnt


@dataclass(frozen=True)
class TrainingLength:
    """The length of a training, decided.

    Attributes:
        epochs: most passes.
        round_epochs: passes of a round; 0 where there are no rounds.
        patience: evaluations, or rounds, without gain after which training stops.
    """

    epochs: float
    round_epochs: int
    patience: int

    @classmethod
    def of(cls, recipe: TuneRecipe, rows: int, task: Task | None = None, *, together: bool = False) -> TrainingLength:
        """Of a recipe, for so many training rows; epochs that the user has set are run in one go.

        So are those of a task on tokens, which no probe stands for, and of pictures, which look different in every
        epoch: there the best models come last, once the rates have fallen. Of several tasks that are learnt together
        what one gains in a round says little of the others.
        """
        method, per_token = METHODS[recipe.method], task is not None and task.per_token
        batch_size = recipe.step_rows(per_token=per_token)
        usual, epochs = method.patience, 0
        if together or per_token:
            usual, epochs = max(TOKEN_PATIENCE, usual), token_epochs(rows, batch_size)
        elif task is not None and not task.reads_text:
            usual = epochs = automatic_epochs(rows, batch_size)
        patience = usual if recipe.patience == "auto" else recipe.patience
        if recipe.epochs != "auto":
            return cls(recipe.epochs, 0, patience)
        if epochs:
            return cls(float(epochs), 0, patience)
        if method.by_gain:
            passes = automatic_round(rows, batch_size)
            return cls(float(MOST_ROUNDS * passes), passes, patience)
        return cls(float(automatic_epochs(rows, batch_size)), 0, patience)


def automatic_epochs(rows: int, batch_size: int) -> int:
    """3 passes, and more on small data, so that about 300 steps are taken; at most 10."""
    return max(3, min(10, math.ceil(300 / max(1, math.ceil(rows / batch_size)))))


def token_epochs(rows: int, batch_size: int) -> int:
    """4 passes, and more on small data, so that about 600 steps are taken; at most 15."""
    return max(4, min(15, math.ceil(600 / max(1, math.ceil(rows / batch_size)))))


def automatic_round(rows: int, batch_size: int) -> int:
    """The passes of a round: one, and more on small data, so that about 100 steps are taken; at most 5."""
    return max(1, min(5, math.ceil(100 / max(1, math.ceil(rows / batch_size)))))
