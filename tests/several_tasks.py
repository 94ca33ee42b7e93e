"""Three tasks on one tiny encoder, built as a user builds them: a label, a number and entities."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from tests.conftest import toy_sentences
from tests.untimed import build_untimed

TASKS = ("intent", "words", "people")


def write_rows(folder: Path) -> dict[str, Any]:
    """The `tasks` section of a recipe, on rows that are written into `folder`."""
    from tests.cli.test_entities_build import rows

    with (folder / "intent.csv").open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([("text", "label"), *toy_sentences()])
    with (folder / "words.csv").open("w", encoding="utf-8", newline="") as stream:
        lengths = [(text, len(text.split())) for text, _ in toy_sentences()]
        csv.writer(stream).writerows([("text", "score"), *lengths])
    lines = (json.dumps(row) + "\n" for row in rows()[:120])
    (folder / "people.jsonl").write_text("".join(lines), encoding="utf-8")
    return {
        "intent": {"data": {"path": str(folder / "intent.csv")}},
        "words": {"data": {"path": str(folder / "words.csv")}, "kind": "number", "weight": 0.5},
        "people": {"data": {"path": str(folder / "people.jsonl")}, "answer": {"decode": "viterbi"}},
    }


def recipe_values(base: Path, folder: Path) -> dict[str, Any]:
    """A recipe of the three tasks, trained in a few steps, with a gate that lets everything pass."""
    return {
        "base": str(base),
        "tasks": write_rows(folder),
        "tune": {"method": "layers", "epochs": 2, "learning_rate": 1e-3, "precision": "fp32"},
        "compress": {"schemes": ["fused", "student"]},
        "gate": {"max_drop": 0.9, "max_rise": 9.0, "rows": 40},
        "out": str(folder / "desk"),
    }


def build_three(base: Path, folder: Path) -> Path:
    """The folder of the bundle; its work folder lies beside it."""
    build_untimed(recipe_values(base, folder))
    return folder / "desk"
