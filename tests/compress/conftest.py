"""What several schemes are tested with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def agreeing_material(tiny_material: Callable[[str], tuple[Any, Path]]) -> Callable[[str], Any]:
    """`tiny_material` whose labels are the tuned model's own answers.

    What the tiny head answers on a third of the texts is an accident of rounding, and with it whether a student can
    please teacher and labels at once; so it can on every processor.
    """
    from edgetune.tune.models.encoder import Encoder
    from edgetune.tune.models.forward import model_logits
    from edgetune.tune.models.model import open_model

    def material(name: str) -> Any:
        plain, _ = tiny_material(name)
        model = open_model(plain.model.model_folder)
        logits = model_logits(model, Encoder.of(plain.model), plain.train.texts)
        return replace(plain, train=replace(plain.train, targets=tuple(logits.argmax(axis=1).tolist())))

    return material
