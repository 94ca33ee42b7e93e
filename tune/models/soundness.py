"""Whether a base can be tuned at all: weights that are there and are numbers, a padding token, ids that have a row.

Looked at as the base is opened, before anything is trained. What only a graph shows is `edgetune.export.once.trial`'s.
"""

from __future__ import annotations

import math
from collections.abc import Set
from typing import TYPE_CHECKING

import torch

from edgetune.serve.errors import ModelError
from edgetune.tune.models.classifier import head_names

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from edgetune.tune.models.base import Base
    from edgetune.tune.models.types import Model

_SHOWN = 3


def check_weights(base: Base, model: Model, missing: Set[str]) -> None:
    """Refuse a trunk of which weights are missing, or are no finite numbers.

    Args:
        model: as it was opened, with a head of its own.
        missing: names of its weights that the files do not have; those of head and pooler are learnt anew.

    Raises:
        ModelError: naming the first of these weights.
    """
    new = (*head_names(model), "pooler")
    lost = sorted(name for name in missing if not any(part in name.split(".") for part in new))
    if lost:
        raise ModelError(
            f"The files of {base.folder} lack {len(lost)} of the weights that a {model.config.model_type!r} model has, "
            f"such as {_listed(lost)}: they would be random.",
            expected="the weights of the architecture that config.json names",
            action="copy config.json and weights again from the model's source",
        )
    wrong = [name for name, weight in model.named_parameters() if not bool(torch.isfinite(weight).all())]
    if wrong:
        raise ModelError(
            f"{len(wrong)} weights of {base.folder} hold values that are no finite numbers: {_listed(wrong)}.",
            expected="finite weights",
            action="copy the weights again from the model's source; a training that diverged leaves such ones",
        )


def check_vocabulary(base: Base, model: Model, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer that gives ids for which the model has no embedding.

    Raises:
        ModelError: saying how many ids there are, and how many rows.
    """
    rows = _embedding_rows(model)
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= rows)
    if beyond:
        listed = ", ".join(repr(token) for _, token in beyond[:_SHOWN])
        raise ModelError(
            f"The tokenizer of {base.folder} has {len(beyond)} tokens with ids from {beyond[0][0]} on, such as "
            f"{listed}, and the model has {rows:.0f} embeddings.",
            expected=f"ids below {rows:.0f}",
            action="take the tokenizer that was saved with the model, or resize the model's embeddings before "
            "(resize_token_embeddings in transformers) and save both",
        )


def settle_padding(tokenizer: PreTrainedTokenizerBase, model: Model) -> str:
    """Give tokenizer and model one padding token, on the right; returns a sentence where it had to be chosen.

    The runtime pads on the right, with the id of config.json. What padding holds does not count where the attention
    mask is obeyed, and whether it is, is proven on the graph.
    """
    tokenizer.padding_side = "right"
    tokenizer.init_kwargs["padding_side"] = "right"  # what save_pretrained writes
    rows, known, sentence = _embedding_rows(model), getattr(model.config, "pad_token_id", None), ""
    # RoBERTa and its kin count positions by the padding id of the config, which therefore comes first.
    token = tokenizer.convert_ids_to_tokens(known) if isinstance(known, int) and 0 <= known < rows else None
    if token is not None and token != tokenizer.pad_token:
        if tokenizer.pad_token is not None:
            sentence = f"Padding is {token!r}, as config.json says; the tokenizer said {tokenizer.pad_token!r}."
        tokenizer.pad_token = token
    elif tokenizer.pad_token is None:
        tokenizer.pad_token = _stand_in(tokenizer)
        sentence = (
            f"The base has no padding token; {tokenizer.pad_token!r} is taken, which the attention mask leaves out."
        )
    model.config.pad_token_id = tokenizer.pad_token_id
    return sentence


def _embedding_rows(model: Model) -> float:
    """Rows of the table of tokens; no end where an architecture has none, as CANINE, which hashes characters."""
    try:
        return float(model.get_input_embeddings().weight.shape[0])
    except (NotImplementedError, AttributeError):
        return math.inf


def _stand_in(tokenizer: PreTrainedTokenizerBase) -> str:
    for token in (tokenizer.eos_token, tokenizer.unk_token, tokenizer.bos_token):
        if token is not None:
            return str(token)
    return str(tokenizer.convert_ids_to_tokens(0))


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
