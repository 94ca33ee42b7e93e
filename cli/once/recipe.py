"""The recipe of the family `once`: what the user says, one section per stage, each defined in its stage."""

from __future__ import annotations

from pydantic import ValidationInfo, field_validator

from edgetune.benchmarks.answer_recipe import AnswerRecipe
from edgetune.benchmarks.recipe import BenchmarkRecipe, BudgetRecipe, GateRecipe
from edgetune.compress.recipe import CompressRecipe
from edgetune.export.recipe import ExportRecipe
from edgetune.recipe import Recipe
from edgetune.serve.errors import RecipeError
from edgetune.sweep.recipe import SweepRecipe
from edgetune.tune.data.augmentation import AugmentRecipe
from edgetune.tune.data.dataset import DataRecipe
from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.tasks.task import Task


class OnceRecipe(Recipe):
    """One build of a model that answers by one run of its graph, whole."""

    family = "once"
    data: DataRecipe
    tune: TuneRecipe = TuneRecipe()
    export: ExportRecipe = ExportRecipe()
    compress: CompressRecipe = CompressRecipe()
    gate: GateRecipe = GateRecipe()
    budget: BudgetRecipe = BudgetRecipe()
    benchmark: BenchmarkRecipe = BenchmarkRecipe()
    answer: AnswerRecipe = AnswerRecipe()
    sweep: SweepRecipe = SweepRecipe()

    @field_validator("data")
    @classmethod
    def _with_classes_of_the_task(cls, data: DataRecipe, values: ValidationInfo) -> DataRecipe:
        """Texts of no class are only read where a text has one class."""
        task = TASKS.get(values.data.get("task", ""))
        if task is not None and not task.one_label and data.out_of_scope is not None:
            raise ValueError(f"out_of_scope is {data.out_of_scope}, but {_never_unsure(task)}; expected none")
        if data.replay and data.remember is None:
            raise ValueError(f"replay is {data.replay:g}, and there is no remember to draw rows from; expected 0")
        if task is not None and data.remember is not None and (not task.one_label or not task.reads_text):
            raise ValueError(f"remember is given, but {task.name} has not one label a text; expected none")
        if data.augment.kinds and (problem := _unaugmented(task, data)):
            raise ValueError(f"augment is given, but {problem}; expected none")
        given = [name for name in ("negative", "prompts") if getattr(data, name) is not None]
        if task is not None and task.has_head and given:
            raise ValueError(f"{given[0]} is given, which {task.name} does not use; expected it for embeddings alone")
        return data

    @field_validator("tune")
    @classmethod
    def _learnt_by_the_task(cls, tune: TuneRecipe, values: ValidationInfo) -> TuneRecipe:
        """Classes are weighed only where there are any, and vectors cut where there are such."""
        task = TASKS.get(values.data.get("task", ""))
        data = values.data.get("data")
        if tune.ewc not in ("auto", 0) and data is not None and data.remember is None:
            raise ValueError(f"ewc is {tune.ewc:g}, and data.remember names no earlier rows; expected auto or 0")
        if task is not None and not task.has_labels and tune.class_weights != "none":
            raise ValueError(f"class_weights is {tune.class_weights}, but {task.name} has no classes; expected none")
        if task is not None and not task.has_head and tune.pooling == "head":
            raise ValueError(f"pooling is head, but {task.name} has none; expected auto, or mean, cls, last or max")
        if task is not None and task.has_head and tune.dimensions:
            raise ValueError(f"dimensions are given, which {task.name} has not; expected them for embeddings alone")
        if task is not None and not task.per_token and tune.tag_unit != "auto":
            raise ValueError(f"tag_unit is {tune.tag_unit}, but {task.name} has no tags; expected auto")
        if task is not None and task.reads_text and tune.augment != AugmentRecipe():
            raise ValueError(f"augment is given, but the inputs of {task.name} are no pictures; expected none")
        if task is not None and task.reads_text and tune.picture_size != "auto":
            raise ValueError(f"picture_size is given, but the inputs of {task.name} are no pictures; expected auto")
        return tune

    @field_validator("gate")
    @classmethod
    def _judged_by_the_task(cls, gate: GateRecipe, values: ValidationInfo) -> GateRecipe:
        """The task has the metric, and the limit that is set is one of it."""
        task = TASKS.get(values.data.get("task", ""))
        try:
            if task is not None:
                gate.limit(task.metric(gate.metric))
        except RecipeError as error:
            raise ValueError(f"{error.found.rstrip('.')}; expected {error.expected}") from error
        if task is not None and not (task.has_labels or task.per_token) and gate.min_agreement > 0:
            raise ValueError("min_agreement counts answers that are equal, which numbers never are; expected 0")
        return gate

    @field_validator("answer")
    @classmethod
    def _unsure_of_one_label(cls, answer: AnswerRecipe, values: ValidationInfo) -> AnswerRecipe:
        """Only the one label of an input can be unsure."""
        task = TASKS.get(values.data.get("task", ""))
        if task is not None and not task.per_token and answer.decode != "simple":
            raise ValueError(f"decode is {answer.decode}, but {task.name} has no tags of tokens; expected simple")
        if task is not None and not task.one_label and answer.abstains:
            name = "max_error" if answer.abstain_below is None else "abstain_below"
            raise ValueError(f"{name} is {getattr(answer, name):g}, but {_never_unsure(task)}; expected none")
        return answer


def _unaugmented(task: Task | None, data: DataRecipe) -> str:
    """Why the texts of a task are not copied with changes; "" where they can be."""
    if data.remember is not None:
        return "with remember the earlier task's rows stand where the copies would"
    if task is None or (task.has_labels and task.codec == "text" and not task.per_token):
        return ""
    if not task.reads_text:
        return f"the inputs of {task.name} are pictures, which tune.augment varies"
    if task.per_token:
        return f"in {task.name} a changed word would move the borders of spans"
    return f"{task.name} has not labels of single texts, which a few changed words leave as they are"


def _never_unsure(task: Task) -> str:
    """Why answers of a task are never unsure, as the end of a sentence."""
    if task.per_token:
        return f"{task.name} answers with spans, each with a score of its own"
    if task.has_labels:
        return f"{task.name} gives each label by a threshold of its own, and a text that reaches none gets none"
    return f"{task.name} answers with a {'number' if task.has_head else 'vector'}, which has no probability"
