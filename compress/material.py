"""What schemes work with: the model whose graph it is, the training texts to calibrate or to distil with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgetune.serve.codecs import takes_files

if TYPE_CHECKING:
    from edgetune.tune.data.dataset import Part
    from edgetune.tune.data.rows import Input
    from edgetune.tune.models.encoder import Encoder
    from edgetune.tune.models.model import TunedModel
    from edgetune.tune.tasks.objective import Objective
    from edgetune.tune.training.progress import Progress


@dataclass(frozen=True)
class Material:
    """One model and its data. The test part is not here: no scheme may look at it.

    Attributes:
        model: whose graph is compressed; `model.model_folder` holds weights, config and tokenizer.
        train: the training part: calibration and distillation texts, with class indices.
        validation: the part that choices are made on, such as a student's best epoch.
        unlabeled: more texts of the domain, without labels; may be empty.
        provider: "cpu" or "cuda", where the graph will run.
        device: "cpu" or "cuda", where weight-level schemes compute.
        seed: of everything that draws.
        progress: where long work tells how far it is.
        several: whether the graph is that of several tasks, of which `model` is one and the parts hold texts of all.
    """

    model: TunedModel
    train: Part
    validation: Part
    unlabeled: tuple[Input, ...]
    provider: str
    device: str
    seed: int
    progress: Progress
    several: bool = False

    @property
    def objective(self) -> Objective:
        """What the model was tuned for, by its task's default metric."""
        from edgetune.tune.tasks import TASKS

        return TASKS[self.model.task].objective(self.model.labels, "", self.train.targets)

    @property
    def per_token(self) -> bool:
        """Whether the model answers for each token, and not for the whole input."""
        from edgetune.tune.tasks import TASKS

        return TASKS[self.model.task].per_token

    @property
    def reads_text(self) -> bool:
        """Whether inputs are texts, which become tokens."""
        return not takes_files(self.model.codec)

    @property
    def encoder(self) -> Encoder:
        """How inputs become batches for the model."""
        from edgetune.tune.models.encoder import Encoder

        return Encoder.of(self.model)
