"""The model that is tuned: a pretrained trunk with a classification head, pooled as the checkpoint was trained.

Two shapes exist: the architecture's own sequence classifier, and `PooledClassifier`, which pools the token states
(pooling.py) and applies one linear layer. A mean-pooled classifier is no standard transformers class, so tuned folders
are opened here; the graph needs nobody.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTextEncoding,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
)

from edgetune.serve.errors import ModelError
from edgetune.tune.models.pooling import pool

if TYPE_CHECKING:
    from edgetune.tune.models.types import Model


class NoHead(nn.Module):
    """Stands where a head would: what is pooled passes as it is, where probes and hooks look for a head's input."""

    bias = None

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_features = self.out_features = width

    @property
    def weight(self) -> torch.Tensor:
        """The identity, (width, width) float32, made when asked for."""
        return torch.eye(self.out_features)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """What was given."""
        return pooled


class PooledClassifier(PreTrainedModel):
    """A trunk, its token states pooled by `config.edgetune_pooling`, and a linear head.

    With `config.edgetune_head` "none" there is no head: the outputs are the pooled states, scaled to length one.
    """

    base_model_prefix = "trunk"
    _supports_sdpa = True
    _supports_flash_attn = True

    def __init__(self, config: PretrainedConfig, trunk: Model | None = None) -> None:
        # The trunk first: it settles which attention the architecture supports, the wrapper follows.
        built = trunk if trunk is not None else trunk_opener(config).from_config(config, **trunk_options(config))
        config._attn_implementation = built.config._attn_implementation
        super().__init__(config)
        self.trunk = built
        self.dropout = nn.Dropout(0.1)
        width = config.hidden_size * len(config.edgetune_pooling.split("+"))
        headless = getattr(config, "edgetune_head", None) == "none"
        self.classifier = NoHead(width) if headless else nn.Linear(width, config.num_labels)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if module is self.classifier and isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Logits (batch, labels) float32 for input_ids and attention_mask (batch, tokens) int64."""
        extra = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        states = self.trunk(input_ids=input_ids, attention_mask=attention_mask, **extra).last_hidden_state
        pooled = pool(states, attention_mask, self.config.edgetune_pooling)
        if isinstance(self.classifier, NoHead):
            vectors = self.classifier(pooled)
            # Not functional.normalize, whose expand_as leaves five nodes on shapes in the graph.
            length = vectors.norm(dim=-1, keepdim=True).clamp(min=1e-12)
            return SequenceClassifierOutput(logits=vectors / length)
        return SequenceClassifierOutput(logits=self.classifier(self.dropout(pooled)))


def is_decoder(config: PretrainedConfig) -> bool:
    """Whether each token of a model sees those before it alone, so that the last one stands for the text.

    By what transformers has for its type: a sequence classifier that reads the last token, or a language model that is
    neither a masked one nor one with an encoder.
    """
    classifiers = AutoModelForSequenceClassification._model_mapping
    kind = type(config)
    if kind in classifiers and issubclass(classifiers[kind], GenericForSequenceClassification):
        return True
    encoders = (MODEL_FOR_MASKED_LM_MAPPING_NAMES, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    name = config.model_type
    return name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and not any(name in names for names in encoders)


def has_encoder_alone(config: PretrainedConfig) -> bool:
    """Whether a model of encoder and decoder can be opened without its decoder, as T5 can.

    Not by `is_encoder_decoder`, which T5's encoder saves as False.
    """
    whole, alone = AutoModel._model_mapping, AutoModelForTextEncoding._model_mapping
    kind = type(config)
    return kind in alone and (kind not in whole or whole[kind] is not alone[kind])


def trunk_opener(config: PretrainedConfig) -> type[AutoModel]:
    """The class that opens a trunk: of encoder and decoder the encoder alone."""
    return AutoModelForTextEncoding if has_encoder_alone(config) else AutoModel


def trunk_class(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """The class of a trunk; None where transformers has none for a config of this type."""
    mapping = trunk_opener(config)._model_mapping
    known = type(config) in mapping
    return mapping[type(config)] if known else None


def trunk_options(config: PretrainedConfig) -> dict[str, bool]:
    """Keyword arguments that leave out a pooler which pooling by word would not use."""
    trunk = trunk_class(config)
    accepts = inspect.signature(trunk).parameters if trunk is not None else {}
    return {"add_pooling_layer": False} if "add_pooling_layer" in accepts else {}


def input_table(model: Any) -> Any | None:
    """What gives the states of tokens; None of a model for pictures, or one that hashes characters."""
    try:
        return model.get_input_embeddings()
    except (NotImplementedError, AttributeError):
        return None


def token_embeddings(model: Model) -> nn.Embedding | None:
    """The table of tokens; None of a model without."""
    table = input_table(model)
    return table if isinstance(table, nn.Embedding) else None


def head_linear(model: nn.Module) -> tuple[str, nn.Linear | NoHead]:
    """Name and layer of the last linear layer, the one that gives the logits, or of what stands in its place.

    Raises:
        ModelError: there is none with as many outputs as labels.
    """
    for name, module in model.named_modules():
        if isinstance(module, NoHead):
            return name, module
    labels = model.config.num_labels  # type: ignore[union-attr]
    linears = [
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.out_features == labels and "trunk." not in name
    ]
    if not linears:
        raise ModelError(f"{type(model).__name__} has no linear layer that gives the {labels} logits.")
    return linears[-1]


def trained_head(model: Model) -> nn.Linear | NoHead:
    """The linear layer that gives the logits, in a model with adapters the trained copy of it."""
    inside = model.get_base_model() if hasattr(model, "get_base_model") else model
    return head_linear(inside)[1]


def head_names(model: nn.Module) -> tuple[str, ...]:
    """Names of the head's modules: all that stand beside the trunk and have weights.

    BERT's head is `classifier`, DistilBERT's `pre_classifier` and `classifier`, DeBERTa's `pooler` and `classifier`,
    ModernBERT's `head` and `classifier`: none of them is in a pretrained checkpoint, so all are trained whole.
    """
    trunk = model.base_model_prefix
    return tuple(
        name for name, module in model.named_children() if name != trunk and next(module.parameters(), None) is not None
    )


def set_head(model: nn.Module, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    """Put a solved head in place: weight (labels, features) and bias (labels) float32."""
    replace_weights(head_linear(model)[1], weight, bias)


def replace_weights(linear: nn.Linear | NoHead, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    """Put weight (outputs, features) and bias (outputs) float32 into a layer, which may lack a bias; not into none."""
    if isinstance(linear, NoHead):
        return
    with torch.no_grad():
        linear.weight.copy_(torch.as_tensor(weight, dtype=linear.weight.dtype))
        if linear.bias is not None:
            linear.bias.copy_(torch.as_tensor(bias, dtype=linear.bias.dtype))
