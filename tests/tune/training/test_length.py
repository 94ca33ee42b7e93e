"""How long a training lasts where it is left to the tool, and where it is not."""

import pytest

from edgetune.tune.recipe import TuneRecipe
from edgetune.tune.tasks import TASKS
from edgetune.tune.training.length import TrainingLength, automatic_epochs, automatic_round


@pytest.mark.parametrize(
    ("rows", "batch_size", "epochs", "of_a_round"),
    [
        (60, 32, 10, 5),
        (960, 32, 10, 4),
        (1600, 32, 6, 2),
        (3200, 32, 3, 1),
        (100_000, 32, 3, 1),
        (1, 32, 10, 5),
        (3200, 64, 6, 2),
    ],
)
def test_small_data_gets_more_passes(rows, batch_size, epochs, of_a_round):
    assert automatic_epochs(rows, batch_size) == epochs
    assert automatic_round(rows, batch_size) == of_a_round


def test_auto_trains_in_rounds_unless_the_user_sets_the_epochs():
    assert TrainingLength.of(TuneRecipe(), 1600) == TrainingLength(6.0, 2, 1)
    assert TrainingLength.of(TuneRecipe(patience=3), 1600) == TrainingLength(6.0, 2, 3)
    assert TrainingLength.of(TuneRecipe(epochs=2.5), 1600) == TrainingLength(2.5, 0, 1)
    assert TrainingLength.of(TuneRecipe(method="lora"), 1600) == TrainingLength(6.0, 0, 2)


def test_pictures_are_learnt_in_one_run_that_nothing_ends():
    pictures = TASKS["image-classification"]
    assert TrainingLength.of(TuneRecipe(), 420, pictures) == TrainingLength(10.0, 0, 10)
    assert TrainingLength.of(TuneRecipe(patience=2), 50_000, pictures) == TrainingLength(3.0, 0, 2)
