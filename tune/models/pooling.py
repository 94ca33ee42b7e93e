"""How token states become one vector: the poolings there are, and which of them a checkpoint was trained with.

The modes and their names are those of sentence-transformers (`sentence_transformers/models/Pooling.py`); several of
them side by side are written `mean+max`, and their vectors are joined. `head` stands for the architecture's own.
Must not import torch: the recipe reads the names.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgetune.serve.errors import ModelError

if TYPE_CHECKING:
    import torch

# By the names that sentence-transformers has, in the order in which it joins several.
MODES = {
    "cls": "cls",
    "max": "max",
    "mean": "mean",
    "mean_sqrt_len_tokens": "mean_sqrt_len",
    "weightedmean": "weightedmean",
    "lasttoken": "last",
}
# Older folders have a flag for each.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def pool(states: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """Vectors (batch, width x poolings) of token states (batch, tokens, width) and their mask (batch, tokens) int64.

    Args:
        states: of each token, padding included, which counts for nothing.
        mask: 1 for a token of the text; each row has one at least.
        pooling: of MODES, or several joined by "+".
    """
    import torch

    return torch.cat([_pool(states, mask, name) for name in pooling.split("+")], dim=-1)


def _pool(states: torch.Tensor, mask: torch.Tensor, name: str) -> torch.Tensor:
    import torch

    positions = torch.arange(states.shape[1], device=states.device)
    if name == "cls":
        return states[:, 0]
    if name == "last":
        last = (positions * mask).amax(dim=1)  # (batch,), on whichever side the padding is
        return states[torch.arange(states.shape[0], device=states.device), last]
    weights = mask.unsqueeze(-1).to(states.dtype)  # (batch, tokens, 1)
    if name == "max":
        return states.masked_fill(weights == 0, -1e9).amax(dim=1)
    if name == "weightedmean":
        weights = weights * (positions + 1).unsqueeze(-1).to(states.dtype)
    total = weights.sum(1).clamp(min=1)
    return (states * weights).sum(1) / (total.sqrt() if name == "mean_sqrt_len" else total)


def sentence_pooling(folder: Path) -> str | None:
    """The pooling that a sentence-transformers folder was trained with; None for a folder that says none.

    Raises:
        ModelError: it is one that is not known here.
    """
    path = next(iter(sorted(folder.glob("*_Pooling/config.json"))), None)
    if path is None:
        return None
    settings = _settings(path)
    names = _modes(settings)
    unknown = [name for name in names if name not in MODES]
    if unknown or not names:
        raise ModelError(
            f"{path} names the pooling {', '.join(unknown) or 'of no kind'}.",
            expected="one of " + ", ".join(MODES),
            action="choose one by word: --set tune.pooling=mean",
        )
    return "+".join(MODES[name] for name in names)


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        settings = error
    if not isinstance(settings, dict):
        raise ModelError(
            f"{path} is no JSON object.",
            expected="the settings of a pooling as sentence-transformers writes them",
            action="copy the file again from the model's source, or name a pooling: --set tune.pooling=mean",
        )
    return settings


def _modes(settings: Mapping[str, Any]) -> list[str]:
    """The names of the poolings that are on, as sentence-transformers has them."""
    given = settings.get("pooling_mode")
    if isinstance(given, str | list):
        return [given] if isinstance(given, str) else [str(name) for name in given]
    named = {
        _FLAGS.get(key, key.removeprefix("pooling_mode_"))
        for key, value in settings.items()
        if key.startswith("pooling_mode_") and value is True
    }
    return sorted(named, key=lambda name: [*MODES].index(name) if name in MODES else len(MODES))
