"""What becomes of an earlier task: what its answers rest on before training, and its score before and after."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetune.serve.task_memory import TaskMemory
from edgetune.tune.data.dataset import Dataset, Part
from edgetune.tune.methods import Method
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import model_logits
from edgetune.tune.models.model import open_model
from edgetune.tune.recipe import ANCHORED, TuneRecipe
from edgetune.tune.training.fisher import fisher_diagonal
from edgetune.tune.training.gradients import StartAnchor
from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model

AUTO_STRENGTH = 1000.0
FISHER_ROWS = 200  # each a backward pass of its own


def memory_anchor(
    model: Model, encoder: Encoder, dataset: Dataset, recipe: TuneRecipe, method: Method, seed: int, progress: Progress
) -> StartAnchor | None:
    """The rule that holds on to what the earlier task rests on (EWC), of a model that is about to be trained.

    None where there is no earlier task, the strength is 0, or the method does not train the base's own weights.
    """
    earlier = dataset.remembered
    strength = AUTO_STRENGTH if recipe.ewc == "auto" else recipe.ewc
    if earlier is None or not strength:
        return None
    if method.name not in ANCHORED:
        progress.say(f"ewc is left out: {method.name} does not train the base's own weights")
        return None
    rows = earlier.train.texts[-FISHER_ROWS:]  # those that are learnt again stand first
    importance = fisher_diagonal(model, encoder, rows, seed=seed, progress=progress)
    return StartAnchor(model, strength / 2, outside=(), importance=importance)


def task_memories(
    dataset: Dataset, base: Path, base_labels: Sequence[str], model: Path, encoder: Encoder
) -> list[TaskMemory]:
    """Accuracy on the test rows of the earlier and of the new task, by the base as it came and by the tuned model.

    Args:
        base: folder of the model that had learnt the earlier task, whose outputs are `base_labels`.
        model: folder of the tuned model.
        encoder: of the tuned model.
    """
    earlier = dataset.remembered
    if earlier is None:
        return []
    border = len(dataset.test) - earlier.test_rows
    parts = {"new": _cut(dataset.test, 0, border), "earlier": _cut(dataset.test, border, len(dataset.test))}
    old_encoder = Encoder.of_folder(base, encoder.max_tokens, encoder.task)
    sides = {
        "before": (open_model(base), old_encoder, base_labels),
        "after": (open_model(model), encoder, dataset.labels),
    }
    memories = []
    for name, part in parts.items():
        if not len(part):
            continue
        expected = np.asarray([dataset.labels[int(target)] for target in part.targets])  # type: ignore[arg-type]
        values = {
            side: float(
                np.mean(np.asarray(labels)[model_logits(opened, encode, part.texts).argmax(axis=1)] == expected)
            )
            for side, (opened, encode, labels) in sides.items()
        }
        memories.append(TaskMemory(task=name, rows=len(part), before=values["before"], after=values["after"]))
    return memories


def remark_on_memory(memories: Sequence[TaskMemory]) -> str:
    """A sentence on what became of both tasks; empty without an earlier one."""
    figures = [
        f"{memory.after:.1%} of {memory.rows:,} test rows of the {memory.task} task ({memory.before:.1%} before)"
        for memory in memories
    ]
    return f"Right answers: {', '.join(figures)}." if figures else ""


def _cut(part: Part, start: int, end: int) -> Part:
    return Part(part.texts[start:end], part.targets[start:end])
