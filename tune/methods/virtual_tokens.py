"""Virtual tokens: rows of the token table that no text has, put before each text by the tokenizer's own template.

Trained with peft's modules and then written into the table, so that what is left is an ordinary checkpoint: exporters,
fusions, 8-bit attention and other servers see one more piece of a tokenizer's template. They stand behind the first
special token, since heads read the state at the first position.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch import nn

from edgetune.serve.errors import ModelError, RecipeError
from edgetune.tune.models.classifier import head_names, input_table, token_embeddings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from edgetune.tune.models.encoder import Encoder
    from edgetune.tune.models.types import Model
    from edgetune.tune.recipe import TuneRecipe

_SPECIAL = "SpecialToken"
# Windows of a long text share a quarter of their tokens, and must be longer than that beside special tokens.
SPARE_TOKENS = 4


class VirtualTokens(nn.Module):
    """A token table, some rows of which come from a module that is trained: peft's PromptEmbedding or PromptEncoder."""

    def __init__(self, table: nn.Embedding, first: int, count: int, source: nn.Module) -> None:
        """Let `source` give the rows `first` to `first + count`: (1, count) int64 to (1, count, width)."""
        super().__init__()
        self.table, self.source, self._first, self._count = table, source, first, count

    def rows(self) -> torch.Tensor:
        """The virtual tokens' embeddings, (count, width) float32."""
        places = torch.arange(self._count, device=self.table.weight.device)
        rows: torch.Tensor = self.source(places[None])[0]
        return rows

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Embeddings (..., width) of ids (...) int64."""
        places = ids - self._first
        is_virtual = (places >= 0) & (places < self._count)
        virtual = self.rows()[places.clamp(0, self._count - 1)]
        return torch.where(is_virtual[..., None], virtual, self.table(ids))

    def baked(self) -> nn.Embedding:
        """The table with the rows in it."""
        with torch.no_grad():
            self.table.weight[self._first : self._first + self._count] = self.rows()
        return self.table


class _ExtendedTable(nn.Embedding):
    """A table of tokens that knows which of its rows are virtual."""

    first: int
    count: int


def extended(model: Model, encoder: Encoder, recipe: TuneRecipe) -> Encoder:
    """The encoder that puts the virtual tokens into each text; the model's table gets rows for them.

    The rows begin as those of tokens drawn from the vocabulary (Lester et al. 2021, arXiv 2104.08691).

    Raises:
        RecipeError: the task has no head that they could steer, or they leave no room for texts.
        ModelError: the model has no table of tokens, or its tokenizer no template.
    """
    count, table = recipe.prompt.tokens, token_embeddings(model)
    if not encoder.reads_text or not encoder.task.has_head:
        raise RecipeError(
            f"Method {recipe.method} is not for {encoder.task.name}: virtual tokens steer a head on texts.",
            expected="method auto, lora, layers, freeze or full",
        )
    most = encoder.max_tokens // 2 - (SPARE_TOKENS if encoder.task.per_token else 0)
    if count > most:
        raise RecipeError(
            f"tune.prompt.tokens is {count}, and the model takes {encoder.max_tokens} tokens of text and prompt.",
            expected=f"at most {most}",
        )
    if table is None:
        raise ModelError("The model has no table of tokens that could be extended.", action="use --method lora")
    tokenizer = with_virtual_tokens(encoder.tokenizer, count)
    first = tokenizer.convert_tokens_to_ids(_name(0))
    rows = max(table.num_embeddings, first + count)
    longer = _ExtendedTable(rows, table.embedding_dim, padding_idx=table.padding_idx)
    longer.first, longer.count = first, count
    with torch.no_grad():
        longer.weight[: table.num_embeddings] = table.weight
        drawn = torch.randperm(first)[:count]
        longer.weight[first : first + count] = table.weight[drawn[torch.arange(count) % len(drawn)]]
    put_table(model, longer.to(table.weight.device, table.weight.dtype))
    model.config.vocab_size = rows
    return replace(encoder, tokenizer=tokenizer)


def train_virtual_tokens(model: Model, make_source: Callable[[int, int], nn.Module]) -> Model:
    """Train the virtual tokens of an extended model and its head; all else stays.

    Args:
        make_source: what gives the rows, of their count and width; its own table begins with the rows as they are.
    """
    table = token_embeddings(model)
    assert isinstance(table, _ExtendedTable), "extended before"
    model.requires_grad_(False)
    source = make_source(table.count, table.embedding_dim).to(table.weight.device)
    with torch.no_grad():
        for module in source.modules():
            if isinstance(module, nn.Embedding):
                module.weight.copy_(table.weight[table.first : table.first + table.count])
    put_table(model, VirtualTokens(table, table.first, table.count, source))
    source.requires_grad_(True)
    for name in head_names(model):
        model.get_submodule(name).requires_grad_(True)
    return model


def put_table(model: Model, table: nn.Module) -> None:
    """Put a table of tokens in the place of the model's."""
    model.base_model.set_input_embeddings(table)


def bake(model: Model) -> Model:
    """The model with trained virtual tokens as rows of its table; one without any as it is."""
    table = input_table(model.base_model)
    if isinstance(table, VirtualTokens):
        put_table(model, table.baked())
    return model


def with_virtual_tokens(tokenizer: Any, count: int) -> Any:
    """A tokenizer that puts `count` tokens of its own into each text, behind the first special token.

    Raises:
        ModelError: it joins special tokens and text in a way that cannot be extended.
    """
    from transformers import PreTrainedTokenizerFast

    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise ModelError("The tokenizer has no tokenizer.json to extend.", action="use --method lora")
    extended = Tokenizer.from_str(backend.to_str())
    names = [_name(place) for place in range(count)]
    extended.add_special_tokens(names)
    document = json.loads(extended.to_str())
    # One piece a token: transformers.js takes a piece's id for its token.
    pieces = {name: {"id": name, "ids": [extended.token_to_id(name)], "tokens": [name]} for name in names}
    document["post_processor"] = _with_pieces(document["post_processor"], pieces)
    special = {name: str(getattr(tokenizer, name)) for name in _NAMED if getattr(tokenizer, name, None) is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(document)),
        model_max_length=tokenizer.model_max_length,
        model_input_names=list(tokenizer.model_input_names),
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        **special,
    )


_NAMED = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def _name(place: int) -> str:
    return f"<|virtual-{place}|>"


def _with_pieces(processor: Any, pieces: dict[str, Any]) -> dict[str, Any]:
    """A post-processor of tokenizer.json with more pieces behind its first one, by their names."""
    kind = None if processor is None else processor["type"]
    if kind == "Sequence":
        parts = list(processor["processors"])
        places = [place for place, part in enumerate(parts) if part["type"] in _JOINING]
        if len(places) > 1:
            raise _unknown_template(kind)
        if places:
            parts[places[0]] = _with_pieces(parts[places[0]], pieces)
        else:
            parts.append(_with_pieces(None, pieces))
        return {**processor, "processors": parts}
    if kind == "ByteLevel":
        return {"type": "Sequence", "processors": [processor, _with_pieces(None, pieces)]}
    template = _template(processor)
    single, pair = (_inserted(template[name], pieces) for name in ("single", "pair"))
    return {**template, "single": single, "pair": pair, "special_tokens": {**template["special_tokens"], **pieces}}


_JOINING = ("TemplateProcessing", "BertProcessing", "RobertaProcessing")


def _inserted(template: Sequence[dict[str, Any]], pieces: Iterable[str]) -> list[dict[str, Any]]:
    behind = 1 if template and _SPECIAL in template[0] else 0
    return [*template[:behind], *({_SPECIAL: {"id": name, "type_id": 0}} for name in pieces), *template[behind:]]


def _template(processor: Any) -> dict[str, Any]:
    """A post-processor as a template: BERT's and RoBERTa's own kinds written out, none as a text alone."""
    if processor is not None and processor["type"] == "TemplateProcessing":
        return dict(processor)

    def sequence(name: str, type_id: int = 0) -> dict[str, Any]:
        return {"Sequence": {"id": name, "type_id": type_id}}

    def special(name: str, type_id: int = 0) -> dict[str, Any]:
        return {_SPECIAL: {"id": name, "type_id": type_id}}

    if processor is None:
        pieces = {"single": [sequence("A")], "pair": [sequence("A"), sequence("B", 1)]}
        return {"type": "TemplateProcessing", **pieces, "special_tokens": {}}
    if processor["type"] not in _JOINING:
        raise _unknown_template(processor["type"])
    (begin, begin_id), (end, end_id) = processor["cls"], processor["sep"]
    is_bert = processor["type"] == "BertProcessing"
    second = 1 if is_bert else 0
    between = [special(end)] if is_bert else [special(end), special(end)]
    return {
        "type": "TemplateProcessing",
        "single": [special(begin), sequence("A"), special(end)],
        "pair": [special(begin), sequence("A"), *between, sequence("B", second), special(end, second)],
        "special_tokens": {
            name: {"id": name, "ids": [number], "tokens": [name]} for name, number in ((begin, begin_id), (end, end_id))
        },
    }


def _unknown_template(kind: str) -> ModelError:
    return ModelError(
        f"The tokenizer joins special tokens and text by {kind}, which cannot be extended by virtual tokens.",
        expected="a template, or the kinds of BERT and RoBERTa",
        action="use --method lora",
    )
