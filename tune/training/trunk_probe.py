"""The probe on a trunk: its features of the data set's parts, kept for students, and the head solved on them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgetune.tune.data.dataset import Dataset, Part
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import head_features
from edgetune.tune.tasks.objective import Objective
from edgetune.tune.training.gain import Gain, paired_gain
from edgetune.tune.training.probe import Learnable, Probe, fit_probe, joined
from edgetune.tune.training.progress import Progress

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model

MOST_FEATURES = 2**27  # values of the training part that are stored: 256 MB


@dataclass(frozen=True)
class TrunkFeatures:
    """What a trunk gives of the training part, of the validation part, and of earlier rows that are not learnt again,
    with their targets; the last `copies` training rows are changed copies of others."""

    train: Learnable
    validation: Learnable
    unseen: Learnable | None
    copies: int

    def without_copies(self) -> TrunkFeatures:
        """The same rows but for the copies."""
        first = len(self.train[0]) - self.copies
        return replace(self, train=(self.train[0][:first], self.train[1][:first]), copies=0)


@dataclass(frozen=True)
class Trunk:
    """A model without its head, and how heads are solved on it."""

    model: Model
    encoder: Encoder
    objective: Objective
    balanced: bool
    bf16: bool
    progress: Progress

    def learnable(self, part: Part) -> Learnable:
        """Features and targets of the rows of a part."""
        features = head_features(self.model, self.encoder, part.texts, bf16=self.bf16, progress=self.progress)
        return features, self.objective.learnt(part.targets)

    def features(self, dataset: Dataset) -> TrunkFeatures:
        """What the head is learnt from and chosen by."""
        earlier = dataset.remembered
        train, validation = self.learnable(dataset.train), self.learnable(dataset.validation)
        unseen = self.learnable(earlier.unseen) if earlier is not None and len(earlier.unseen) else None
        return TrunkFeatures(train, validation, unseen, dataset.copies.rows if dataset.copies else 0)

    def keep(self, features: TrunkFeatures, path: Path) -> None:
        """Write the features of both parts for students, (rows, features) float16, where they learn from texts."""
        train, validation = features.train[0], features.validation[0]
        if self.encoder.reads_text and train.size < MOST_FEATURES:
            np.save(path, np.concatenate([train, validation]).astype(np.float16))

    def solve(self, features: TrunkFeatures) -> Probe:
        """The head; see `fit_probe`."""
        train = joined(features.train, features.unseen) if features.unseen is not None else features.train
        return fit_probe(
            train,
            features.validation,
            self.objective,
            balanced=self.balanced,
            copies=features.copies,
            progress=self.progress,
        )


def probe_gain(objective: Objective, validation: Part, reference: Probe, candidate: Probe) -> Gain:
    """What the validation part gains from one probe to another."""
    answers = (objective.answers(reference.logits), objective.answers(candidate.logits))
    return paired_gain(objective.metric, objective.expected(validation.targets), *answers)
