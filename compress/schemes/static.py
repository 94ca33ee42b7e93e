"""A static student: vectors of tokens and pairs summed, and a linear head, taught by the tuned model; no graph of it.

`compress/static_student` learns it, `serve/engines/tables.py` has its formula.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgetune.compress.material import Material
    from edgetune.compress.static_student.learn import StaticStudent

FEWEST_TEXTS = 300


def unsuitable(material: Material) -> str:
    """It needs single texts, and enough of them to learn words from."""
    if material.per_token:
        return "it answers a text as a whole, and entities are places in it"
    if material.model.codec != "text":
        return "its inputs are pairs of texts, and a sum of words does not tell in which of the two each stands"
    if material.model.head.kind == "embedding":
        return "its answers are vectors, and those of summed words are found by no one who has the model's"
    texts = len(material.train) + len(material.unlabeled)
    if texts < FEWEST_TEXTS:
        return f"there are {texts} texts to learn from, and a static student needs {FEWEST_TEXTS}"
    return ""


def learn(material: Material, folder: Path) -> StaticStudent:
    """Learn the student; what the teacher said is kept beside `folder`.

    Raises:
        CompressError: the model has no vector of a text to start from.
    """
    from edgetune.compress.static_student import learn as learning

    return learning.learn(material, folder)
