"""Lessons: what the tuned model says of every text, computed once and kept in a file for all of its students."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgetune.serve.digest import file_sha256, value_sha256
from edgetune.tune.models.classifier import head_linear
from edgetune.tune.models.forward import head_features
from edgetune.tune.models.model import open_model
from edgetune.tune.tasks.text_classification import encode
from edgetune.tune.training.hardware import fast_bf16

if TYPE_CHECKING:
    from edgetune.compress.material import Material

UNKNOWN = -100  # the label of a text that has none, as torch's cross-entropy leaves it out

# More texts without labels than this are thinned out evenly: two passes over them would take an hour.
MOST_UNLABELED = 50_000


@dataclass(frozen=True)
class Lessons:
    """Texts as token ids, with what the teacher says of them.

    Attributes:
        rows: input_ids, attention_mask [, token_type_ids] of each text, unpadded.
        answers: the teacher's logits (rows, labels) float16: half the memory, and finer than what is learnt from them.
        states: what the teacher's last linear layer sees (rows, features) float16.
        labels: class indices (rows,) int64, `UNKNOWN` where there is none.
    """

    rows: Sequence[dict[str, list[int]]]
    answers: NDArray[np.float16]
    states: NDArray[np.float16]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Course:
    """All that the students of one teacher share: the teacher as it was opened, and what it says of the texts."""

    teacher: Any
    tokenizer: Any
    train: Lessons
    validation: Lessons
    device: str
    bf16: bool

    @classmethod
    def open(cls, material: Material, beside: Path) -> Course:
        """Open the teacher; what it says is read from a file in the folder `beside`, or computed and kept there."""
        from transformers import AutoTokenizer

        source = material.model
        teacher = open_model(source.model_folder).to(material.device)
        tokenizer = AutoTokenizer.from_pretrained(source.model_folder)
        bf16 = fast_bf16(material.device)
        texts, labels = _texts(material)
        weights = {path.name: file_sha256(path) for path in sorted(source.model_folder.glob("*.safetensors"))}
        key = value_sha256([weights, texts, source.max_tokens, material.device, bf16])
        kept = beside / f"teacher-{key[:16]}.npz"
        if not kept.is_file():
            material.progress.say(f"the teacher answers {len(texts):,} texts, once for all students")
            _keep(kept, *_said(teacher, tokenizer, texts, material, bf16))
        with np.load(kept, allow_pickle=False) as said:
            answers, states = said["answers"], said["states"]
        rows = encode(tokenizer, texts, source.max_tokens)
        n = len(texts) - len(material.validation)
        train = Lessons(rows[:n], answers[:n], states[:n], labels[:n])
        validation = Lessons(rows[n:], answers[n:], states[n:], labels[n:])
        return cls(teacher, tokenizer, train, validation, material.device, bf16)


def _texts(material: Material) -> tuple[list[str], NDArray[np.int64]]:
    """Training texts, those without labels that are not among them, and the validation part; labels (texts,)."""
    train, validation = material.train, material.validation
    known = {*train.texts, *validation.texts}
    more = [text for text in dict.fromkeys(material.unlabeled) if text not in known]
    more = more[:: -(-len(more) // MOST_UNLABELED) or 1]
    labels = np.asarray([*train.labels, *([UNKNOWN] * len(more)), *validation.labels], dtype=np.int64)
    return [*train.texts, *more, *validation.texts], labels


def _said(
    teacher: Any, tokenizer: Any, texts: Sequence[str], material: Material, bf16: bool
) -> tuple[NDArray[np.float16], NDArray[np.float16]]:
    """The teacher's logits and the states before its head: the trunk in bf16 where that is fast, the head in fp32."""
    most, progress = material.model.max_tokens, material.progress
    states = head_features(teacher, tokenizer, texts, most, bf16=bf16, progress=progress)
    _, head = head_linear(teacher)
    with torch.inference_mode():
        answers = head(torch.from_numpy(states).to(material.device)).float().cpu().numpy()
    return answers.astype(np.float16), states.astype(np.float16)


def _keep(path: Path, answers: NDArray[np.float16], states: NDArray[np.float16]) -> None:
    """Write beside and rename, so that a file that is there is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name("part-" + path.name)
    np.savez(part, answers=answers, states=states)
    part.rename(path)
