"""Which task a recipe is of when it names none: each task says how well it fits, and the best is taken.

Apart from the recipe, whose type hangs on the answer. Must not import torch or transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edgetune.evidence import Evidence
from edgetune.serve.errors import RecipeError
from edgetune.serve.json_types import JsonObject
from edgetune.serve.tasks_report import SEVERAL_TASKS
from edgetune.tasks import DEFAULT_TASK, FAMILIES, GENERATION, OBJECTIVE_TASKS, TASKS, Task, load
from edgetune.tune.stepwise.objectives import objective_fault
from edgetune.tune.tasks.task import Guess

NEAR = 0.1  # guesses whose strengths differ by less do not decide


@dataclass(frozen=True)
class TaskChoice:
    """A task by name, and the sentence that says why where it was guessed; the default needs none."""

    task: str
    reason: str = ""


def choose_task(values: Mapping[str, Any]) -> TaskChoice:
    """The task that a recipe's values name, else the one that fits its data section, rows and base best.

    Args:
        values: a recipe as it was read, not yet checked.

    Raises:
        RecipeError: there is no task of that name, or two fit equally well.
    """
    name = values.get("task")
    objective = _objective(values)
    if objective is not None and name is None:
        task = OBJECTIVE_TASKS.get(objective, GENERATION)
        return TaskChoice(task, f"Task {task}, since the objective is {objective}.")
    if "tasks" in values and name in (None, SEVERAL_TASKS):
        _refuse_one_task(values)
        return TaskChoice(SEVERAL_TASKS)
    if "tasks" in values or name == SEVERAL_TASKS:
        raise RecipeError(
            f"The task is {name!r:.100}, and the recipe has {'tasks' if 'tasks' in values else 'no tasks'}.",
            expected=f"tasks for {SEVERAL_TASKS}, data for every other task",
        )
    if name is not None:
        if not isinstance(name, str) or name not in TASKS:
            raise RecipeError(f"There is no task {name!r:.100}.", expected=" or ".join(TASKS))
        return TaskChoice(name)
    family, keys = _family_of_keys(values.get("data"))
    tasks = [task for task in TASKS.values() if family in ("", task.family) and task.name != SEVERAL_TASKS]
    if len(tasks) == 1:
        return _choice(tasks[0].name, f"the recipe says {keys}")
    evidence = Evidence.of(values)
    guesses = {task.name: task.load("recognise")(task.name, evidence) for task in tasks}
    best = max(guesses, key=lambda name: guesses[name].strength)
    if guesses[best].strength == 0:
        return _choice(tasks[0].name, f"the recipe says {keys}")
    near = {name: guess for name, guess in guesses.items() if guesses[best].strength - guess.strength < NEAR}
    if len(near) > 1:
        raise _undecided(near)
    return _choice(best, guesses[best].reason)


def _objective(values: Mapping[str, Any]) -> str | None:
    """The objective that a recipe names.

    Raises:
        RecipeError: there is none of that name.
    """
    section = values.get("tune")
    name = section.get("objective") if isinstance(section, dict) else None
    if name is None:
        return None
    if fault := objective_fault(name):
        raise RecipeError(f"tune.objective is {name!r:.80}: {fault}.")
    return str(name)


def without_task_objective(values: JsonObject) -> JsonObject:
    """The values without an objective that has a task of its own, which says it all."""
    objective = _objective(values)
    if objective not in OBJECTIVE_TASKS or values.get("task", OBJECTIVE_TASKS[objective]) != OBJECTIVE_TASKS[objective]:
        return values
    tune = {key: value for key, value in values["tune"].items() if key != "objective"}
    return {**values, "tune": tune}


def _refuse_one_task(values: Mapping[str, Any]) -> None:
    if "data" in values:
        raise RecipeError(
            "The recipe has data and tasks.",
            expected="data for one task, or tasks for several, each with data of its own",
            action="move data into tasks.<name>.data, or leave one of both away",
        )


def _choice(task: str, reason: str) -> TaskChoice:
    return TaskChoice(task, "" if task == DEFAULT_TASK else f"Task {task}, since {reason}; --task says otherwise.")


def _family_of_keys(section: object) -> tuple[str, str]:
    """The family that alone knows some keys of the data section, and these keys; "" where none or several do."""
    if not isinstance(section, dict):
        return "", ""
    known = {name: set(load(family.data).model_fields) for name, family in FAMILIES.items()}
    own: dict[str, str] = {}
    for name, keys in known.items():
        others = set().union(*(other for family, other in known.items() if family != name))
        if named := [f"data.{key}" for key in section if key in keys - others]:
            own[name] = ", ".join(named)
    return next(iter(own.items())) if len(own) == 1 else ("", "")


def _undecided(guesses: Mapping[str, Guess]) -> RecipeError:
    reasons = "; ".join(f"{name}, since {guess.reason}" for name, guess in guesses.items())
    options = " or ".join(f"--task {name} ({_terms(TASKS[name])})" for name in guesses)
    return RecipeError(
        f"The task cannot be guessed. It may be {reasons}.",
        expected="a base and rows that fit one task, or a task by name",
        action=f"add {options}",
    )


def _terms(task: Task) -> str:
    return f"{task.summary[0].lower()}{task.summary.rstrip('.')[1:]}; takes {FAMILIES[task.family].takes}"
