"""Whether changed copies of training texts are learnt: only where the probe gains more than chance by them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from edgetune.tune.data.cleaning import counted
from edgetune.tune.data.dataset import Dataset
from edgetune.tune.models.stored import Stored
from edgetune.tune.training.trunk_probe import Trunk, probe_gain


@dataclass(frozen=True)
class CopiesChoice(Stored):
    """Whether the copies are learnt, and why, in words with figures."""

    file_name: ClassVar[str] = "copies.json"
    noun: ClassVar[str] = "choice of copies"
    command: ClassVar[str] = "tune"

    kept: bool
    why: str


def choose_copies(trunk: Trunk, dataset: Dataset, folder: Path, features_path: Path, probe_path: Path) -> None:
    """Write into `folder` whether the copies of a data set are learnt, and before it the features and the probe of the
    rows that are: where the choice lies, they do."""
    features = trunk.features(dataset)
    plain = features.without_copies()
    without, with_copies = trunk.solve(plain), trunk.solve(features)
    gain = probe_gain(trunk.objective, dataset.validation, without, with_copies)
    kept = gain.is_significant
    why = (
        f"The {counted(features.copies, 'changed copy', 'changed copies')} of training texts are "
        f"{'learnt' if kept else 'left out'}: the probe reaches {with_copies.value:.4f} with them and "
        f"{without.value:.4f} without on {gain.rows:,} validation rows, standard error {gain.error:.4f}; "
        "data.augment.decide: always keeps them whatever they gain."
    )
    trunk.progress.say(why)
    trunk.keep(features if kept else plain, features_path)
    (with_copies if kept else without).save(probe_path)
    CopiesChoice(kept, why).save(folder)
