"""Fewer layers: a student of k of the tuned model's n layers, taught by it (DistilBERT, Sanh et al. 2019, 1910.01108).

The student starts from the teacher's first and last layer and those evenly between, its embeddings and its head.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.compress.structure import read_shape, uncuttable

if TYPE_CHECKING:
    from edgetune.compress.material import Material

FEWEST_LAYERS = 4
FEWEST_ROWS = 200


def unsuitable(material: Material) -> str:
    """It needs layers to leave out, and texts to learn from."""
    if material.per_token:
        return "the tuned model teaches answers to whole texts, and not yet those to tokens"
    if reason := uncuttable(material.model.model_folder):
        return reason
    shape = read_shape(material.model.model_folder)
    if shape.layers < FEWEST_LAYERS:
        return f"the model has {shape.layers} layers, and there is little to leave out below {FEWEST_LAYERS}"
    texts = len(material.train) + len(material.unlabeled)
    if texts < FEWEST_ROWS:
        return f"there are {texts} texts to learn from, and a student needs some hundreds"
    return ""


def strengths(material: Material) -> tuple[int, ...]:
    """Numbers of layers, from half of the teacher's down to one: 3, 2, 1 of six, 6, 4, 3, 2, 1 of twelve."""
    half = max(1, read_shape(material.model.model_folder).layers // 2)
    return tuple(dict.fromkeys([half, *(count for count in (half * 2 // 3, 4, 3, 2, 1) if 0 < count < half)]))


def compress(material: Material, folder: Path, strength: int) -> str:
    """Teach a student of `strength` layers and write it to `folder/model`.

    Raises:
        CompressError: the student cannot be built.
    """
    from edgetune.compress.distillation import distil, schooling_for
    from edgetune.compress.soft_labels import Teacher
    from edgetune.compress.structure import spread_layers, with_layers, write_cut

    teacher = Teacher.open(material, folder.parent)
    shape = read_shape(material.model.model_folder)
    kept = spread_layers(shape.layers, strength)
    schooling = schooling_for(len(teacher.train), teacher.model.config.hidden_size)
    student = with_layers(teacher.model, kept)
    learnt = distil(student, teacher, schooling, seed=material.seed, progress=material.progress)
    write_cut(student, material.model.model_folder, folder)
    return (
        f"{strength} of {shape.layers} layers, taught in {schooling.passes} passes over {len(teacher.train):,} texts "
        f"(pass {learnt.best_pass} kept): the teacher's answer on {learnt.agreement:.1%} of the validation part"
    )
