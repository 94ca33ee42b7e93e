"""The tasks of the family `once`: one file a task, one row here. Must not import torch: recipes are read by it."""

from edgetune.tune.tasks.entities import TokenClassification
from edgetune.tune.tasks.feature_extraction import FeatureExtraction
from edgetune.tune.tasks.image_classification import ImageClassification
from edgetune.tune.tasks.multi_label import MultiLabelClassification
from edgetune.tune.tasks.regression import TextRegression
from edgetune.tune.tasks.reward import RewardModel
from edgetune.tune.tasks.task import Task
from edgetune.tune.tasks.text_classification import TextClassification
from edgetune.tune.tasks.text_pairs import TextPairClassification, TextPairRegression

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        TextClassification(),
        MultiLabelClassification(),
        TextRegression(),
        TextPairClassification(),
        TextPairRegression(),
        TokenClassification(),
        FeatureExtraction(),
        ImageClassification(),
        RewardModel(),
    )
}
