"""ORPO (Hong et al. 2024, arXiv 2403.07691) by TRL's experimental trainer, on rows that are encoded already.

Apart from the stable trainers: importing TRL's experimental part warns unless it is told not to.
"""

from __future__ import annotations

import os
from typing import Any

import torch

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")

from trl.experimental.orpo import ORPOConfig, ORPOTrainer

orpo_config = ORPOConfig


class OrpoTrainer(ORPOTrainer):
    """TRL's, of batches as DPO has them; its likelihood is of the answer alone, as the rest of a build learns it."""

    def tokenize_row(self, feature: dict[str, Any], model: object = None) -> dict[str, Any]:
        """Rows are tokenized already."""
        return {}

    def concatenated_forward(self, model: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Mean log-probability of a token of chosen and rejected answers, (pairs,) each; logits; the chosen's loss."""
        logits = model(batch["input_ids"], attention_mask=batch["attention_mask"], use_cache=False).logits
        labels = batch["input_ids"].masked_fill(batch["completion_mask"] == 0, -100)
        means = self.get_batch_logps(logits, labels, average_log_prob=True)
        chosen = len(labels) // 2
        loss = torch.nn.functional.cross_entropy(logits[:chosen, :-1].flatten(0, 1), labels[:chosen, 1:].flatten())
        return means[:chosen], means[chosen:], logits[:chosen], logits[chosen:], loss
