"""What an objective is: which judgements it reads, how fast it learns, and whether it needs the base's opinion.

Must not import torch.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgetune.serve.errors import DataError
from edgetune.tune.stepwise.chats import Judged


@dataclass(frozen=True)
class Objective:
    """What is learnt of rows.

    Attributes:
        name: as recipes name it.
        summary: one sentence, with the paper it comes from.
        reads: what its rows may say of their answers: "pairs", "votes" or nothing, "".
        rate_share: of the method's own rate, which is that of supervised fine-tuning. TRL's defaults of 1e-6 are for
            models of billions of weights and move none of a hundred million.
        needs_reference: whether it is learnt against the base's log-probabilities, which are taken once before.
        is_online: whether it learns from answers that the model draws while it learns.
        of_decoders: whether a language model learns it; what does not is a task of encoders.
    """

    name: str
    summary: str
    reads: tuple[Judged, ...]
    rate_share: float = 1.0
    needs_reference: bool = False
    is_online: bool = False
    of_decoders: bool = True

    @property
    def is_judged(self) -> bool:
        """Whether its rows are judged answers."""
        return "" not in self.reads

    def check(self, judged: Judged, kind: str, source: str) -> None:
        """Refuse rows that cannot teach it.

        Args:
            judged: what the rows say of their answers.
            kind: what the rows are: "text", "completion" or "chat".
            source: what the user named.

        Raises:
            DataError: with the objectives that read such rows.
        """
        if self.is_online and kind == "text":
            raise DataError(
                f"{source} holds texts alone, and the objective {self.name} answers prompts.",
                expected="rows with a prompt and an answer to hold the model against, or chats.",
                action="name rows with prompts, or leave --objective away.",
            )
        if judged in self.reads:
            return
        if judged and not self.is_judged:
            raise DataError(
                f"{source} is preference data ({_SAID[judged]}), and "
                f"{_LEARNS.get(self.name, f'the objective {self.name} learns of prompts')}.",
                expected="rows with one answer each to be learnt, or an objective that learns of judged answers.",
                action=f"add --objective {'dpo' if judged == 'pairs' else 'kto'}, or write the chosen answers alone, "
                'such as {"prompt": ..., "completion": <the chosen one>}.',
            )
        raise DataError(
            f"The objective {self.name} learns of {' or '.join(_SAID[one] for one in self.reads)}, and {source} has "
            f"{_SAID[judged]}.",
            expected='rows such as {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}'
            if "pairs" in self.reads
            else 'rows such as {"prompt": "The sky is", "completion": " blue.", "label": true}',
            action={"pairs": "add --objective dpo", "votes": "add --objective kto", "": "leave --objective away"}[
                judged
            ]
            + ", or name a file of judged answers.",
        )


_SAID: dict[Judged, str] = {
    "pairs": "pairs of a chosen and a rejected answer",
    "votes": "answers that were liked or disliked",
    "": "answers that nobody judged",
}
_LEARNS = {"sft": "supervised fine-tuning learns answers as they stand"}
