"""An embedding that trains only the rows that occur, since an optimizer's step over a whole vocabulary is most of a
small student's time: on MiniLM 30,522 rows against the 2,000 to 4,000 that a domain's texts use.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn
from torch.nn import functional


class SeenEmbedding(nn.Module):
    """Stands for an nn.Embedding: token ids go in as before; `weight` holds only the rows of the ids that occur.

    An id that was not named at the start gives the row of the first one that was: name all that will come.
    """

    def __init__(self, whole: nn.Embedding, occurring: Iterable[int]) -> None:
        super().__init__()
        device = whole.weight.device
        ids = torch.tensor(sorted({int(token) for token in occurring}), device=device)
        places = torch.zeros(whole.num_embeddings, dtype=torch.long, device=device)
        places[ids] = torch.arange(len(ids), device=device)
        self._whole = [whole]  # in a list: its weights are no parameters of the model that trains
        self.register_buffer("ids", ids, persistent=False)
        self.register_buffer("places", places, persistent=False)
        self.weight = nn.Parameter(whole.weight.detach()[ids].clone())

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Rows (batch, tokens, width) float32 of input_ids (batch, tokens) int64."""
        return functional.embedding(self.places[input_ids], self.weight)  # type: ignore[index]

    def restored(self) -> nn.Embedding:
        """The embedding that was stood for, with the trained rows in it."""
        whole = self._whole[0]
        with torch.no_grad():
            whole.weight[self.ids] = self.weight  # type: ignore[index]
        return whole


def train_seen_only(model: Any, occurring: Iterable[int]) -> None:
    """Put a SeenEmbedding in the place of the model's table of tokens."""
    model.base_model.set_input_embeddings(SeenEmbedding(model.base_model.get_input_embeddings(), occurring))


def restore_embedding(model: Any) -> None:
    """Put the whole table back, with what was learnt."""
    model.base_model.set_input_embeddings(model.base_model.get_input_embeddings().restored())
