"""The base as it will be tuned: model with head, tokenizer and longest input, opened together and found sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgetune.tune.models.base import open_tokenizer
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.folders import remarks
from edgetune.tune.models.model import longest_input, start_model
from edgetune.tune.models.sentences import check_modules
from edgetune.tune.models.soundness import check_vocabulary, settle_padding

if TYPE_CHECKING:
    from edgetune.tune.models.base import Base
    from edgetune.tune.recipe import TuneRecipe
    from edgetune.tune.tasks.objective import Objective
    from edgetune.tune.tasks.task import Task


@dataclass(frozen=True)
class Opened:
    """A base that is ready to be tuned.

    Attributes:
        model: the trunk with a fresh head.
        encoder: how the task's inputs become its batches.
        remarks: sentences on what was chosen for it.
    """

    model: Any
    encoder: Encoder
    remarks: tuple[str, ...]


def open_base(
    base: Base,
    task: Task,
    objective: Objective,
    recipe: TuneRecipe,
    depth_range: tuple[float, float] | None = None,
) -> Opened:
    """Open a base for a task.

    Args:
        depth_range: of pictures of more than 8 bits, where the data has such (`Dataset.depth_range`).

    Raises:
        ModelError: it has no classifier, its weights are missing or no numbers, or its tokenizer is of another model.
    """
    if not task.reads_text:
        return _open_for_pictures(base, task, objective, recipe, depth_range)
    if not task.has_head:
        check_modules(base.folder)
    model = start_model(base, objective, recipe, has_head=task.has_head)
    tokenizer = open_tokenizer(base)
    check_vocabulary(base, model, tokenizer)
    padding = settle_padding(tokenizer, model)
    most = longest_input(model, tokenizer, base)
    max_tokens = most if recipe.max_tokens == "auto" else min(most, recipe.max_tokens)
    said = tuple(filter(None, (*remarks(base.folder), padding)))
    return Opened(model, Encoder(tokenizer, max_tokens, task), said)


def _open_for_pictures(
    base: Base, task: Task, objective: Objective, recipe: TuneRecipe, depth_range: tuple[float, float] | None
) -> Opened:
    from edgetune.tune.models.picture_encoder import ALONE, PictureEncoder
    from edgetune.tune.models.picture_model import start_picture_model
    from edgetune.tune.models.picture_settings import open_processor, picture_spec

    model = start_picture_model(base, objective)
    processor = open_processor(base)
    spec = picture_spec(processor, base, depth_range)
    return Opened(model, PictureEncoder(processor, ALONE, task, spec, recipe.augment), remarks(base.folder))
