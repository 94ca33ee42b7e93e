"""Fewer feed-forward columns: those that the loss feels least go, and the teacher schools what is left.

Heads stay: a config cannot say that a layer has fewer of them at the same width, and zeroed ones gain nothing.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgetune.compress.structure import Shape, read_shape, uncuttable

if TYPE_CHECKING:
    from edgetune.compress.material import Material

# On banking77 half of MiniLM's columns turn 3% of the answers and lose no accuracy, so a quarter is worth a try.
PERCENT_KEPT = (75, 50, 25)
FEWEST_ROWS = 200
# Texts that importance is computed on: the order of the columns hardly moves beyond.
IMPORTANCE_TEXTS = 2_000
_BLOCK = 64


def unsuitable(material: Material) -> str:
    """It needs a known architecture with columns enough for blocks, and labelled texts."""
    if material.model.head.kind == "embedding":
        return "its answers are vectors, whose loss compares texts, and columns are weighed by the loss of single ones"
    if material.per_token:
        return "the tuned model teaches answers to whole texts, and not yet those to tokens"
    if reason := uncuttable(material.model.model_folder):
        return reason
    shape = read_shape(material.model.model_folder)
    if columns_kept(shape, max(PERCENT_KEPT)) >= shape.columns:
        return f"{shape.columns} feed-forward columns are too few to take blocks away"
    if len(material.train) < FEWEST_ROWS:
        return f"there are {len(material.train)} labelled texts to learn from, and pruning needs some hundreds"
    return ""


def strengths(material: Material) -> tuple[int, ...]:
    """Percent of the columns that stay."""
    return PERCENT_KEPT


def columns_kept(shape: Shape, percent: int) -> int:
    """How many columns stay: a multiple of 64, or of 8 in a model too narrow for that; at least one block."""
    block = _BLOCK if shape.columns >= 4 * _BLOCK else 8
    return max(block, round(shape.columns * percent / 100 / block) * block)


def compress(material: Material, folder: Path, strength: int) -> str:
    """Keep `strength` percent of the feed-forward columns, school the model, and write it to `folder/model`.

    Raises:
        CompressError: the narrower model cannot be built.
    """
    from edgetune.compress.distillation import distil, schooling_for
    from edgetune.compress.importance import best_columns, column_importance
    from edgetune.compress.soft_labels import Teacher
    from edgetune.compress.structure import with_columns, write_cut

    teacher = Teacher.open(material, folder.parent)
    shape = read_shape(material.model.model_folder)
    drawn = spread(len(material.train), IMPORTANCE_TEXTS)
    importance = column_importance(
        teacher.model,
        teacher.encoder,
        [material.train.texts[row] for row in drawn],
        teacher.objective.learnt([material.train.targets[row] for row in drawn]),
        teacher.objective,
        progress=material.progress,
    )
    kept = columns_kept(shape, strength)
    pruned = with_columns(teacher.model, best_columns(importance, kept))
    whole = schooling_for(len(teacher.train), teacher.model.config.hidden_size)
    schooling = replace(whole, passes=-(-whole.passes // 2))  # all layers are there: it starts nearer than a student
    learnt = distil(pruned, teacher, schooling, seed=material.seed, progress=material.progress)
    write_cut(pruned, material.model.model_folder, folder)
    return (
        f"{kept:,} of {shape.columns:,} feed-forward columns by first-order importance on {len(drawn):,} texts, "
        f"taught in {schooling.passes} passes (pass {learnt.best_pass} kept): "
        f"the teacher's answer on {learnt.agreement:.1%} of the validation part"
    )


def spread(rows: int, most: int) -> list[int]:
    """At most `most` of `rows` places, evenly over all of them."""
    count = min(rows, most)
    return [place * rows // count for place in range(count)]
