"""Soft labels: what the tuned model says of every text, computed once and kept in a file for all of its students."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgetune.serve.digest import file_sha256, value_sha256
from edgetune.tune.data.rows import Input
from edgetune.tune.models.classifier import head_linear
from edgetune.tune.models.encoder import Encoder
from edgetune.tune.models.forward import head_features, row_features
from edgetune.tune.models.model import open_model
from edgetune.tune.tasks.objective import Objective
from edgetune.tune.training.hardware import fast_bf16

if TYPE_CHECKING:
    from edgetune.compress.material import Material
    from edgetune.tune.training.progress import Progress

# More texts without labels than this are thinned out evenly: two passes over them would take an hour.
MOST_UNLABELED = 50_000
# Texts on which states that were left are compared, and how far they may be apart, of the largest: what bf16 scatters.
COMPARED, FAITHFUL = 16, 0.05


@dataclass(frozen=True)
class SoftLabels:
    """Texts as token ids, with the teacher's answers to them.

    Attributes:
        rows: input_ids, attention_mask [, token_type_ids] of each text, unpadded.
        answers: the teacher's logits (rows, outputs) float32: a number may be beyond what float16 holds.
        states: what the teacher's last linear layer sees (rows, features) float16.
        targets: as the loss takes them, (rows, ...); of any value where they are not known.
        known: whether each row has a target (rows,) bool.
    """

    rows: Sequence[dict[str, list[int]]]
    answers: NDArray[np.float32]
    states: NDArray[np.float16]
    targets: NDArray[Any]
    known: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Teacher:
    """All that the students of one teacher share: the teacher as it was opened, and its answers to the texts."""

    model: Any
    encoder: Encoder
    objective: Objective
    train: SoftLabels
    validation: SoftLabels
    device: str
    bf16: bool

    @classmethod
    def open(cls, material: Material, beside: Path) -> Teacher:
        """Open the teacher; what it says is read from a file in the folder `beside`, or computed and kept there."""
        source = material.model
        teacher = open_model(source.model_folder).to(material.device)
        encoder, objective = Encoder.of(source), material.objective.in_units()
        bf16 = fast_bf16(material.device)
        texts, targets, known = _texts(material, objective)
        weights = {path.name: file_sha256(path) for path in sorted(source.model_folder.glob("*.safetensors"))}
        key = value_sha256([weights, texts, source.max_tokens, material.device, bf16, "answers in float32"])
        kept = beside / f"teacher-{key[:16]}.npz"
        if not kept.is_file():
            material.progress.say(f"the teacher answers {len(texts):,} texts, once for all students")
            _keep(kept, *_answers(teacher, encoder, texts, material, bf16))
        with np.load(kept, allow_pickle=False) as stored:
            answers, states = stored["answers"], stored["states"]
        rows = encoder.rows(texts)
        n = len(texts) - len(material.validation)
        train = SoftLabels(rows[:n], answers[:n], states[:n], targets[:n], known[:n])
        validation = SoftLabels(rows[n:], answers[n:], states[n:], targets[n:], known[n:])
        return cls(teacher, encoder, objective, train, validation, material.device, bf16)

    def states_of(self, rows: Sequence[dict[str, list[int]]], progress: Progress) -> NDArray[np.float32]:
        """What the teacher's head sees of more encoded inputs: (rows, features) float32; not kept."""
        return row_features(self.model, self.encoder, rows, bf16=self.bf16, progress=progress)

    def answers_to(self, states: NDArray[np.float32]) -> NDArray[np.float32]:
        """The teacher's logits (rows, outputs) float32 for what its head sees."""
        return _logits(self.model, states)


def _texts(material: Material, objective: Objective) -> tuple[list[Input], NDArray[Any], NDArray[np.bool_]]:
    """Training texts, those without labels that are not among them, and the validation part; targets, and if known."""
    train, validation = material.train, material.validation
    seen = {*train.texts, *validation.texts}
    more = [text for text in dict.fromkeys(material.unlabeled) if text not in seen]
    more = more[:: -(-len(more) // MOST_UNLABELED) or 1]
    filled = [train.targets[0]] * len(more)  # of any value: `known` leaves them out
    targets = objective.learnt([*train.targets, *filled, *validation.targets])
    known = np.ones(len(targets), dtype=bool)
    known[len(train) : len(train) + len(more)] = False
    return [*train.texts, *more, *validation.texts], targets, known


def _answers(
    teacher: Any, encoder: Encoder, texts: Sequence[Input], material: Material, bf16: bool
) -> tuple[NDArray[np.float32], NDArray[np.float16]]:
    """The teacher's logits and the states before its head: the trunk in bf16 where that is fast, the head in fp32.

    Of both parts tuning has left the states; what it left is compared with what the teacher gives here.
    """

    def states_of(some: Sequence[Input]) -> NDArray[np.float32]:
        return head_features(teacher, encoder, some, bf16=bf16, progress=material.progress)

    known, first = material.model.head_features(), len(material.train)
    more = len(texts) - first - len(material.validation)
    both = [*texts[:first], *texts[first + more :]]
    if known is None or len(known) != len(both) or not _is_theirs(known, both, states_of):
        states = states_of(texts)
    else:
        material.progress.say(f"of {len(both):,} texts tuning has left the teacher's states")
        between = states_of(texts[first : first + more]) if more else known[:0]
        states = np.concatenate([known[:first], between, known[first:]]).astype(np.float32)
    return _logits(teacher, states), states.astype(np.float16)


def _is_theirs(
    states: NDArray[np.float16], texts: Sequence[Input], states_of: Callable[[Sequence[Input]], NDArray[np.float32]]
) -> bool:
    """Whether states (texts, features) are those of the teacher for these texts, by a sample of them."""
    places = np.unique(np.linspace(0, len(texts) - 1, COMPARED).round().astype(int))
    expected = states_of([texts[place] for place in places])
    if expected.shape[1] != states.shape[1]:
        return False
    return bool(np.abs(expected - states[places]).max() <= FAITHFUL * np.abs(expected).max())


def _logits(teacher: Any, states: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the teacher's head gives for the states that it sees."""
    _, head = head_linear(teacher)
    with torch.inference_mode():
        logits: NDArray[np.float32] = head(torch.from_numpy(states).to(teacher.device)).float().cpu().numpy()
    return logits


def _keep(path: Path, answers: NDArray[np.float32], states: NDArray[np.float16]) -> None:
    """Write beside and rename, so that a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name("part-" + path.name)
    np.savez(part, answers=answers, states=states)
    part.rename(path)
