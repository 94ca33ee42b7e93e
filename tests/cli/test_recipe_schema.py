"""docs/recipe.schema.json as an editor uses it: every task's recipe passes, and a key of another task does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from edgetune.tasks import TASKS

SCHEMA = json.loads((Path(__file__).parent.parent.parent / "docs" / "recipe.schema.json").read_text("utf-8"))
LEAST: dict[str, Any] = {"base": "model", "data": {"path": "rows.jsonl"}}
# What the tasks of one family alone say.
OWN = {
    "once": {"tune": {"pooling": "mean"}, "budget": {"p90_ms": 20}},
    "stepwise": {"tune": {"adapter": {"rank": 4}}, "budget": {"tokens_per_second": 20}},
}


def faults(recipe: dict[str, Any]) -> list[str]:
    return [fault.message for fault in jsonschema_rs.validator_for(SCHEMA).iter_errors(recipe)]


@pytest.mark.parametrize("task", [name for name, task in TASKS.items() if task.family in OWN])
def test_a_recipe_of_every_task_passes_and_takes_no_key_of_another(task):
    assert faults({"task": task, **LEAST}) == []
    family = TASKS[task].family
    assert faults({"task": task, **LEAST, **OWN[family]}) == []
    (other,) = (own for name, own in OWN.items() if name != family)
    assert len(faults({"task": task, **LEAST, **other})) == 2
    assert faults({"task": task, **LEAST, "colour": "red"})


def test_a_recipe_of_several_tasks_names_them_and_no_rows_of_its_own():
    tasks = {"tasks": {name: {"data": LEAST["data"]} for name in ("intent", "mood")}}
    several = {"base": LEAST["base"], "task": "multi-task", **tasks}
    assert faults(several) == []
    assert faults({**several, "tune": {"sampling": 1}}) == []
    assert faults({**several, "data": LEAST["data"]})


def test_a_recipe_that_names_no_task_is_of_any():
    assert faults(LEAST) == []
    for own in OWN.values():
        assert faults({**LEAST, **own}) == []
    mixed = {"budget": OWN["once"]["budget"], "tune": OWN["stepwise"]["tune"]}
    assert faults({**LEAST, **mixed})


def test_what_every_recipe_needs_and_a_task_that_is_none():
    assert [fault for fault in faults({"task": "text-generation"}) if "required" in fault]
    assert [fault for fault in faults({**LEAST, "task": "poetry"}) if "poetry" in fault]
