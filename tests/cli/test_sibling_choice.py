"""Which task of the family `once` a recipe is of when it names none: by its rows and keys."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgetune.recipe import read_recipe
from edgetune.task_choice import choose_task

SIBLINGS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "lists": ("multi-label-classification", [{"text": f"text {n}", "labels": ["a", "b"][: n % 3]} for n in range(40)]),
    "separated": (
        "multi-label-classification",
        [{"text": f"text {n}", "tags": ["a|b", "a", "b|c"][n % 3]} for n in range(40)],
    ),
    "flags": ("multi-label-classification", [{"text": f"t {n}", "spam": n % 2, "urgent": n // 20} for n in range(40)]),
    "numbers": ("text-regression", [{"text": f"text {n}", "price": n / 8} for n in range(40)]),
    "whole numbers": ("text-classification", [{"text": f"text {n}", "stars": n % 5} for n in range(40)]),
    "pairs": (
        "text-pair-classification",
        [{"premise": f"text {n}", "hypothesis": f"other {n}", "label": n % 2} for n in range(40)],
    ),
    "pairs of numbers": (
        "text-pair-regression",
        [{"sentence1": f"text {n}", "sentence2": f"other {n}", "score": n / 8} for n in range(40)],
    ),
    "texts": ("text-classification", [{"text": f"text {n}", "label": "ab"[n % 2]} for n in range(40)]),
}


@pytest.fixture
def base(tmp_path):
    """The folder of an encoder, of which the config alone is looked at."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["BertModel"]}), encoding="utf-8")
    return str(folder)


@pytest.mark.parametrize("name", SIBLINGS)
def test_rows_speak_for_their_task_among_those_that_answer_at_once(base, tmp_path, name):
    task, rows = SIBLINGS[name]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    recipe, choice = read_recipe(None, {"base": base, "data": {"path": str(path)}})
    assert (recipe.task, choice.task) == (task, task)
    assert bool(choice.reason) == (task != "text-classification")


def test_keys_speak_for_a_task(base, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": "text", "b": "other", "c": "yes"}\n' * 3, encoding="utf-8")
    values = {"base": base, "data": {"path": str(path), "text": "a"}}
    named = {**values, "data": {**values["data"], "text_pair": "b", "label": "c"}}
    assert choose_task(named).task == "text-pair-classification"
    separated = {**values, "data": {**values["data"], "separator": "|"}}
    assert choose_task(separated).task == "multi-label-classification"
