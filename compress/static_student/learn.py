"""From a tuned model and its texts to the tables of a static student, in seconds once the teacher has answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgetune.compress.soft_labels import SoftLabels, Teacher
from edgetune.compress.static_student.features import Features
from edgetune.compress.static_student.learning import LearningRows, Settings, averaged, judged, learn_rows
from edgetune.compress.static_student.quantization import as_tables
from edgetune.compress.static_student.recombination import recombined
from edgetune.compress.static_student.start import Frame, principal_rows
from edgetune.serve.errors import CompressError, ModelError
from edgetune.tune.tasks.objective import Head, Objective

if TYPE_CHECKING:
    from edgetune.compress.material import Material
    from edgetune.serve.engines.tables import StaticTables

WIDTH = 256
MOST_ROWS = 40_000
# Of texts of 14 tokens, as banking77's, nine thousand; the teacher takes as long for them as for its training texts.
RECOMBINED_TOKENS = 130_000
MOST_RECOMBINED = 10_000
INPUTS_SEEN, FEWEST_PASSES, MOST_PASSES = 85_000, 4, 40
# Students of other draws, whose mean answers in the time of one.
STUDENTS = 3


@dataclass(frozen=True)
class StaticStudent:
    """What was learnt, and a line that says how."""

    tables: StaticTables
    made_by: str


def learn(material: Material, folder: Path) -> StaticStudent:
    """Learn a static student of the tuned model; the teacher's answers are kept beside `folder`, for all students.

    Raises:
        CompressError: the model gives no vector of a text to its last layer.
    """
    try:
        teacher = Teacher.open(material, folder.parent)
    except ModelError as error:
        raise CompressError(f"There is no trunk that a static student could start from: {error.found}") from error
    objective = material.objective
    tokenizer = teacher.encoder.tokenizer
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}
    rows = teacher.train.rows
    more = recombined(rows, special, _recombinations(rows), seed=material.seed)
    vocabulary = 1 + max(tokenizer.get_vocab().values())
    features = Features.of(_ids(rows), special, vocabulary, MOST_ROWS)
    if not len(features.tokens):
        raise CompressError("No text has a token that a static student could learn from.")
    material.progress.say(f"static: the teacher reads {len(features.tokens):,} tokens and {len(more):,} recombinations")
    vectors = teacher.states_of(Frame.of(rows, special).around(features.tokens), material.progress)
    train = _joined(
        _learning_rows(features, teacher.train, objective, material.train.targets),
        features,
        more,
        objective.unfinished(teacher.answers_to(teacher.states_of(more, material.progress))),
    )
    validation = _learning_rows(features, teacher.validation, objective, material.validation.targets)
    start = np.zeros((features.size, WIDTH), dtype=np.float32)
    start[1 : 1 + len(features.tokens)] = principal_rows(vectors, WIDTH)
    settings = settings_for(len(train.bags))
    count = STUDENTS if objective.width <= WIDTH else 1
    students = [
        learn_rows(start, train, validation, objective, settings, seed=material.seed + n, progress=material.progress)
        for n in range(count)
    ]
    learnt = averaged(students) if objective.width <= WIDTH else students[0]
    _, agreement = judged(learnt.outputs(validation.bags), validation, objective)
    made_by = (
        f"{len(features.tokens):,} tokens and {len(features.pair_keys):,} pairs, from the tuned model's own vectors of "
        f"tokens; the mean of {count} taught in {settings.passes} passes over {len(rows):,} texts and {len(more):,} "
        f"recombinations of their halves; the teacher's answer on {agreement:.1%} of the validation part"
    )
    head = objective.finished(Head(learnt.head.T, learnt.bias))
    return StaticStudent(as_tables(features, learnt.rows, head), made_by)


def settings_for(inputs: int) -> Settings:
    """Passes so that about `INPUTS_SEEN` inputs are seen."""
    return Settings(max(FEWEST_PASSES, min(MOST_PASSES, round(INPUTS_SEEN / inputs))))


def _recombinations(rows: Sequence[dict[str, list[int]]]) -> int:
    tokens = sum(len(row["input_ids"]) for row in rows) / len(rows)
    return min(MOST_RECOMBINED, int(RECOMBINED_TOKENS / tokens))


def _ids(rows: Sequence[dict[str, list[int]]]) -> list[list[int]]:
    return [row["input_ids"] for row in rows]


def _learning_rows(
    features: Features, labels: SoftLabels, objective: Objective, targets: Sequence[Any]
) -> LearningRows:
    """Soft labels as the student sees them; `targets` are those of the rows that have one, which come first."""
    filled = [*targets, *[targets[0]] * (len(labels) - len(targets))]
    return LearningRows(
        features.bags(_ids(labels.rows)), objective.unfinished(labels.answers), objective.learnt(filled), labels.known
    )


def _joined(
    train: LearningRows, features: Features, more: Sequence[dict[str, list[int]]], answers: NDArray[np.float32]
) -> LearningRows:
    """The rows with more behind them that have no target."""
    return LearningRows(
        train.bags.joined(features.bags(_ids(more))),
        np.concatenate([train.answers, answers]),
        np.concatenate([train.targets, np.repeat(train.targets[:1], len(more), axis=0)]),
        np.concatenate([train.known, np.zeros(len(more), dtype=bool)]),
    )
